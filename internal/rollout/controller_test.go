package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/retry"
)

// road is a Target whose cohorts get 50 calls a second each while the candidate has a share.
type road struct {
	mu                  sync.Mutex
	rng                 *rand.Rand
	scale               float64 // of the candidate's latencies
	policy              longpole.Config
	staged              *longpole.Config
	weight              float64
	fed                 time.Time
	baseline, candidate stats.Tally
	commands            []string
	refuse              map[string]int // how many of these calls err; -1 = all
	version             string
	weights             map[string]int
	held                map[string]float64 // by rollout
	without             map[string]longpole.Config
	gone                bool // a reload has removed the route
	turns               bool // the arms take turns
	turn                [2]bool
}

func newRoad(scale float64) *road {
	return &road{rng: rand.New(rand.NewPCG(1, 2)), scale: scale, policy: longpole.Config{}.Safe(), refuse: map[string]int{}, held: map[string]float64{}, without: map[string]longpole.Config{}}
}

func (r *road) called(name, text string) error {
	r.commands = append(r.commands, text)
	if r.refuse[name] != 0 {
		r.refuse[name]--
		return errTarget
	}
	return nil
}

func (r *road) Policy(route string) (longpole.Config, error) {
	if strings.HasPrefix(route, "no ") {
		return longpole.Config{}, errTarget
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return longpole.Config{}, errTarget
	}
	return r.policy, nil
}

func (r *road) Stage(_ string, candidate longpole.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("stage", "stage"); err != nil {
		return err
	}
	r.staged, r.baseline, r.candidate, r.fed = &candidate, stats.Tally{}, stats.Tally{}, time.Now()
	return nil
}

func (r *road) Weight(_ string, ratio float64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("weight", fmt.Sprint("weight ", ratio)); err != nil {
		return err
	}
	r.weight = ratio
	return nil
}

func (r *road) Tallies(string) (baseline, candidate stats.Tally, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse["tallies"] != 0 {
		r.refuse["tallies"]--
		return stats.Tally{}, stats.Tally{}, errTarget
	}
	n := int(time.Since(r.fed).Seconds() * 50)
	r.fed = time.Now()
	if !r.turns || r.turn == [2]bool{false, true} {
		r.baseline = r.baseline.Merge(cohort(r.rng, n, 1))
	}
	if !r.turns || r.turn == [2]bool{true, true} {
		r.candidate = r.candidate.Merge(cohort(r.rng, n, r.scale))
	}
	return r.baseline, r.candidate, nil
}

func (r *road) Promote(string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("promote", "promote"); err != nil {
		return err
	}
	if r.version != "" {
		r.weights = only(r.weights, r.version)
	} else {
		r.policy = *r.staged
	}
	clear(r.held)
	r.staged, r.weight = nil, 0
	return nil
}

func (r *road) Discard(string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("discard", "discard"); err != nil {
		return err
	}
	r.staged, r.weight = nil, 0
	return nil
}

func (r *road) StageVersion(_, upstream string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.staged, r.version, r.baseline, r.candidate, r.fed = &longpole.Config{}, upstream, stats.Tally{}, stats.Tally{}, time.Now()
	return r.called("stage", "stage version "+upstream)
}

func (r *road) Turn(_ string, candidate, counted bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turns, r.turn = true, [2]bool{candidate, counted}
	return r.called("turn", fmt.Sprint("turn ", candidate, " ", counted))
}

func (r *road) Adopt(_ string, c longpole.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("adopt", "adopt"); err != nil {
		return err
	}
	r.policy = c
	clear(r.held)
	return nil
}

func (r *road) Weights(string) (map[string]int, error) {
	if r.weights == nil {
		return nil, errTarget
	}
	return maps.Clone(r.weights), nil
}

func (r *road) Split(_ string, weights map[string]int) error {
	r.weights = weights
	return r.called("split", fmt.Sprint("split ", weights))
}

func (r *road) Hold(_, name string, without longpole.Config, ratio float64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[name] == ratio && reflect.DeepEqual(r.without[name], without) {
		return nil
	}
	if err := r.called("hold", fmt.Sprint("hold ", name, " ", ratio)); err != nil {
		return err
	}
	r.held[name], r.without[name] = ratio, without
	return nil
}

func (r *road) Held(_, _ string) (promoted, heldBack stats.Tally, err error) {
	return promoted, heldBack, errTarget
}

func (r *road) Release(_, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, name)
	return r.called("release", "release "+name)
}

func (r *road) Kill(route string, parts ...string) error {
	return r.called("kill", fmt.Sprint("kill ", route, " ", parts))
}

func (r *road) expect(t *testing.T, commands ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.commands, commands) {
		t.Errorf("commands %q, want %q", r.commands, commands)
	}
}

func trial() Spec {
	to := longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{}}}.Safe()
	return Spec{Change: longpole.Change{Route: "all", To: to}, Predicted: Quantiles{P50: 12e6, P95: 27e6, P99: 38e6}, Reason: "hedge"}
}

// controlled runs f with a controller whose Run is going, in a bubble.
func controlled(t *testing.T, r *road, f func(*Controller)) {
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: r})
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

func wait(c *Controller, id string) Status {
	for {
		if s, _ := c.Get(id); s.Phase.Final() {
			return s
		}
		time.Sleep(time.Second)
	}
}

func mustStart(t *testing.T, c *Controller, s Spec) string {
	t.Helper()
	id, err := c.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return id
}

var climbed = []string{"stage", "weight 0.01", "weight 0.05", "weight 0.25", "weight 0.5"}

func TestAnImprovementBecomesThePolicy(t *testing.T) {
	r := newRoad(.6)
	controlled(t, r, func(c *Controller) {
		s := wait(c, mustStart(t, c, trial()))
		r.expect(t, append(climbed[:5:5], "promote")...)
		if s.Phase != Promoted || s.Judgement.Verdict != Improved || r.policy.Retry.Hedge == nil {
			t.Errorf("%s, %s: %s", s.Phase, s.Judgement.Verdict, s.Outcome)
		}
		// Lognormal(20 ms, 0.5) times 0.6: p50 12 ms, p99 38.4 ms.
		if p99 := s.Measured.P99; p99 < 36*time.Millisecond || p99 > 41*time.Millisecond || s.Predicted.P99 != 38*time.Millisecond {
			t.Errorf("predicted %v, measured %v", s.Predicted, s.Measured)
		}
		if s.Baseline.P50 < 19*time.Millisecond || s.Baseline.P50 > 21*time.Millisecond {
			t.Errorf("baseline %v", s.Baseline)
		}
		if s.Ended.Sub(s.Started) > 10*time.Minute || s.Plan == "" || s.Weight != 0 || s.Step != 4 {
			t.Errorf("%+v", s)
		}
		var phases []Phase
		for _, e := range s.Journal {
			phases = append(phases, e.Phase)
		}
		if want := []Phase{Pending, Warmup, Step, Step, Step, Step, Promoted}; !slices.Equal(phases, want) {
			t.Errorf("journal %v", s.Journal)
		}
	})
}

func TestARegressionIsRolledBack(t *testing.T) {
	r := newRoad(1.5)
	controlled(t, r, func(c *Controller) {
		s := wait(c, mustStart(t, c, trial()))
		if s.Phase != RolledBack || s.Judgement.Verdict != Worse || r.policy.Retry.Hedge != nil || r.staged != nil {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if took := s.Ended.Sub(s.Started); took > 4*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func TestStatusIsJSONInEveryPhase(t *testing.T) {
	r := newRoad(.6)
	controlled(t, r, func(c *Controller) {
		id := mustStart(t, c, trial())
		seen := map[Phase]bool{}
		for {
			s, _ := c.Get(id)
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatalf("%s: %v", s.Phase, err)
			}
			for _, field := range []string{`"phase":"`, `"measured_ms":{"p50":`, `"predicted_ms":{"p50":12,`, `"metrics":[{`, `"change":{"route":"all"`, `"journal":[{`} {
				if !strings.Contains(string(data), field) {
					t.Fatalf("%s: no %s in %s", s.Phase, field, data)
				}
			}
			seen[s.Phase] = true
			if s.Phase.Final() {
				break
			}
			time.Sleep(time.Second)
		}
		if !seen[Warmup] || !seen[Step] || !seen[Promoted] {
			t.Errorf("seen %v", seen)
		}
	})
}

func TestOneRolloutARoute(t *testing.T) {
	controlled(t, newRoad(1), func(c *Controller) {
		id := mustStart(t, c, trial())
		if _, err := c.Start(trial()); !errors.Is(err, ErrBusy) {
			t.Errorf("the same route: %v", err)
		}
		other := trial()
		other.Change.Route = "other"
		mustStart(t, c, other)
		if err := c.Abort(id, "enough"); err != nil {
			t.Error(err)
		}
		mustStart(t, c, trial())
		if n := len(c.List()); n != 3 {
			t.Errorf("%d rollouts", n)
		}
	})
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	controlled(t, newRoad(1), func(c *Controller) {
		bad := trial()
		bad.Goal = "win"
		if _, err := c.Start(bad); err == nil || !strings.Contains(err.Error(), "goal") {
			t.Errorf("bad goal: %v", err)
		}
		nowhere := trial()
		nowhere.Change.Route = "no such route"
		if _, err := c.Start(nowhere); !errors.Is(err, errTarget) {
			t.Errorf("unknown route: %v", err)
		}
		stale := trial()
		stale.Change.From = longpole.Config{Timeout: time.Minute}
		if _, err := c.Start(stale); !errors.Is(err, ErrStale) {
			t.Errorf("another policy is in force: %v", err)
		}
		stale.Change.From = longpole.Config{}.Safe()
		if _, err := c.Start(stale); err != nil {
			t.Errorf("the policy in force: %v", err)
		}
		if err := c.Abort("r99", ""); !errors.Is(err, ErrUnknown) {
			t.Errorf("unknown id: %v", err)
		}
		if _, ok := c.Get("r99"); ok {
			t.Error("got an unknown id")
		}
	})
}

func TestPeopleMayEndARollout(t *testing.T) {
	r := newRoad(1)
	controlled(t, r, func(c *Controller) {
		id := mustStart(t, c, trial())
		time.Sleep(45 * time.Second)
		if err := c.Abort(id, "pager"); err != nil {
			t.Error(err)
		}
		r.expect(t, "stage", "weight 0.01", "discard")
		s, _ := c.Get(id)
		if s.Phase != Aborted || s.Outcome != "pager" {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if err := c.Abort(id, "pager"); !errors.Is(err, ErrEnded) {
			t.Errorf("twice: %v", err)
		}
		id = mustStart(t, c, trial())
		if err := c.Promote(id, "sure"); err != nil {
			t.Error(err)
		}
		if s, _ = c.Get(id); s.Phase != Promoted || s.Outcome != "by hand: sure" || r.policy.Retry.Hedge == nil {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if err := c.Promote(id, "sure"); !errors.Is(err, ErrEnded) {
			t.Errorf("twice: %v", err)
		}
	})
}

func TestDroppingIsTriedUntilItWorks(t *testing.T) {
	r := newRoad(1.5)
	r.refuse["discard"] = 3
	controlled(t, r, func(c *Controller) {
		id := mustStart(t, c, trial())
		s, _ := c.Get(id)
		for ; s.Ending == ""; s, _ = c.Get(id) {
			time.Sleep(time.Second)
		}
		if s.Phase != Step || s.Ending != RolledBack {
			t.Errorf("%s, ending %q", s.Phase, s.Ending)
		}
		if r.weight != 0 {
			t.Errorf("the candidate still gets %v of the calls", r.weight)
		}
		if _, err := c.Start(trial()); !errors.Is(err, ErrBusy) {
			t.Errorf("a second candidate: %v", err)
		}
		s = wait(c, id)
		if last := s.Journal[len(s.Journal)-1].Text; s.Phase != RolledBack || !strings.Contains(last, "after 3 refusals") {
			t.Errorf("%s: %s", s.Phase, last)
		}
	})
}

func TestDroppingIsNotTriedForever(t *testing.T) {
	r := newRoad(1.5)
	r.refuse["discard"] = -1
	controlled(t, r, func(c *Controller) {
		s := wait(c, mustStart(t, c, trial()))
		if s.Phase != Aborted || !strings.Contains(s.Outcome, "gave up after 60 refusals") || !strings.Contains(s.Outcome, "Worse: ") {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if r.weight != 0 {
			t.Errorf("the candidate still gets %v of the calls", r.weight)
		}
	})
}

func TestATargetThatErrsKeepsItsPolicy(t *testing.T) {
	for name, want := range map[string][]string{
		"stage":   {"stage"},
		"weight":  {"stage", "weight 0.01", "discard"},
		"promote": append(climbed[:5:5], "promote", "discard"),
		"tallies": {"stage", "weight 0.01", "discard"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(.6)
			r.refuse[name] = -1
			controlled(t, r, func(c *Controller) {
				s := wait(c, mustStart(t, c, trial()))
				if s.Phase != Aborted || !strings.Contains(s.Outcome, "target: gone") || r.policy.Retry.Hedge != nil {
					t.Errorf("%s: %s", s.Phase, s.Outcome)
				}
				r.expect(t, want...)
			})
		})
	}
}

func TestTheEndOfTheProgramDropsCandidates(t *testing.T) {
	for _, refusals := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			r := newRoad(1)
			c := NewController(Options{Target: r})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			id := mustStart(t, c, trial())
			time.Sleep(2 * time.Minute)
			r.mu.Lock()
			r.refuse["discard"] = refusals
			r.mu.Unlock()
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			s, _ := c.Get(id)
			if s.Phase != Aborted || r.staged != nil || !strings.Contains(s.Journal[len(s.Journal)-1].Text, "the program ends") {
				t.Errorf("%s: %+v", s.Phase, s.Journal)
			}
			if _, err := c.Start(trial()); !errors.Is(err, ErrClosed) {
				t.Errorf("Start after the end: %v", err)
			}
			c.Close()
			c.Close()
		})
	}
}

func TestCloseWithoutRunEndsWhatIsPending(t *testing.T) {
	c := NewController(Options{Target: newRoad(1)})
	id, err := c.Start(trial())
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Get(id); s.Phase != Pending || s.Step != 0 {
		t.Errorf("before Run: %+v", s)
	}
	if err := c.Promote(id, ""); !errors.Is(err, ErrEnded) {
		t.Errorf("Promote of nothing staged: %v", err)
	}
	c.Close()
	if s, _ := c.Get(id); s.Phase != Aborted {
		t.Errorf("after Close: %s", s.Phase)
	}
	if err := c.Run(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	controlled(t, newRoad(1), func(c *Controller) {
		var last string
		for range kept + 20 {
			last = mustStart(t, c, trial())
			if err := c.Abort(last, "next"); err != nil {
				t.Fatal(err)
			}
		}
		list := c.List()
		if len(list) > kept || list[len(list)-1].ID != last {
			t.Errorf("%d rollouts, the last is %s", len(list), list[len(list)-1].ID)
		}
	})
}

func TestJournalIsBounded(t *testing.T) {
	r := &run{c: NewController(Options{})}
	for i := range 10 * journalLines {
		r.note(fmt.Sprint(i))
	}
	if len(r.journal) != journalLines || r.journal[0].Text != "0" || r.journal[journalLines-1].Text != fmt.Sprint(10*journalLines-1) {
		t.Errorf("%d lines, from %q to %q", len(r.journal), r.journal[0].Text, r.journal[len(r.journal)-1].Text)
	}
	if r.dropped != 9*journalLines {
		t.Errorf("%d dropped", r.dropped)
	}
}
