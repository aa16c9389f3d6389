package rollout

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
)

// TestAfterEachEntryOfTheJournalTheNextProcessIsWhole ends the process after each entry of a long story and looks at what the
// next one makes of it: the policy in force is the file's with all changes that stand, each of them is held back alone or says why not,
// and nothing is staged that nobody drives.
func TestAfterEachEntryOfTheJournalTheNextProcessIsWhole(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	process(t, r, p, func(c *Controller) {
		promoted(t, c, r, 0.01, hedging)
		promoted(t, c, r, 0.01, timeout(time.Minute))
		promoted(t, c, r, 0.01, caching(time.Hour))
		for _, step := range []error{
			c.Undo("r1", "harmful"), c.Release("r2", "known"), c.Kill("all", []string{"cache"}, "stale"), c.Kill("all", nil, "over"),
		} {
			if step != nil {
				t.Error(step)
			}
		}
		promoted(t, c, r, 0.01, timeout(time.Hour), attempts(7))
		id := mustStart(t, c, trial())
		time.Sleep(time.Minute)
		if err := c.Pause(id, "lunch"); err != nil {
			t.Error(err)
		}
		if err := c.Abort(id, "over"); err != nil {
			t.Error(err)
		}
		if err := c.Undo("r4", "too long"); err != nil {
			t.Error(err)
		}
	})
	for n := range len(p.lines) + 1 {
		cut := &paper{lines: append([][]byte(nil), p.lines[:n]...)}
		next := newRoad(1)
		doubts := process(t, next, cut, func(c *Controller) { whole(t, n, c, next) })
		if len(doubts) > 0 {
			t.Errorf("after %d entries: %q", n, doubts)
		}
		// What the second process wrote must be as good to a third.
		again := newRoad(1)
		if doubts := process(t, again, cut, func(c *Controller) { whole(t, n, c, again) }); len(doubts) > 0 {
			t.Errorf("after %d entries and a restart: %q", n, doubts)
		}
	}
}

func whole(t *testing.T, n int, c *Controller, r *road) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	want := policy()
	var standing []Status
	for _, s := range c.List() {
		if s.Phase == Promoted && s.Undone.IsZero() {
			standing = append(standing, s)
		}
	}
	edits := map[string]func(*longpole.Config){"r1": hedging, "r2": timeout(time.Minute), "r3": caching(time.Hour), "r4": func(c *longpole.Config) {
		timeout(time.Hour)(c)
		attempts(7)(c)
	}}
	for _, s := range standing {
		edits[s.ID](&want)
	}
	if !reflect.DeepEqual(r.policy, want.Safe()) {
		t.Errorf("after %d entries %d changes are in force: %+v, want %+v", n, len(standing), r.policy, want.Safe())
	}
	held := 0
	for _, s := range standing {
		switch s.Held {
		case "":
			t.Errorf("after %d entries nothing is said of the holdback of %s", n, s.ID)
		case Held:
			held++
			without := policy()
			for _, o := range standing {
				if o.ID != s.ID {
					edits[o.ID](&without)
				}
			}
			if !reflect.DeepEqual(r.without[s.ID], without.Safe()) {
				t.Errorf("after %d entries %s is held back on %+v", n, s.ID, r.without[s.ID])
			}
		}
	}
	if held != len(r.held) {
		t.Errorf("after %d entries: %d say that they hold calls back, and there are %v", n, held, r.held)
	}
}
