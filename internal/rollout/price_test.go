package rollout

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

func TestAPriceLetsALimitRefuse(t *testing.T) {
	for _, tt := range []struct {
		name         string
		price        float64
		shed, failed float64 // of the candidate's calls
		blown        bool
	}{
		{"no price", 0, 0.3, 0, true},
		{"within the price", 0.4, 0.3, 0, false},
		{"far beyond it", 0.4, 0.7, 0, true},
		{"failed calls have no price", 0.4, 0, 0.3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec()
			s.Switchback, s.Shed = time.Minute, tt.price
			y := tell(t, s.WithDefaults())
			for range 400 {
				before := y.sample.candidate.Calls
				y.slice()
				if y.st.weight == 1 {
					n := float64(y.sample.candidate.Calls - before)
					y.sample.candidate.Shed += uint64(tt.shed * n)
					y.sample.candidate.Failed += uint64(tt.failed * n)
				}
				if y.st.blown(y.spec) {
					break
				}
			}
			if y.st.blown(y.spec) != tt.blown {
				t.Errorf("blown: %v, %s: %s", !tt.blown, y.st.phase, y.st.reason)
			}
		})
	}
}

func TestThePriceAndTheTurnsAreBounded(t *testing.T) {
	share := 0.01
	for _, tt := range []struct {
		edit  func(*Spec)
		fault string // "" = none
	}{
		{func(s *Spec) { s.Shed = 0.95 }, ""},
		{func(s *Spec) { s.Shed = 0.96 }, "shed"},
		{func(s *Spec) { s.Shed = -0.1 }, "shed"},
		{func(s *Spec) { s.Switchback = 2 * time.Second }, ""},
		{func(s *Spec) { s.Switchback = time.Second }, "switchback"},
		{func(s *Spec) { s.Switchback, s.Washout = 4*time.Second, 3*time.Second }, "washout"},
		{func(s *Spec) { s.Switchback, s.Holdback = time.Minute, &share }, ""},
	} {
		s := trial()
		tt.edit(&s)
		err := s.Validate()
		if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%+v: %v, want a fault of %q", s, err, tt.fault)
		}
	}
	if s := (Spec{Switchback: 4 * time.Second}).WithDefaults(); s.Washout != 2*time.Second || tick(s) != 500*time.Millisecond {
		t.Errorf("turns of 4 s have a washout of %s and a look every %s", s.Washout, tick(s))
	}
}

func TestThePlanOfASwitchbackKnowsItsTurns(t *testing.T) {
	s := Spec{Switchback: 30 * time.Second, Washout: 6 * time.Second}.WithDefaults()
	if plan := s.Plan(100, 30*time.Minute, Calibration{}); !strings.Contains(plan, "at 40 calls per second and arm") {
		t.Error(plan)
	}
	if plan := (Spec{}).WithDefaults().Plan(100, 30*time.Minute, Calibration{}); !strings.Contains(plan, "at 50 calls per second and arm") {
		t.Error(plan)
	}
}

func TestShortTurnsDecide(t *testing.T) {
	for scale, want := range map[float64]Phase{.6: Promoted, 1.5: RolledBack} {
		r := newRoad(scale)
		controlled(t, r, func(c *Controller) {
			spec := trial()
			spec.Switchback, spec.Washout, spec.Warmup, spec.MaxDuration = 4*time.Second, 2*time.Second, 5*time.Second, 10*time.Minute
			spec.Shed = 0.4
			s := wait(c, mustStart(t, c, spec))
			if s.Phase != want || s.Shed != 0.4 || s.SwitchbackMS != 4000 || !strings.Contains(s.Journal[1].Text, "it may refuse 40 % of the calls") {
				t.Errorf("%s: %s; %v", s.Phase, s.Outcome, s.Journal)
			}
		})
	}
}

// pond is a Target with a queue that both arms share: it serves 100 calls a second, and callers wait for two seconds at most. The
// candidate lets ten calls in at once and refuses the rest.
type pond struct {
	*road
	queue   float64
	surge   time.Time // from then on twice as many calls come as are served; before, four fifths
	settled time.Time
}

const pondStep = 5 * time.Millisecond

func (p *pond) Tallies(string) (baseline, candidate stats.Tally, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var took [2][]time.Duration
	if p.settled.Before(p.fed) {
		p.settled = p.fed
	}
	on := 0
	if p.turn[0] {
		on = 1
	}
	arms := []*stats.Tally{&p.baseline, &p.candidate}
	for ; p.settled.Before(time.Now()); p.settled = p.settled.Add(pondStep) {
		p.queue = max(0, p.queue-100*pondStep.Seconds())
		if p.settled.Before(p.surge) && p.rng.Float64() > 0.4 {
			continue // no call comes
		}
		count := stats.Tally{Calls: 1}
		switch latency := time.Duration((p.queue + 1 + p.rng.Float64()) * 1e7); {
		case on == 1 && p.queue >= 10:
			count.Shed = 1
		case latency > 2*time.Second:
			count.Failed, count.TimedOut, count.Attempts = 1, 1, 1
			took[on] = append(took[on], 2*time.Second)
		default:
			p.queue++
			count.Attempts = 1
			took[on] = append(took[on], latency)
		}
		if p.turn[1] {
			a := arms[on]
			a.Calls, a.Shed, a.Failed = a.Calls+1, a.Shed+count.Shed, a.Failed+count.Failed
			a.TimedOut, a.Attempts = a.TimedOut+count.TimedOut, a.Attempts+count.Attempts
		} else {
			took[on] = nil
		}
	}
	arms[on].Latency = arms[on].Latency.Merge(stats.Of(took[on]...))
	return p.baseline, p.candidate, nil
}

// TestALimitUnderOverloadIsPromotedAtItsPrice has twice as many calls come as can be served, from before the trial on or from its
// middle.
func TestALimitUnderOverloadIsPromotedAtItsPrice(t *testing.T) {
	for _, tt := range []struct {
		name  string
		price float64
		surge time.Duration
		want  Phase
	}{
		{"at its price", 0.6, 0, Promoted},
		{"overload that begins in the middle", 0.6, time.Minute, Promoted},
		{"without a price, because the baseline fails as many", 0, 0, Promoted},
		{"beyond its price", 0.2, 0, RolledBack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pond{road: newRoad(1), surge: time.Now().Add(tt.surge)}
				c := NewController(Options{Target: p})
				ended := make(chan error, 1)
				go func() { ended <- c.Run(t.Context()) }()
				s := trial()
				s.Switchback, s.Washout, s.Warmup, s.MaxDuration, s.Shed = 6*time.Second, 3*time.Second, 10*time.Second, 15*time.Minute, tt.price
				status := wait(c, mustStart(t, c, s))
				if status.Phase != tt.want || strings.Contains(fmt.Sprint(status.Journal), "Environment") {
					t.Errorf("%s: %s; %v", status.Phase, status.Outcome, status.Journal)
				}
				t.Logf("%s after %s: %s", status.Phase, status.Ended.Sub(status.Started), status.Outcome)
				c.Close()
				<-ended
			})
		})
	}
}
