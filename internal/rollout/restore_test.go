package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole"
)

// TestNoJournalMakesRestoreFail shuffles entries of every kind.
func TestNoJournalMakesRestoreFail(t *testing.T) {
	kinds := []string{entryStarted, entryNote, entryRestarted, entryEnded, entryUndone, entryKilled, "later"}
	specs := []string{`{"change":{"route":"all","to":{"timeout":"1s"}}}`, `{"change":{"route":"all"},"version":"v2"}`, `{"change":{"route":"no such"}}`, `{"chnge":1}`, `null`, `{"change":{"route":"all"},"restart":"rollback"}`}
	phases := []Phase{Pending, Warmup, Step, Paused, Promoted, RolledBack, Aborted, InconclusiveEnd, "later"}
	rapid.Check(t, func(rt *rapid.T) {
		var entries []Entry
		for range rapid.IntRange(0, 20).Draw(rt, "entries") {
			e := Entry{Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), ID: rapid.SampledFrom([]string{"r1", "r2", "r3", "x", ""}).Draw(rt, "id"), Route: "all"}
			phase := rapid.SampledFrom(phases).Draw(rt, "phase")
			switch e.Kind {
			case entryStarted:
				e.Spec = json.RawMessage(rapid.SampledFrom(specs).Draw(rt, "spec"))
			case entryNote:
				e.Event = &Event{Phase: phase}
			case entryEnded:
				e.Status = &Status{ID: e.ID, Phase: phase, Weights: map[string]int{"v1": 1, "v2": 0}}
			case entryKilled:
				e.Parts = rapid.SampledFrom([][]string{nil, {"all"}, {Rollouts}, {"cache"}}).Draw(rt, "parts")
			}
			if rapid.IntRange(0, 9).Draw(rt, "bare") == 0 {
				e.Event, e.Status, e.Spec = nil, nil, nil
			}
			entries = append(entries, e)
		}
		r := newRoad(1)
		r.weights = map[string]int{"v1": 1, "v2": 0}
		c := NewController(Options{Target: r, Journal: &paper{}})
		c.Restore(entries)
		seen := map[string]bool{}
		under := 0
		for _, s := range c.List() {
			if seen[s.ID] {
				rt.Fatalf("%s is there twice", s.ID)
			}
			seen[s.ID] = true
			if !s.Phase.Final() {
				under++
			}
			if !s.Undone.IsZero() && s.Phase != Promoted {
				rt.Fatalf("%s is %s and undone", s.ID, s.Phase)
			}
		}
		if under > 1 {
			rt.Fatalf("%d rollouts of one route are under way", under)
		}
		if id, err := c.Start(trial()); err == nil && slices.ContainsFunc(entries, func(e Entry) bool { return e.ID == id }) {
			rt.Fatalf("the next one is %s", id)
		}
		c.Close()
	})
}

func TestAPauseOutlivesTheProcess(t *testing.T) {
	for _, switchback := range []time.Duration{0, time.Minute} {
		p, r := &paper{}, newRoad(.6)
		spec := trial()
		spec.Switchback = switchback
		if switchback > 0 {
			spec.MaxDuration = 4 * time.Hour
		}
		process(t, r, p, func(c *Controller) {
			id := mustStart(t, c, spec)
			time.Sleep(time.Second)
			if err := c.Pause(id, "incident 7"); err != nil {
				t.Fatal(err)
			}
		})
		for range 2 { // restarts
			next := newRoad(.6)
			process(t, next, p, func(c *Controller) {
				time.Sleep(2 * time.Minute)
				if s, _ := c.Get("r1"); s.Phase != Paused || next.weight != 0 || next.turn[0] {
					t.Errorf("after a restart: %s, the candidate gets %v", s.Phase, next.weight)
				}
			})
		}
		last := newRoad(.6)
		process(t, last, p, func(c *Controller) {
			if err := c.Resume("r1", "over"); err != nil {
				t.Fatal(err)
			}
			if s := wait(c, "r1"); s.Phase != Promoted {
				t.Errorf("after it was resumed: %s, %s", s.Phase, s.Outcome)
			}
		})
	}
}

func TestAPauseFromBeforeMayEndBeforeTheStart(t *testing.T) {
	p := &paper{}
	process(t, newRoad(1), p, func(c *Controller) {
		id := mustStart(t, c, trial())
		time.Sleep(time.Second)
		if err := c.Pause(id, "incident 7"); err != nil {
			t.Fatal(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(.6)
		c := NewController(Options{Target: r, Journal: p})
		c.Restore(p.read(t))
		if err := c.Resume("r1", "over"); err != nil {
			t.Error(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		if s := wait(c, "r1"); s.Phase != Promoted {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		c.Close()
		<-ended
	})
}

func TestARolloutWhoseEndWasNotWrittenDoesNotComeBackAfterTheNext(t *testing.T) {
	p := &paper{}
	process(t, newRoad(1), p, func(c *Controller) {
		id := mustStart(t, c, trial())
		p.mu.Lock()
		p.full = true
		p.mu.Unlock()
		if err := c.Abort(id, "worse"); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		p.full = false
		p.mu.Unlock()
		mustStart(t, c, trial())
	})
	process(t, newRoad(1), p, func(c *Controller) {
		one, _ := c.Get("r1")
		two, _ := c.Get("r2")
		if one.Phase != Aborted || !strings.Contains(one.Outcome, "before r2 began") || two.Phase.Final() {
			t.Errorf("%s (%s) and %s (%s)", one.Phase, one.Outcome, two.Phase, two.Outcome)
		}
	})
}

func TestACandidateThatCouldNotBeDroppedDoesNotComeBack(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: r, Journal: p})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		id := mustStart(t, c, trial())
		synctest.Wait()
		r.mu.Lock()
		r.refuse["discard"] = -1
		r.mu.Unlock()
		_ = c.Abort(id, "worse")
		c.Close()
		<-ended
		if s, _ := c.Get(id); s.Phase != Aborted || s.Outcome != "worse" {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
	})
	next := newRoad(1)
	process(t, next, p, func(c *Controller) {
		if s, _ := c.Get("r1"); s.Phase != Aborted || len(next.commands) > 0 {
			t.Errorf("after a restart: %s, %q", s.Phase, next.commands)
		}
	})
}

// TestAPolicyThatChangesBeforeTheStartIsNotUndone has a reload come between Start and the candidate.
func TestAPolicyThatChangesBeforeTheStartIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(1)
		c := NewController(Options{Target: r})
		id := mustStart(t, c, trial())
		r.policy.Timeout = time.Minute
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		if s := wait(c, id); s.Phase != Aborted || r.staged != nil || !strings.Contains(s.Outcome, ErrStale.Error()) {
			t.Errorf("%s: %s, staged %v", s.Phase, s.Outcome, r.staged)
		}
		c.Close()
		<-ended
	})
}

func TestAnUndoLeavesAloneWhatWasSplitSince(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	r.weights = map[string]int{"v1": 5, "v2": 0}
	process(t, r, p, func(c *Controller) {
		s := wait(c, mustStart(t, c, Spec{Change: longpole.Change{Route: "all"}, Version: "v2"}))
		if s.Phase != Promoted {
			t.Fatal(s.Phase)
		}
		r.weights = map[string]int{"v1": 1, "v2": 1}
		if err := c.Undo(s.ID, "worse"); !errors.Is(err, ErrStale) || r.weights["v2"] != 1 {
			t.Errorf("%v: %v", err, r.weights)
		}
		r.weights = map[string]int{"v1": 0, "v2": 7}
		p.full = true
		if err := c.Undo(s.ID, "worse"); !errors.Is(err, ErrJournal) || r.weights["v1"] != 5 {
			t.Errorf("with a journal that refuses: %v, %v", err, r.weights)
		}
		p.full = false
	})
	next := newRoad(1)
	next.weights = map[string]int{"v1": 0, "v2": 3} // the owner has put it into the file
	if doubts := process(t, next, p, func(*Controller) {}); len(doubts) > 0 || next.weights["v2"] != 3 {
		t.Errorf("%q, %v", doubts, next.weights)
	}
}

func TestOnlyTheLastPromotionOfARouteIsDoubted(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	share := 0.05
	var second longpole.Config
	process(t, r, p, func(c *Controller) {
		if s := wait(c, mustStart(t, c, trial())); s.Phase != Promoted {
			t.Fatal(s.Phase)
		}
		spec := trial()
		spec.Change.To.Timeout, spec.Holdback = time.Minute, &share
		if s := wait(c, mustStart(t, c, spec)); s.Phase != Promoted {
			t.Fatal(s.Phase)
		}
		second = r.policy
	})
	caught := newRoad(1)
	caught.policy = second.Safe()
	if doubts := process(t, caught, p, func(*Controller) {}); len(doubts) > 0 || fmt.Sprint(caught.commands) != "[hold r2 0.05]" {
		t.Errorf("over a file that has the second: %q, %q", doubts, caught.commands)
	}
	edited := newRoad(1)
	edited.policy.Timeout = time.Hour
	if doubts := process(t, edited, p, func(*Controller) {}); len(doubts) != 1 || !strings.Contains(doubts[0], "rollout r2") {
		t.Errorf("over a file that was edited: %q", doubts)
	}
}

// TestAGateThatFlapsDoesNotFillTheDisk opens and closes it every second for hours.
func TestAGateThatFlapsDoesNotFillTheDisk(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := NewController(Options{Target: r, Journal: p, Gate: func(string) string {
			if s := int(time.Since(began).Seconds()); s > 1 && s%2 == 0 {
				return "the budget burns"
			}
			return ""
		}})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		spec := trial()
		spec.Warmup, spec.MaxDuration = time.Hour, 2*time.Hour
		id := mustStart(t, c, spec)
		time.Sleep(20 * time.Minute)
		if err := c.Pause(id, "enough"); err != nil {
			t.Fatal(err)
		}
		c.Close()
		<-ended
	})
	lines := p.read(t)
	if last := lines[len(lines)-1]; len(lines) > mostWritten+4 || len(lines) < mostWritten || last.Event == nil || last.Event.Phase != Paused {
		t.Errorf("%d lines, the last is %+v", len(lines), last)
	}
}
