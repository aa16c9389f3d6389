package rollout

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
)

// shift is a road whose turns are noted with their times, and whose calls may be lost.
type shift struct {
	*road
	at       []time.Time // of each note
	notes    []string
	lost     uint64 // of a hundred calls of the candidate
	unstable bool   // a reload changes the policy while the candidate is staged
}

func newShift() *shift { return &shift{road: newRoad(1)} }

func (s *shift) with(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *shift) note(text string) {
	s.with(func() { s.at, s.notes = append(s.at, time.Now()), append(s.notes, text) })
}

func (s *shift) Stage(route string, c longpole.Config) error {
	s.note("stage")
	s.with(func() {
		if s.unstable {
			s.policy.Timeout += time.Second
		}
	})
	return s.road.Stage(route, c)
}

func (s *shift) Turn(route string, candidate, counted bool) error {
	s.note(fmt.Sprint("turn ", candidate, " ", counted))
	return s.road.Turn(route, candidate, counted)
}

func (s *shift) Discard(route string) error {
	s.note("discard")
	return s.road.Discard(route)
}

func (s *shift) Tallies(route string) (baseline, candidate stats.Tally, err error) {
	baseline, candidate, err = s.road.Tallies(route)
	candidate.Failed = candidate.Calls * s.lost / 100
	return baseline, candidate, err
}

// since is what was noted from the n-th note on, each with the time since the one before.
func (s *shift) since(n int) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := n + 1; i < len(s.notes); i++ {
		list = append(list, s.at[i].Sub(s.at[max(0, i-1)]).Round(time.Second).String()+" "+s.notes[i])
	}
	return list
}

// absent is how long all calls were without the change.
func (s *shift) absent() (sum time.Duration, turns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range s.notes[:max(0, len(s.notes)-1)] {
		if strings.HasPrefix(n, "turn true") {
			sum += s.at[i+1].Sub(s.at[i])
		}
		if n == "turn true false" {
			turns++
		}
	}
	return sum, turns
}

func limited(c *longpole.Config) { c.Limit = &limit.Config{Algorithm: limit.Fixed, Limit: 3} }

// inTurnsSpec is a limit that is held back for 1 % of the time: a turn of 30 s every 50 minutes.
func inTurnsSpec() Spec {
	share := 0.01
	return Spec{Change: longpole.Change{Route: "all", To: policy(limited)}, Goal: GoalNoWorse, Switchback: 30 * time.Second, Washout: 5 * time.Second, Holdback: &share}
}

// promotedInTurns has the change promoted by hand, and forgets what was noted until then.
func promotedInTurns(t *testing.T, c *Controller, s *shift) string {
	t.Helper()
	id := mustStart(t, c, inTurnsSpec())
	time.Sleep(time.Second)
	if err := c.Promote(id, "sure"); err != nil {
		t.Fatal(err)
	}
	s.with(func() { s.notes, s.at = nil, nil })
	return id
}

// shifted runs f with a Controller in a bubble.
func shifted(t *testing.T, s *shift, o Options, f func(*Controller)) {
	synctest.Test(t, func(t *testing.T) {
		o.Target = s
		c := NewController(o)
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		synctest.Wait()
		f(c)
		c.Close()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// untilTurn waits until all calls are without the change, counted.
func untilTurn(t *testing.T, s *shift) {
	t.Helper()
	for range 3 * 3600 {
		time.Sleep(time.Second)
		on := false
		s.with(func() { on = s.staged != nil && s.turn == [2]bool{true, true} })
		if on {
			return
		}
	}
	t.Fatal("no turn in three hours")
}

func (s *shift) expectNone(t *testing.T) {
	t.Helper()
	s.with(func() {
		if s.staged != nil {
			t.Error("the policy without the change is still there")
		}
	})
}

func TestAChangeTriedInTurnsIsHeldBackForAShareOfTheTime(t *testing.T) {
	s := newShift()
	shifted(t, s, Options{}, func(c *Controller) {
		id := promotedInTurns(t, c, s)
		if st, _ := c.Get(id); st.Held != Held || !strings.Contains(st.Journal[len(st.Journal)-1].Text, "for 1 % of the time, a turn of 30s at a time, all calls get the policy without this change") {
			t.Errorf("%q, %v", st.Held, st.Journal)
		}
		const periods = 40
		time.Sleep(periods * 50 * time.Minute)
		sum, turns := s.absent()
		if turns < periods-1 || turns > periods || sum != time.Duration(turns)*30*time.Second {
			t.Errorf("%d turns without the change, %s in all", turns, sum)
		}
		with, without, err := c.HeldInTurns(id)
		if low, high := uint64(turns-1)*25*50, uint64(turns)*26*50; err != nil || with.Calls < low || with.Calls > high || without.Calls < low || without.Calls > high {
			t.Errorf("%d and %d calls were counted, %v", with.Calls, without.Calls, err)
		}
		orders := map[string]int{}
		all := s.since(-1)
		for i, n := range all {
			if strings.HasSuffix(n, "stage") && i+6 < len(all) {
				orders[strings.Join(all[i+1:i+7], ", ")]++
			}
		}
		first := orders["0s turn true false, 5s turn true true, 25s turn false false, 5s turn false true, 25s turn false false, 5s discard"]
		second := orders["0s turn false false, 5s turn false true, 25s turn true false, 5s turn true true, 25s turn false false, 5s discard"]
		if first < periods/4 || second < periods/4 || first+second < periods-1 {
			t.Errorf("orders %v", orders)
		}
		if _, _, err := c.HeldInTurns("r9"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
	})
	s.expectNone(t)
	if !reflect.DeepEqual(s.policy, policy(limited)) {
		t.Errorf("in force: %+v", s.policy)
	}
}

func TestAPeriodHasOnePairWhateverRestarts(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	one := func() *absence {
		return newAbsence(&run{id: "r3", hash: "h", spec: inTurnsSpec()}, noon, policy(), policy())
	}
	a := one()
	period := a.period()
	if period != 50*time.Minute {
		t.Fatal(period)
	}
	for n := range int64(1000) {
		due, start := a.due(n), noon.Add(time.Duration(n)*period)
		if due.Before(start) || due.Add(a.length()).After(start.Add(period)) || !due.Equal(one().due(n)) {
			t.Fatalf("period %d: %s", n, due.Sub(start))
		}
		for name, tt := range map[string]struct {
			next int64 // before
			at   time.Time
			want int64
		}{
			"a process that begins before it is due":       {-1, due.Add(-time.Nanosecond), n},
			"one that begins after it was due":             {-1, due.Add(time.Nanosecond), n + 1},
			"it could not begin, and there is room for it": {n, start.Add(period - a.length()), n},
			"it could not begin in its period":             {n, start.Add(period - a.length() + 1), n + 1},
			"it was taken":                                 {n + 1, due.Add(time.Minute), n + 1},
			"nobody looked for days":                       {max(0, n-100), start, n},
		} {
			b := one()
			b.next = tt.next
			if b.heed(tt.at); b.next != tt.want {
				t.Fatalf("%s: period %d, want %d", name, b.next, tt.want)
			}
		}
	}
	b := one()
	if b.heed(noon.Add(-time.Hour)); b.next != 0 {
		t.Errorf("a clock that was set back: %d", b.next)
	}
}

func TestTheNextProcessGoesOnWithTheSamePeriods(t *testing.T) {
	p, s := &paper{}, newShift()
	shifted(t, s, Options{Journal: p}, func(c *Controller) {
		promotedInTurns(t, c, s)
		time.Sleep(10 * time.Hour)
	})
	next := newShift()
	synctest.Test(t, func(t *testing.T) { // in its bubble it is the same day again
		c := NewController(Options{Target: next, Journal: p})
		if doubts := c.Restore(p.read(t)); len(doubts) > 0 {
			t.Error(doubts)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		time.Sleep(10 * time.Hour)
		c.Close()
		<-ended
	})
	same := len(s.notes) > 60 && len(next.notes) > 60
	for i := range min(len(s.notes), len(next.notes)) {
		same = same && s.notes[i] == next.notes[i] && s.at[i].Sub(next.at[i]).Abs() <= time.Second
	}
	if !same {
		t.Errorf("before %v\nafter %v", s.since(-1), next.since(-1))
	}
}

func TestATurnOutlivesNoProcess(t *testing.T) {
	p, s := &paper{}, newShift()
	process(t, s.road, p, func(c *Controller) { // killed in the middle: what the gateway had staged is gone with it
		promotedInTurns(t, c, s)
		untilTurn(t, s)
	})
	next := newRoad(1)
	process(t, next, p, func(c *Controller) {
		if st, _ := c.Get("r1"); next.staged != nil || !reflect.DeepEqual(next.policy, policy(limited)) || st.Held != Held {
			t.Errorf("in force after a restart: %+v, staged %v, %q", next.policy, next.staged, st.Held)
		}
	})
}

// TestTurnsEndForWhatMattersMore breaks a turn in the middle, in each way that there is.
func TestTurnsEndForWhatMattersMore(t *testing.T) {
	for name, do := range map[string]func(*testing.T, *Controller, *shift){
		"a rollout of the route": func(t *testing.T, c *Controller, s *shift) {
			spec := inTurnsSpec()
			spec.Change.To, spec.Switchback, spec.Washout, spec.Holdback = policy(limited, hedging), 0, 0, nil
			mustStart(t, c, spec)
			s.with(func() {
				if s.staged == nil || !reflect.DeepEqual(*s.staged, policy(limited, hedging)) {
					t.Errorf("staged %+v", s.staged)
				}
			})
		},
		"a kill switch": func(t *testing.T, c *Controller, s *shift) {
			if err := c.Kill("all", []string{"cache"}, "stale"); err != nil {
				t.Error(err)
			}
			s.expectNone(t)
		},
		"rollouts that are switched off everywhere": func(t *testing.T, c *Controller, s *shift) {
			if err := c.Kill("", []string{Rollouts}, "peak"); err != nil {
				t.Error(err)
			}
			s.expectNone(t)
		},
		"a release": func(t *testing.T, c *Controller, s *shift) {
			if err := c.Release("r1", "known"); err != nil {
				t.Error(err)
			}
			s.expectNone(t)
		},
		"an undo": func(t *testing.T, c *Controller, s *shift) {
			if err := c.Undo("r1", "worse"); err != nil {
				t.Error(err)
			}
			s.expectNone(t)
		},
		"figures that are missing": func(_ *testing.T, _ *Controller, s *shift) {
			s.with(func() { s.refuse["tallies"] = 1 })
			time.Sleep(2 * time.Second)
		},
		"a turn that is refused": func(_ *testing.T, _ *Controller, s *shift) {
			s.with(func() { s.refuse["turn"] = 1 })
			time.Sleep(time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShift()
			shifted(t, s, Options{}, func(c *Controller) {
				promotedInTurns(t, c, s)
				untilTurn(t, s)
				do(t, c, s)
				noted := len(s.since(-1))
				if with, without, _ := c.HeldInTurns("r1"); with.Calls+without.Calls > 0 {
					t.Errorf("half a pair was counted: %d and %d calls", with.Calls, without.Calls)
				}
				time.Sleep(10 * time.Minute)
				for _, n := range s.since(noted - 1) {
					if strings.Contains(n, "turn true") {
						t.Errorf("afterwards %v", s.since(noted-1))
					}
				}
			})
			s.expectNone(t)
		})
	}
}

func TestACandidateThatIsNotDroppedIsDroppedLater(t *testing.T) {
	s := newShift()
	shifted(t, s, Options{}, func(c *Controller) {
		promotedInTurns(t, c, s)
		untilTurn(t, s)
		s.with(func() { s.refuse["discard"] = 3 })
		if err := c.Release("r1", "known"); err != nil {
			t.Error(err)
		}
		if _, err := c.Start(Spec{Change: longpole.Change{Route: "all", To: policy(limited, hedging)}}); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
	})
	s.expectNone(t)
}

// TestATurnThatLosesCallsIsCutShort has every second call fail without the change.
func TestATurnThatLosesCallsIsCutShort(t *testing.T) {
	s := newShift()
	s.lost = 50
	shifted(t, s, Options{}, func(c *Controller) {
		id := promotedInTurns(t, c, s)
		time.Sleep(20 * 50 * time.Minute)
		sum, turns := s.absent()
		if turns < 19 || sum > time.Duration(turns)*8*time.Second {
			t.Errorf("%d turns without the change took %s", turns, sum)
		}
		with, without, _ := c.HeldInTurns(id)
		if without.Calls < uint64(turns-1)*100 || without.Failed != without.Calls/2 || with.Calls < 19*24*50 {
			t.Errorf("what it was like is no evidence: %d of %d calls failed, %d with the change", without.Failed, without.Calls, with.Calls)
		}
	})
}

func TestWhatIsAsBadWithTheChangeIsNotCutShort(t *testing.T) {
	s := newShift()
	s.lost = 9
	shifted(t, s, Options{}, func(c *Controller) {
		promotedInTurns(t, c, s)
		time.Sleep(5 * 50 * time.Minute)
		if sum, turns := s.absent(); sum != time.Duration(turns)*30*time.Second {
			t.Errorf("%d turns took %s", turns, sum)
		}
	})
}

func TestNoTurnWhileTheBudgetBurns(t *testing.T) {
	s := newShift()
	var burns atomic.Bool
	shifted(t, s, Options{Gate: func(string) string {
		if burns.Load() {
			return "the budget burns"
		}
		return ""
	}}, func(c *Controller) {
		id := promotedInTurns(t, c, s)
		burns.Store(true)
		time.Sleep(5 * time.Hour)
		if noted := s.since(-1); len(noted) > 0 {
			t.Fatalf("while it burns: %v", noted)
		}
		burns.Store(false)
		untilTurn(t, s)
		burns.Store(true)
		time.Sleep(2 * time.Second)
		s.with(func() {
			if s.turn != [2]bool{false, false} {
				t.Errorf("while it burns again: %v", s.turn)
			}
		})
		time.Sleep(2 * time.Minute)
		s.expectNone(t)
		if _, without, _ := c.HeldInTurns(id); without.Calls == 0 {
			t.Error("what it was like until then is no evidence")
		}
	})
}

func TestAPolicyThatChangesUnderATurnEndsIt(t *testing.T) {
	s := newShift()
	shifted(t, s, Options{}, func(c *Controller) {
		promotedInTurns(t, c, s)
		s.with(func() { s.unstable = true })
		time.Sleep(2 * time.Hour)
		if noted := fmt.Sprint(s.since(-1)); strings.Contains(noted, "turn") || !strings.Contains(noted, "discard") {
			t.Error(noted)
		}
	})
	s.expectNone(t)
}

func TestTurnsFollowThePolicy(t *testing.T) {
	s := newShift()
	shifted(t, s, Options{}, func(c *Controller) {
		promotedInTurns(t, c, s)
		time.Sleep(3 * time.Hour)
		if _, without, _ := c.HeldInTurns("r1"); without.Calls == 0 {
			t.Error("nothing was held back")
		}
		promoted(t, c, s.road, 0.01, hedging)
		if with, without, err := c.HeldInTurns("r1"); with.Calls+without.Calls > 0 || err != nil {
			t.Errorf("evidence of another policy: %d and %d calls, %v", with.Calls, without.Calls, err)
		}
		untilTurn(t, s)
		s.with(func() {
			if !reflect.DeepEqual(*s.staged, policy(hedging)) || s.held["r2"] != 0.01 {
				t.Errorf("without the limit: %+v; held back beside it: %v", *s.staged, s.held)
			}
		})
		promoted(t, c, s.road, 0.01, func(p *longpole.Config) { p.Limit = &limit.Config{Algorithm: limit.Fixed, Limit: 9} })
		if st, _ := c.Get("r1"); st.Held != "superseded by r3" {
			t.Errorf("%q", st.Held)
		}
		if _, _, err := c.HeldInTurns("r1"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
	})
	s.expectNone(t)
}

func TestATargetThatRefusesThePolicyWithoutTheChangeIsHeard(t *testing.T) {
	s := newShift()
	shifted(t, s, Options{}, func(c *Controller) {
		id := promotedInTurns(t, c, s)
		s.with(func() { s.refuse["stage"] = 1 })
		time.Sleep(51 * time.Minute)
		if st, _ := c.Get(id); st.Held != "it cannot be held back alone: target: gone" {
			t.Errorf("%q", st.Held)
		}
		time.Sleep(2 * 50 * time.Minute)
		if st, _ := c.Get(id); st.Held != Held {
			t.Errorf("%q", st.Held)
		}
	})
}

func TestARouteThatMustWaitKeepsNoOtherFromItsTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &crossing{roads: map[string]*road{"exports": newRoad(1), "carts": newRoad(1)}}
		var burns atomic.Bool
		c := NewController(Options{Target: x, Gate: func(route string) string {
			if route == "exports" && burns.Load() {
				return "the budget burns"
			}
			return ""
		}})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		for _, route := range []string{"exports", "carts"} {
			spec := inTurnsSpec()
			spec.Change.Route = route
			id := mustStart(t, c, spec)
			time.Sleep(time.Second)
			if err := c.Promote(id, "sure"); err != nil {
				t.Fatal(err)
			}
		}
		burns.Store(true)
		time.Sleep(20 * 50 * time.Minute)
		_, one, _ := c.HeldInTurns("r1")
		if _, other, _ := c.HeldInTurns("r2"); one.Calls > 0 || other.Calls < 19*25*50 {
			t.Errorf("%d calls of the one that must wait, %d of the other", one.Calls, other.Calls)
		}
		c.Close()
		<-ended
	})
}

// TestOnePairAtATimeOfAllRoutes has two routes that would take turns for a tenth of the time each, and a third that is observed.
func TestOnePairAtATimeOfAllRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &crossing{roads: map[string]*road{"exports": newRoad(1), "views": newRoad(1), "carts": newRoad(1)}}
		c := NewController(Options{Target: x})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		share := 0.1
		for _, route := range []string{"exports", "carts"} {
			spec := inTurnsSpec()
			spec.Change.Route, spec.Holdback = route, &share
			if route == "exports" {
				spec.Observe = "views"
			}
			id := mustStart(t, c, spec)
			time.Sleep(time.Second)
			if err := c.Promote(id, "sure"); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]int{}
		for range 5000 {
			time.Sleep(time.Second)
			var on []string
			for _, name := range []string{"exports", "views", "carts"} {
				r := x.road(name)
				r.mu.Lock()
				if r.staged != nil {
					on = append(on, name)
				}
				r.mu.Unlock()
			}
			seen[strings.Join(on, " and ")]++
		}
		if len(seen) != 3 || seen["exports and views"] < 500 || seen["carts"] < 500 {
			t.Errorf("seconds in which turns were taken: %v", seen)
		}
		for _, id := range []string{"r1", "r2"} {
			if with, without, err := c.HeldInTurns(id); err != nil || with.Calls < 10_000 || without.Calls < 10_000 {
				t.Errorf("%s: %d and %d calls, %v", id, with.Calls, without.Calls, err)
			}
		}
		c.Close()
		<-ended
	})
}
