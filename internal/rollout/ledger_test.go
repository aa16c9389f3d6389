package rollout

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
)

// stuck is a journal whose disk can stand still.
type stuck struct {
	paper
	gate chan struct{} // holds a token while the disk works
}

func newStuck() *stuck {
	p := &stuck{gate: make(chan struct{}, 1)}
	p.gate <- struct{}{}
	return p
}

func (p *stuck) Append(e Entry) error {
	token := <-p.gate
	defer func() { p.gate <- token }()
	return p.paper.Append(e)
}

// TestNothingWaitsForTheDiskWithAHarmfulCandidate kills all rollouts while the journal cannot be written.
func TestNothingWaitsForTheDiskWithAHarmfulCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRoad(1), newStuck()
		c := NewController(Options{Target: r, Journal: p})
		go func() { _ = c.Run(t.Context()) }()
		var ids []string
		for _, route := range []string{"one", "two", "three"} {
			s := trial()
			s.Change = longpole.Change{Route: route, To: s.Change.To}
			ids = append(ids, mustStart(t, c, s))
		}
		time.Sleep(5500 * time.Millisecond) // between two looks at the cohorts, which would wait for the disk too
		<-p.gate                            // the disk stands still
		killed := make(chan error, 1)
		go func() { killed <- c.Kill("", []string{Rollouts}, "the pager rang") }()
		time.Sleep(time.Second)
		discards := 0
		r.mu.Lock()
		for _, command := range r.commands {
			if command == "discard" {
				discards++
			}
		}
		r.mu.Unlock()
		if discards != len(ids) {
			t.Errorf("%d of %d candidates were dropped while the disk stood still", discards, len(ids))
		}
		for _, s := range c.List() { // does not wait either
			if s.Phase.Final() || s.Ending != Aborted || s.Weight != 0 {
				t.Errorf("%s is shown as %s, ending as %q, with %v of the calls; the journal does not know of its end yet", s.ID, s.Phase, s.Ending, s.Weight)
			}
		}
		select {
		case err := <-killed:
			t.Errorf("Kill returned %v before it was written down", err)
		default:
		}
		p.gate <- struct{}{}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		for _, s := range c.List() {
			if s.Phase != Aborted || s.Ended.IsZero() {
				t.Errorf("%s is shown as %s", s.ID, s.Phase)
			}
		}
		var kinds []string
		for _, e := range p.read(t) {
			if e.Kind != entryNote {
				kinds = append(kinds, e.Kind+" "+e.ID)
			}
		}
		want := []string{"started r1", "started r2", "started r3", "ended r1", "ended r2", "ended r3", "killed "}
		if !slices.Equal(kinds, want) {
			t.Errorf("the journal says %q, want %q", kinds, want)
		}
		c.Close()
	})
}

func TestARolloutThatIsSwitchedOffWhileItIsWrittenDownDoesNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRoad(1), newStuck()
		c := NewController(Options{Target: r, Journal: p})
		go func() { _ = c.Run(t.Context()) }()
		<-p.gate
		started := make(chan error, 1)
		go func() {
			_, err := c.Start(trial())
			started <- err
		}()
		time.Sleep(time.Second)
		if list := c.List(); len(list) != 0 {
			t.Errorf("it stands in the list before it is written down: %+v", list)
		}
		go func() { _ = c.Kill("", []string{Rollouts}, "freeze") }()
		for len(c.Frozen()) == 0 { // it waits for a lock then, for which the bubble's time stands still
			runtime.Gosched()
		}
		p.gate <- struct{}{}
		if err := <-started; err == nil {
			t.Error("it was started")
		}
		time.Sleep(time.Second)
		if list := c.List(); len(list) != 1 || list[0].Phase != Aborted {
			t.Errorf("%+v", list)
		}
		c.Close()
	})
}
