package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
)

// paper is a Journal in memory that keeps what a disk would.
type paper struct {
	mu    sync.Mutex
	lines [][]byte
	full  bool
}

func (p *paper) Append(e Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full {
		return errors.New("no space left")
	}
	line, err := json.Marshal(e)
	p.lines = append(p.lines, line)
	return err
}

func (p *paper) read(t *testing.T) (entries []Entry) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		entries = append(entries, e)
	}
	return entries
}

// process runs a controller on a road and a journal in a bubble of its own. When f returns it dies as by kill -9: nothing
// more is written, and nothing of it is taken back.
func process(t *testing.T, r *road, p *paper, f func(*Controller)) (doubts []string) {
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: r, Journal: p})
		doubts = c.Restore(p.read(t))
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		synctest.Wait()
		f(c)
		p.mu.Lock()
		kept := len(p.lines)
		p.mu.Unlock()
		c.Close()
		<-ended
		p.mu.Lock()
		p.lines = p.lines[:kept]
		p.mu.Unlock()
	})
	return doubts
}

func TestAPromotionOutlivesTheProcess(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	before := r.policy
	spec := trial()
	share := 0.05
	spec.Holdback = &share
	var ended Status
	process(t, r, p, func(c *Controller) { ended = wait(c, mustStart(t, c, spec)) })
	if ended.Phase != Promoted || r.held["r1"] != share {
		t.Fatalf("%s, %v held back", ended.Phase, r.held)
	}
	fresh := newRoad(1) // the file's policy
	doubts := process(t, fresh, p, func(c *Controller) {
		s, ok := c.Get(ended.ID)
		if !ok || s.Phase != Promoted || len(s.Journal) != len(ended.Journal) || s.Outcome != ended.Outcome || s.Predicted.P99 != ended.Predicted.P99 {
			t.Errorf("remembered: %+v", s)
		}
		if fresh.policy.Retry.Hedge == nil || fresh.held["r1"] != share {
			t.Errorf("not in force again: %+v, %v held back", fresh.policy, fresh.held)
		}
		if id := mustStart(t, c, Spec{Change: longpole.Change{Route: "all", To: longpole.Config{Timeout: time.Second}}}); id != "r2" {
			t.Errorf("the next one is %s", id)
		}
	})
	if len(doubts) > 0 {
		t.Error(doubts)
	}
	edited := newRoad(1)
	edited.policy.Timeout = time.Minute
	if doubts := process(t, edited, p, func(*Controller) {}); len(doubts) != 1 || !strings.Contains(doubts[0], "the file says another policy") || edited.policy.Retry.Hedge != nil {
		t.Errorf("over a file that was edited: %v", doubts)
	}
	taken := newRoad(1)
	taken.policy = ended0(ended).To.Safe()
	if doubts := process(t, taken, p, func(*Controller) {}); len(doubts) != 0 || slices.Contains(taken.commands, "adopt") {
		t.Errorf("over a file that has it: %v, %v", doubts, taken.commands)
	}
	undone := newRoad(1)
	process(t, undone, p, func(c *Controller) {
		wait2 := func() { _ = c.Abort("r2", "in the way") }
		wait2()
		if err := c.Undo("r1", "it was not that good"); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(undone.policy, before) {
			t.Errorf("after the undo: %+v", undone.policy)
		}
		if err := c.Undo("r1", "again"); !errors.Is(err, ErrState) {
			t.Errorf("a second undo: %v", err)
		}
	})
	last := newRoad(1)
	process(t, last, p, func(c *Controller) {
		if s, _ := c.Get("r1"); s.Undone.IsZero() || s.UndoReason != "it was not that good" || slices.Contains(last.commands, "adopt") {
			t.Errorf("the undo was forgotten: %+v, %v", s, last.commands)
		}
	})
}

func ended0(s Status) (c longpole.Change) {
	r, _ := (&Controller{}).revive(Entry{ID: s.ID, Spec: json.RawMessage(`{"change":` + string(s.Change) + `}`)})
	return r.spec.Change
}

func TestARolloutThatWasCutOffBeginsAnewOrIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name, restart string
		after         time.Duration
		edited        bool
		want          Phase
	}{
		{"in its warm-up", Resume, 10 * time.Second, false, Promoted},
		{"at a step", Resume, 100 * time.Second, false, Promoted},
		{"not to be resumed", Rollback, time.Minute, false, Aborted},
		{"the file was edited", Resume, time.Minute, true, Aborted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, r := &paper{}, newRoad(.6)
			spec := trial()
			spec.Restart = tt.restart
			process(t, r, p, func(c *Controller) {
				mustStart(t, c, spec)
				time.Sleep(tt.after)
			})
			next := newRoad(.6)
			if tt.edited {
				next.policy.Timeout = time.Minute
			}
			process(t, next, p, func(c *Controller) {
				s := wait(c, "r1")
				if s.Phase != tt.want || s.Restarts != 1 {
					t.Errorf("%s after %d restarts: %s", s.Phase, s.Restarts, s.Outcome)
				}
				texts := fmt.Sprint(s.Journal)
				if !strings.Contains(texts, "candidate staged") || !strings.Contains(texts, "ended in the middle") && !tt.edited {
					t.Errorf("journal %s", texts)
				}
			})
			if promoted := next.policy.Retry.Hedge != nil; promoted != (tt.want == Promoted) {
				t.Errorf("promoted: %v", promoted)
			}
		})
	}
}

func TestAProgramThatEndsInPeaceLeavesItsRolloutsToTheNextOne(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: r, Journal: p})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		synctest.Wait()
		mustStart(t, c, trial())
		time.Sleep(time.Minute)
		c.Close()
		<-ended
	})
	if r.staged != nil {
		t.Error("the candidate is still there")
	}
	next := newRoad(.6)
	process(t, next, p, func(c *Controller) {
		if s := wait(c, "r1"); s.Phase != Promoted {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
	})
}

func TestNothingBeginsThatCannotBeWrittenDown(t *testing.T) {
	p, r := &paper{full: true}, newRoad(.6)
	process(t, r, p, func(c *Controller) {
		if _, err := c.Start(trial()); !errors.Is(err, ErrJournal) {
			t.Errorf("started with a full disk: %v", err)
		}
		p.full = false
		id := mustStart(t, c, trial())
		p.full = true // a rollback does not wait for the disk
		if err := c.Abort(id, "pager"); err != nil || r.staged != nil {
			t.Errorf("%v", err)
		}
		if c.Unwritten() < 3 {
			t.Errorf("%d unwritten entries are counted", c.Unwritten())
		}
	})
}

func TestAPausedRolloutHasNoCallsAndGoesOn(t *testing.T) {
	r := newRoad(.6)
	controlled(t, r, func(c *Controller) {
		id := mustStart(t, c, trial())
		time.Sleep(2 * time.Minute)
		if err := c.Pause(id, "lunch"); err != nil {
			t.Fatal(err)
		}
		if s, _ := c.Get(id); s.Phase != Paused || r.weight != 0 || s.Weight != 0 {
			t.Errorf("%s with %v of the calls", s.Phase, r.weight)
		}
		if err := c.Pause(id, "again"); !errors.Is(err, ErrState) {
			t.Errorf("a second pause: %v", err)
		}
		time.Sleep(5 * time.Hour) // longer than it may last
		if s, _ := c.Get(id); s.Phase != Paused {
			t.Errorf("after five hours: %s, %s", s.Phase, s.Outcome)
		}
		if err := c.Resume(id, "back"); err != nil || r.weight == 0 {
			t.Fatalf("%v, %v of the calls", err, r.weight)
		}
		if err := c.Resume(id, "again"); !errors.Is(err, ErrState) {
			t.Errorf("a second resume: %v", err)
		}
		if s := wait(c, id); s.Phase != Promoted {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
	})
}

func TestAGateHoldsARolloutWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(.6)
		var gate atomic.Pointer[string]
		shut := func(reason string) { gate.Store(&reason) }
		c := NewController(Options{Target: r, Gate: func(string) string { return *gate.Load() }})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		const burns = "the error budget burns"
		shut(burns)
		if _, err := c.Start(trial()); !errors.Is(err, ErrBlocked) || !strings.Contains(err.Error(), "budget burns") {
			t.Errorf("started all the same: %v", err)
		}
		shut("")
		id := mustStart(t, c, trial())
		time.Sleep(40 * time.Second)
		shut(burns)
		time.Sleep(20 * time.Minute)
		if s, _ := c.Get(id); s.Step != 1 || s.Blocked != burns || s.Phase != Step {
			t.Errorf("step %d, blocked by %q", s.Step, s.Blocked)
		}
		shut("")
		if s := wait(c, id); s.Phase != Promoted || !strings.Contains(fmt.Sprint(s.Journal), "held where it is: the error budget burns") {
			t.Errorf("%s: %v", s.Phase, s.Journal)
		}
		c.Close()
		<-ended
	})
}

func TestASwitchbackTakesTurnsAndDecides(t *testing.T) {
	for _, tt := range []struct {
		scale float64
		want  Phase
	}{{.6, Promoted}, {1.5, RolledBack}} {
		r := newRoad(tt.scale)
		controlled(t, r, func(c *Controller) {
			spec := trial()
			spec.Switchback = 30 * time.Second
			s := wait(c, mustStart(t, c, spec))
			if s.Phase != tt.want {
				t.Errorf("%s: %s", s.Phase, s.Outcome)
			}
		})
		all := strings.Join(r.commands, ", ")
		if !strings.HasPrefix(all, "stage, turn false true, ") || !strings.Contains(all, "turn true false, turn true true") || strings.Contains(all, "weight") {
			t.Errorf("commands %s", all)
		}
	}
}

func TestASwitchbackHasAFuse(t *testing.T) {
	s := spec()
	s.Switchback = time.Minute
	y := tell(t, s.WithDefaults())
	for range 200 {
		y.slice()
		if y.st.weight == 1 {
			n := y.sample.candidate.Calls
			y.sample.candidate.Failed = n
		}
	}
	if y.st.phase != RolledBack || !strings.Contains(y.st.reason, "tenth of the calls") {
		t.Errorf("%s: %s", y.st.phase, y.st.reason)
	}
}

func TestAVersionIsRolledOutAndUndone(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	r.weights = map[string]int{"v1": 5, "v2": 0}
	process(t, r, p, func(c *Controller) {
		spec := Spec{Change: longpole.Change{Route: "all"}, Version: "v2"}
		s := wait(c, mustStart(t, c, spec))
		if s.Phase != Promoted || s.Version != "v2" || r.commands[0] != "stage version v2" || r.weights["v1"] != 0 || r.weights["v2"] != 1 {
			t.Errorf("%+v, %v", s, r.weights)
		}
	})
	next := newRoad(1)
	next.weights = map[string]int{"v1": 5, "v2": 0}
	process(t, next, p, func(c *Controller) {
		if next.weights["v2"] != 1 {
			t.Errorf("not in force again: %v", next.weights)
		}
		if err := c.Undo("r1", "worse at night"); err != nil || next.weights["v1"] != 5 || next.weights["v2"] != 0 {
			t.Errorf("%v: %v", err, next.weights)
		}
	})
}

func TestAKillSwitchHoldsAcrossRestartsAndCanStopRollouts(t *testing.T) {
	p, r := &paper{}, newRoad(1)
	process(t, r, p, func(c *Controller) {
		id := mustStart(t, c, trial())
		if err := c.Kill("", []string{"cache", Rollouts}, "incident 7"); err != nil {
			t.Fatal(err)
		}
		if s, _ := c.Get(id); s.Phase != Aborted || !strings.Contains(s.Outcome, "incident 7") {
			t.Errorf("%s: %s", s.Phase, s.Outcome)
		}
		if _, err := c.Start(trial()); !errors.Is(err, ErrBlocked) {
			t.Errorf("a rollout begins: %v", err)
		}
		if last := r.commands[len(r.commands)-2]; last != "kill  [cache]" {
			t.Errorf("commands %q", r.commands)
		}
	})
	next := newRoad(1)
	process(t, next, p, func(c *Controller) {
		if len(next.commands) != 1 || next.commands[0] != "kill  [cache]" || c.Frozen()[""] != "incident 7" {
			t.Errorf("after a restart: %q, %v", next.commands, c.Frozen())
		}
		if err := c.Kill("", nil, "over"); err != nil || len(c.Frozen()) != 0 {
			t.Errorf("%v, %v", err, c.Frozen())
		}
		mustStart(t, c, trial())
	})
	after := newRoad(1)
	process(t, after, p, func(*Controller) {})
	if after.commands[0] != "kill  []" {
		t.Errorf("after it was switched on again: %q", after.commands)
	}
}

func TestAJournalOfNonsenseIsDoubtedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: newRoad(1)})
		doubts := c.Restore([]Entry{
			{Kind: entryStarted, ID: "x7", Spec: json.RawMessage(`{"change":{"route":"all"}}`)},
			{Kind: entryStarted, ID: "r1", Spec: json.RawMessage(`{"chnge":1}`)},
			{Kind: entryNote, ID: "r9", Event: &Event{}},
			{Kind: entryEnded, ID: "r9"},
			{Kind: "later kind", ID: "r1"},
		})
		if len(doubts) != 2 || len(c.List()) != 0 {
			t.Errorf("%q, %v", doubts, c.List())
		}
	})
}
