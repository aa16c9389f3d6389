package rollout

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
)

// crossing is a Target of two routes: what is done on the first shows on the second.
type crossing struct {
	Target // of all else
	roads  map[string]*road
	lost   uint64 // of a hundred calls, that the first route's candidate refuses
	before uint64 // the same of its policy in force
	felt   uint64 // of a hundred calls, that the second route refuses while the first has its candidate
}

func (x *crossing) road(route string) *road { return x.roads[route] }

func (x *crossing) Policy(route string) (longpole.Config, error) {
	if x.road(route) == nil {
		return longpole.Config{}, errTarget
	}
	return x.road(route).Policy(route)
}

func (x *crossing) Stage(route string, c longpole.Config) error { return x.road(route).Stage(route, c) }

func (x *crossing) Turn(route string, candidate, counted bool) error {
	return x.road(route).Turn(route, candidate, counted)
}

func (x *crossing) Weight(route string, ratio float64) error {
	return x.road(route).Weight(route, ratio)
}

func (x *crossing) Kill(string, ...string) error { return nil }

func (x *crossing) Release(route, name string) error { return x.road(route).Release(route, name) }

func (x *crossing) Adopt(route string, c longpole.Config) error { return x.road(route).Adopt(route, c) }

func (x *crossing) Promote(route string) error { return x.road(route).Promote(route) }

func (x *crossing) Discard(route string) error { return x.road(route).Discard(route) }

func (x *crossing) Tallies(route string) (baseline, candidate stats.Tally, err error) {
	baseline, candidate, err = x.road(route).Tallies(route)
	if route == "views" {
		candidate.Shed = candidate.Calls * x.felt / 100
	} else {
		candidate.Shed, baseline.Shed = candidate.Calls*x.lost/100, baseline.Calls*x.before/100
	}
	return baseline, candidate, err
}

func bulkhead() Spec {
	to := longpole.Config{Limit: &limit.Config{Algorithm: limit.Fixed, Limit: 3}}.Safe()
	return Spec{Change: longpole.Change{Route: "exports", To: to}, Observe: "views", Switchback: 30 * time.Second, Shed: 0.2, MaxDuration: 2 * time.Hour}
}

func crossed(t *testing.T, lost uint64, f func(*Controller, *crossing)) {
	synctest.Test(t, func(t *testing.T) {
		x := &crossing{lost: lost, roads: map[string]*road{"exports": newRoad(3), "views": newRoad(.5)}}
		c := NewController(Options{Target: x})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		synctest.Wait()
		f(c, x)
		c.Close()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAChangeIsJudgedOnTheRouteThatFeelsIt(t *testing.T) {
	crossed(t, 10, func(c *Controller, x *crossing) {
		before, _ := x.Policy("views")
		s := wait(c, mustStart(t, c, bulkhead()))
		if s.Phase != Promoted || s.Judgement.Verdict != Improved || s.Measured.P99 > 45*time.Millisecond {
			t.Fatalf("%s: %s; %+v", s.Phase, s.Outcome, s.Measured)
		}
		exports, views := x.road("exports"), x.road("views")
		if exports.policy.Limit == nil || views.staged != nil || !reflect.DeepEqual(before, views.policy) {
			t.Errorf("afterwards: %+v, %+v", exports.policy, views)
		}
		turns := func(r *road) (list []string) {
			for _, command := range r.commands {
				if strings.HasPrefix(command, "turn") {
					list = append(list, command)
				}
			}
			return list
		}
		if a, b := turns(exports), turns(views); len(a) < 4 || strings.Join(a, ", ") != strings.Join(b, ", ") {
			t.Errorf("the turns are %q and %q", a, b)
		}
	})
}

func TestAChangeThatCostsMoreThanItsPriceEndsAlthoughAnotherRouteGains(t *testing.T) {
	crossed(t, 40, func(c *Controller, x *crossing) {
		s := wait(c, mustStart(t, c, bulkhead()))
		if s.Phase != RolledBack || !strings.Contains(s.Outcome, `on route "exports"`) {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if x.road("exports").staged != nil || x.road("views").staged != nil {
			t.Error("a candidate is still there")
		}
	})
}

// TestThePriceIsBeyondWhatTheBaselineRefuses has a route that is overloaded with and without the change.
func TestThePriceIsBeyondWhatTheBaselineRefuses(t *testing.T) {
	crossed(t, 40, func(c *Controller, x *crossing) {
		x.before = 30
		if s := wait(c, mustStart(t, c, bulkhead())); s.Phase != Promoted {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
	})
}

// TestThePriceIsNotPaidByTheRouteThatIsObserved has a limit on one route that makes the other one refuse calls.
func TestThePriceIsNotPaidByTheRouteThatIsObserved(t *testing.T) {
	crossed(t, 10, func(c *Controller, x *crossing) {
		x.felt = 10
		if s := wait(c, mustStart(t, c, bulkhead())); s.Phase != RolledBack || !strings.Contains(s.Outcome, "errors") {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
	})
}

// TestNobodyIsLeftOnACandidateWhoseEffectIsNotSeen takes the observed route's twin away, as a reload that changes it does.
func TestNobodyIsLeftOnACandidateWhoseEffectIsNotSeen(t *testing.T) {
	crossed(t, 10, func(c *Controller, x *crossing) {
		s := bulkhead()
		s.Switchback = 5 * time.Minute
		id := mustStart(t, c, s)
		views, exports := x.road("views"), x.road("exports")
		for i := 0; ; i++ {
			time.Sleep(time.Second)
			exports.mu.Lock()
			on := exports.turn[0]
			exports.mu.Unlock()
			if on {
				break
			}
			if i == 1000 {
				t.Fatal("the candidate never had its turn")
			}
		}
		views.mu.Lock()
		views.refuse["tallies"], views.refuse["turn"], views.refuse["weight"] = -1, -1, -1
		views.mu.Unlock()
		time.Sleep(12 * time.Second) // a slice and a look
		if s, _ := c.Get(id); s.Phase != Aborted || exports.staged != nil {
			t.Errorf("%s: %s; the candidate: %+v", s.Phase, s.Outcome, exports.staged)
		}
	})
}

func TestWhatIsSwitchedOffForARouteEndsWhatObservesIt(t *testing.T) {
	crossed(t, 10, func(c *Controller, _ *crossing) {
		id := mustStart(t, c, bulkhead())
		if err := c.Kill("views", []string{Rollouts}, "incident 7"); err != nil {
			t.Fatal(err)
		}
		if s, _ := c.Get(id); s.Phase != Aborted {
			t.Errorf("%s goes on", s.Phase)
		}
		if _, err := c.Start(bulkhead()); !errors.Is(err, ErrBlocked) {
			t.Errorf("it begins again: %v", err)
		}
	})
}

func TestAPromotionIsNotTakenBackUnderWhatObservesItsRoute(t *testing.T) {
	crossed(t, 10, func(c *Controller, x *crossing) {
		to := x.road("views").policy
		to.Timeout = time.Minute
		id := mustStart(t, c, Spec{Change: longpole.Change{Route: "views", To: to.Safe()}, Goal: GoalNoWorse})
		time.Sleep(time.Second)
		if err := c.Promote(id, "sure"); err != nil {
			t.Fatal(err)
		}
		mustStart(t, c, bulkhead())
		if err := c.Undo(id, "no"); !errors.Is(err, ErrBusy) {
			t.Errorf("%v, want %v", err, ErrBusy)
		}
	})
}

// TestARolloutWhoseEndWasNotWrittenDoesNotComeBackBesideOneThatObservesItsRoute: two of them would take each other's calls.
func TestARolloutWhoseEndWasNotWrittenDoesNotComeBackBesideOneThatObservesItsRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{}
		x := &crossing{roads: map[string]*road{"exports": newRoad(3), "views": newRoad(.5)}}
		c := NewController(Options{Target: x, Journal: p})
		s := trial()
		s.Change.Route = "views"
		id := mustStart(t, c, s)
		p.full = true
		if err := c.Abort(id, "never mind"); err != nil {
			t.Error(err)
		}
		p.full = false
		mustStart(t, c, bulkhead())

		next := NewController(Options{Target: x, Journal: p})
		next.Restore(p.read(t))
		if s, _ := next.Get(id); s.Phase != Aborted {
			t.Errorf("%s comes back as %s", id, s.Phase)
		}
	})
}

func TestTheEndOfTheProgramLeavesNoTwinBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &crossing{lost: 10, roads: map[string]*road{"exports": newRoad(3), "views": newRoad(.5)}}
		c := NewController(Options{Target: x, Journal: &paper{}})
		go func() { _ = c.Run(t.Context()) }()
		mustStart(t, c, bulkhead())
		time.Sleep(time.Minute)
		c.Close()
		if x.road("exports").staged != nil || x.road("views").staged != nil {
			t.Error("a candidate is still there")
		}
	})
}

func TestOneRolloutAtATimeTouchesARouteThatIsObserved(t *testing.T) {
	crossed(t, 10, func(c *Controller, _ *crossing) {
		mustStart(t, c, bulkhead())
		s := trial()
		s.Change.Route = "views"
		if _, err := c.Start(s); !errors.Is(err, ErrBusy) {
			t.Errorf("%v, want %v", err, ErrBusy)
		}
	})
}

func TestNoRouteIsObservedThatCannotTellWhoseTurnItIs(t *testing.T) {
	for name, edit := range map[string]func(*Spec){
		"side by side": func(s *Spec) { s.Switchback = 0 },
		"itself":       func(s *Spec) { s.Observe = s.Change.Route },
		"unknown":      func(s *Spec) { s.Observe = "nowhere" },
	} {
		crossed(t, 0, func(c *Controller, _ *crossing) {
			s := bulkhead()
			edit(&s)
			if id, err := c.Start(s); err == nil {
				t.Errorf("%s: %s began", name, id)
			}
		})
	}
	crossed(t, 0, func(c *Controller, x *crossing) {
		x.road("views").policy.Cache = &cache.Config{TTL: time.Second}
		if id, err := c.Start(bulkhead()); err == nil {
			t.Errorf("a route with a cache: %s began", id)
		}
	})
	r := newRoad(1)
	r.policy.Cache = &cache.Config{TTL: time.Second}
	if err := (observed{r, "views"}).Stage("exports", longpole.Config{}); err == nil || r.staged != nil {
		t.Errorf("a route with a cache: %v, %+v", err, r.staged)
	}
}
