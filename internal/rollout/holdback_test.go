package rollout

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

func policy(edits ...func(*longpole.Config)) longpole.Config {
	c := longpole.Config{}.Safe()
	for _, e := range edits {
		e(&c)
	}
	return c.Safe()
}

func timeout(d time.Duration) func(*longpole.Config) {
	return func(c *longpole.Config) { c.Timeout = d }
}

func caching(ttl time.Duration) func(*longpole.Config) {
	return func(c *longpole.Config) { c.Cache = &cache.Config{TTL: ttl} }
}

func hedging(c *longpole.Config) {
	r := *c.Retry
	r.Hedge, c.Retry = &retry.Hedge{}, &r
}

func attempts(n int) func(*longpole.Config) {
	return func(c *longpole.Config) {
		r := *c.Retry
		r.MaxAttempts, c.Retry = n, &r
	}
}

func TestOneChangeIsTakenBackAlone(t *testing.T) {
	for _, tt := range []struct {
		name          string
		from, to, now []func(*longpole.Config)
		want          []func(*longpole.Config) // nil = it cannot be
	}{
		{"nothing came after it", nil, list(hedging), list(hedging), list()},
		{"a later part stays", nil, list(caching(time.Minute)), list(caching(time.Minute), timeout(time.Minute)), list(timeout(time.Minute))},
		{"another setting of the same part stays", nil, list(hedging), list(hedging, attempts(5)), list(attempts(5))},
		{"the value from before comes back", list(timeout(time.Second)), list(timeout(time.Minute)), list(timeout(time.Minute), hedging), list(timeout(time.Second), hedging)},
		{"a part that was switched off comes back", list(caching(time.Minute)), list(), list(hedging), list(caching(time.Minute), hedging)},
		{"the same setting was changed again", nil, list(timeout(time.Minute)), list(timeout(time.Hour)), nil},
		{"the part that it brought was changed", nil, list(caching(time.Minute)), list(caching(time.Hour)), nil},
		{"one of its two settings was changed again", nil, list(timeout(time.Minute), hedging), list(timeout(time.Hour), hedging), nil},
		{"it changed nothing", list(hedging), list(hedging), list(timeout(time.Hour)), list(timeout(time.Hour))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := policy(tt.now...)
			got, ok := takenBack(now, longpole.Change{From: policy(tt.from...), To: policy(tt.to...)})
			if ok != (tt.want != nil) || ok && !reflect.DeepEqual(got, policy(tt.want...)) {
				t.Errorf("%v: %+v", ok, got)
			}
			if !reflect.DeepEqual(now, policy(tt.now...)) {
				t.Error("the policy in force was changed")
			}
		})
	}
}

func list(edits ...func(*longpole.Config)) []func(*longpole.Config) {
	return append([]func(*longpole.Config){}, edits...)
}

// TestChangesOfDifferentSettingsComeBackInAnyOrder takes back what was put in force one upon the other.
func TestChangesOfDifferentSettingsComeBackInAnyOrder(t *testing.T) {
	edits := list(timeout(time.Hour), caching(time.Minute), hedging, attempts(7), func(c *longpole.Config) { c.MinTry = time.Millisecond },
		func(c *longpole.Config) { c.Limit = &limit.Config{Queue: &limit.Queue{}} })
	rapid.Check(t, func(rt *rapid.T) {
		order := rapid.Permutation([]int{0, 1, 2, 3, 4, 5}).Draw(rt, "made")
		now := policy()
		changes := map[int]longpole.Change{}
		for _, i := range order {
			next := now
			edits[i](&next)
			changes[i] = longpole.Change{From: now, To: next.Safe()}
			now = next.Safe()
		}
		for _, i := range rapid.Permutation(order).Draw(rt, "taken back") {
			without, ok := takenBack(now, changes[i])
			if !ok {
				rt.Fatalf("%d cannot be taken back", i)
			}
			now = without
		}
		if !reflect.DeepEqual(now, policy()) {
			rt.Fatalf("what is left is %+v", now)
		}
	})
}

func TestWhatBecomesOfHoldbacks(t *testing.T) {
	base := policy()
	a, ab := policy(hedging), policy(hedging, timeout(time.Minute))
	first := claim{id: "r1", change: longpole.Change{From: base, To: a}, share: 0.01}
	second := claim{id: "r2", change: longpole.Change{From: a, To: ab}, share: 0.01}
	with := func(c claim, edit func(*claim)) claim { edit(&c); return c }
	many := func(n int, share float64) (all []claim) {
		for range n {
			all = append(all, claim{id: "r", change: longpole.Change{From: base, To: base}, share: share})
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		now    longpole.Config
		claims []claim
		want   []string // the beginning of why; "" = it is held
	}{
		{"each is held back", ab, []claim{first, second}, []string{"", ""}},
		{"nobody asked for one", ab, []claim{first, with(second, func(c *claim) { c.share = 0 })}, []string{"", "nobody asked for one"}},
		{"tried in turns", ab, []claim{with(first, func(c *claim) { c.turns = true }), second}, []string{"", ""}},
		{"tried in turns, and nobody asked", ab, []claim{with(first, func(c *claim) { c.turns, c.share = true, 0 }), second}, []string{"it was tried in turns, and none was asked for", ""}},
		{"tried in turns beside a cache", policy(hedging, caching(time.Minute)), []claim{with(first, func(c *claim) { c.turns = true })}, []string{"it was tried in turns, and its turns would begin with an empty cache"}},
		{"what is held in turns takes its room", base, append(many(1, 0.01), with(many(1, 0.05)[0], func(c *claim) { c.turns = true })), []string{"let go", ""}},
		{"released", ab, []claim{with(first, func(c *claim) { c.released = "enough" }), second}, []string{"released: enough", ""}},
		{"superseded", policy(hedging, timeout(time.Hour)), []claim{first, second, {id: "r3", change: longpole.Change{From: ab, To: policy(hedging, timeout(time.Hour))}, share: 0.01}}, []string{"", "superseded by r3", ""}},
		{"superseded by one without a holdback", base, []claim{first, {id: "r2", change: longpole.Change{From: a, To: base}}}, []string{"superseded by r2", "nobody"}},
		{"superseded by the file", policy(timeout(time.Minute)), []claim{first, second}, []string{"superseded by the file", ""}},
		{"superseded by one that set it to the same", policy(hedging, timeout(time.Minute)), []claim{
			{id: "r1", change: longpole.Change{From: base, To: policy(timeout(time.Minute))}, share: 0.01},
			{id: "r2", change: longpole.Change{From: policy(timeout(time.Hour)), To: policy(hedging, timeout(time.Minute))}, share: 0.01}, // the file had changed it
		}, []string{"superseded by r2", ""}},
		{"superseded by the file, and another change since", policy(timeout(time.Hour), hedging), []claim{
			{id: "r1", change: longpole.Change{From: base, To: policy(timeout(time.Minute))}, share: 0.01},
			{id: "r2", change: longpole.Change{From: policy(timeout(time.Hour)), To: policy(timeout(time.Hour), hedging)}, share: 0.01},
		}, []string{"superseded by the file", ""}},
		{"the oldest goes when there are five", base, many(7, 0.01), []string{"let go", "let go", "", "", "", "", ""}},
		{"the newest is held whatever it takes", base, many(2, 0.1), []string{"let go", ""}},
		{"ten of them are enough", base, many(11, 0.001), []string{"let go", "", "", "", "", "", "", "", "", "", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, f := range fates(tt.now, tt.claims) {
				if (f.why == "") != (tt.want[i] == "") || !strings.HasPrefix(f.why, tt.want[i]) {
					t.Errorf("%d: %q, want %q", i, f.why, tt.want[i])
				}
			}
		})
	}
}

// promoted brings a change of the policy in force to its promotion, by hand.
func promoted(t *testing.T, c *Controller, r *road, share float64, edits ...func(*longpole.Config)) string {
	t.Helper()
	now := r.policy
	for _, e := range edits {
		e(&now)
	}
	id := mustStart(t, c, Spec{Change: longpole.Change{Route: "all", To: now.Safe()}, Goal: GoalNoWorse, Holdback: &share})
	time.Sleep(time.Second)
	if err := c.Promote(id, "sure"); err != nil {
		t.Fatal(err)
	}
	return id
}

func (r *road) expectHeld(t *testing.T, want map[string]longpole.Config) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.held) != len(want) {
		t.Errorf("held back: %v", r.held)
	}
	for id, without := range want {
		if r.held[id] == 0 || !reflect.DeepEqual(r.without[id], without.Safe()) {
			t.Errorf("%s: %v of the calls on %+v", id, r.held[id], r.without[id])
		}
	}
}

func TestEachPromotedChangeIsHeldBackByItself(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	three := map[string]longpole.Config{
		"r1": policy(timeout(time.Minute), caching(time.Hour)), "r2": policy(hedging, caching(time.Hour)), "r3": policy(hedging, timeout(time.Minute)),
	}
	process(t, r, p, func(c *Controller) {
		promoted(t, c, r, 0.01, hedging)
		promoted(t, c, r, 0.01, timeout(time.Minute))
		promoted(t, c, r, 0.01, caching(time.Hour))
		r.expectHeld(t, three)
		for _, s := range c.List() {
			if s.Held != Held || !strings.Contains(s.Journal[len(s.Journal)-1].Text, "1 % of the calls keep the policy without this change") {
				t.Errorf("%s: %q, %v", s.ID, s.Held, s.Journal)
			}
		}
	})
	next := newRoad(1)
	process(t, next, p, func(c *Controller) {
		next.expectHeld(t, three)
		for _, s := range c.List() {
			if n := len(s.Journal); s.Held != Held || strings.Contains(s.Journal[n-2].Text, "keep the policy without") {
				t.Errorf("%s after a restart: %q, %v", s.ID, s.Held, s.Journal)
			}
		}
		next.mu.Lock()
		clear(next.held) // as a reload of the file does
		next.mu.Unlock()
		time.Sleep(holdbackEvery + time.Second)
		next.expectHeld(t, three)

		promoted(t, c, next, 0.01, timeout(time.Hour)) // r4 supersedes r2
		next.expectHeld(t, map[string]longpole.Config{
			"r1": policy(timeout(time.Hour), caching(time.Hour)), "r3": policy(hedging, timeout(time.Hour)), "r4": policy(hedging, timeout(time.Minute), caching(time.Hour)),
		})
		if s, _ := c.Get("r2"); s.Held != "superseded by r4" || !strings.Contains(s.Journal[len(s.Journal)-1].Text, "superseded by r4") {
			t.Errorf("r2: %q, %v", s.Held, s.Journal)
		}
		if err := c.Undo("r2", "worse"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "r4") {
			t.Errorf("undo of what was changed again: %v", err)
		}
		if err := c.Undo("r4", "too long"); err != nil {
			t.Error(err)
		}
		next.expectHeld(t, three) // r2 is back
	})
}

// TestAnOlderChangeIsTakenBackUnderNewerOnes is what a review asks for when it has become harmful.
func TestAnOlderChangeIsTakenBackUnderNewerOnes(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	process(t, r, p, func(c *Controller) {
		promoted(t, c, r, 0.01, hedging)
		promoted(t, c, r, 0.01, timeout(time.Minute))
		promoted(t, c, r, 0.01, caching(time.Hour))
		if err := c.Undo("r1", "harmful now"); err != nil {
			t.Fatal(err)
		}
		if want := policy(timeout(time.Minute), caching(time.Hour)); !reflect.DeepEqual(r.policy, want) {
			t.Errorf("in force: %+v", r.policy)
		}
		r.expectHeld(t, map[string]longpole.Config{"r2": policy(caching(time.Hour)), "r3": policy(timeout(time.Minute))})
		if err := c.Undo("r1", "again"); !errors.Is(err, ErrState) {
			t.Errorf("a second time: %v", err)
		}
	})
	next := newRoad(1)
	doubts := process(t, next, p, func(c *Controller) {
		if want := policy(timeout(time.Minute), caching(time.Hour)); !reflect.DeepEqual(next.policy, want) {
			t.Errorf("in force after a restart: %+v", next.policy)
		}
		next.expectHeld(t, map[string]longpole.Config{"r2": policy(caching(time.Hour)), "r3": policy(timeout(time.Minute))})
		for _, id := range []string{"r3", "r2"} {
			if err := c.Undo(id, "all back"); err != nil {
				t.Error(err)
			}
		}
		if !reflect.DeepEqual(next.policy, policy()) || len(next.held) > 0 {
			t.Errorf("without any: %+v, held back %v", next.policy, next.held)
		}
	})
	if len(doubts) > 0 {
		t.Error(doubts)
	}
}

func TestAReleasedHoldbackStaysReleased(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	process(t, r, p, func(c *Controller) {
		promoted(t, c, r, 0.01, hedging)
		promoted(t, c, r, 0.01, timeout(time.Minute))
		if err := c.Release("r1", "known well enough"); err != nil {
			t.Fatal(err)
		}
		if err := c.Release("r1", "again"); !errors.Is(err, ErrState) {
			t.Errorf("a second time: %v", err)
		}
		if err := c.Release("r9", ""); !errors.Is(err, ErrUnknown) {
			t.Errorf("of nothing: %v", err)
		}
	})
	next := newRoad(1)
	process(t, next, p, func(c *Controller) {
		next.expectHeld(t, map[string]longpole.Config{"r2": policy(hedging)})
		if s, _ := c.Get("r1"); s.Held != "released: known well enough" || next.policy.Retry.Hedge == nil {
			t.Errorf("%q, policy %+v", s.Held, next.policy)
		}
	})
}

// TestAChangeThatCannotBeMissedHoldsNothingBack has a target that refuses the policy without it.
func TestAChangeThatCannotBeMissedHoldsNothingBack(t *testing.T) {
	r := newRoad(1)
	r.refuse["hold"] = -1
	controlled(t, r, func(c *Controller) {
		id := promoted(t, c, r, 0.01, hedging)
		if s, _ := c.Get(id); s.Phase != Promoted || !strings.HasPrefix(s.Held, "it cannot be held back alone: target: gone") {
			t.Errorf("%s, %q", s.Phase, s.Held)
		}
	})
}

// TestAHoldbackGoesWithItsRoute has a reload that removes the route, and one that brings it back.
func TestAHoldbackGoesWithItsRoute(t *testing.T) {
	r := newRoad(1)
	controlled(t, r, func(c *Controller) {
		id := promoted(t, c, r, 0.01, hedging)
		for _, gone := range []bool{true, false} {
			r.mu.Lock()
			r.gone = gone
			r.mu.Unlock()
			time.Sleep(holdbackEvery + time.Second)
			if s, _ := c.Get(id); (s.Held == Held) == gone {
				t.Errorf("gone %v: %q", gone, s.Held)
			}
		}
	})
}
