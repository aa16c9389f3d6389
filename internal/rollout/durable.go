package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/conf"
)

// Journal is where what must outlive the process is written down. Append returns once the entry is safe.
type Journal interface {
	Append(Entry) error
}

// The kinds of Entry.
const (
	entryStarted   = "started"   // Spec
	entryNote      = "note"      // Event
	entryRestarted = "restarted" // a process found it under way
	entryEnded     = "ended"     // Status
	entryUndone    = "undone"    // Reason
	entryReleased  = "released"  // Reason
	entryKilled    = "killed"    // Route, Parts, Reason
)

// Entry is one line of the append-only journal of all rollouts. Its JSON form is stable.
type Entry struct {
	Kind   string          `json:"kind"`
	At     time.Time       `json:"at"`
	ID     string          `json:"id,omitempty"` // of the rollout
	Spec   json.RawMessage `json:"spec,omitempty"`
	Event  *Event          `json:"event,omitempty"`
	Status *Status         `json:"status,omitempty"`
	Route  string          `json:"route,omitempty"`
	Parts  []string        `json:"parts,omitempty"`
	Reason string          `json:"reason,omitempty"`
}

// Unwritten is how many entries the journal refused.
func (c *Controller) Unwritten() uint64 { return c.unwritten.Load() }

// began writes down that a rollout was asked for. Without that it may not begin.
func (c *Controller) began(r *run) error {
	spec, err := conf.MarshalJSON(r.spec)
	if err != nil {
		return fmt.Errorf("rollout: describe the rollout: %w", err)
	}
	return c.write(Entry{Kind: entryStarted, ID: r.id, Route: r.spec.Change.Route, Spec: spec})
}

// noted hands a note over to the journal.
func (c *Controller) noted(id string, e Event) {
	c.later(Entry{Kind: entryNote, ID: id, Event: &e}, func(err error) {
		if err != nil {
			c.o.Log.Error("rollout", "rollout", id, "error", err)
		}
	})
}

// ended hands over how a rollout ended. When that is refused the end holds until the process does: after it the
// rollout would be begun again.
func (c *Controller) ended(r *run, s Status) {
	s.Journal = nil // it stands in the entries before
	c.later(Entry{Kind: entryEnded, ID: r.id, Route: s.Route, Status: &s}, func(err error) {
		if err != nil {
			c.o.Log.Error("rollout: its end will be forgotten with the process", "rollout", r.id, "phase", string(s.Phase), "error", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unsaved = ""
	})
}

// Restore brings back what the journal of an earlier process says, and returns what could not be, for people: rollouts that
// ended; those that were under way, which begin anew or are given up, as their spec says; policies that were promoted, which
// are put in force where the file still says what they were promoted over; what was switched off. Call it once, with all
// entries in their order, before Run.
func (c *Controller) Restore(entries []Entry) (doubts []string) {
	runs := map[string]*run{}
	killed := map[string]Entry{}
	var inForce []*run // promoted or undone, in order
	doubt := func(format string, args ...any) { doubts = append(doubts, fmt.Sprintf(format, args...)) }
	for _, e := range entries {
		r := runs[e.ID]
		if n, err := number(e.ID); err == nil {
			c.next = max(c.next, n) // also of what cannot be read any more: no identifier comes twice
		}
		switch {
		case e.Kind == entryStarted && r != nil:
			doubt("rollout %s: it begins twice", e.ID)
		case e.Kind == entryStarted:
			made, err := c.revive(e)
			if err != nil {
				doubt("rollout %s: %v", e.ID, err)
				continue
			}
			runs[e.ID] = made
			c.all = append(c.all, made)
		case e.Kind == entryKilled:
			killed[e.Route] = e
		case r == nil: // its start is too old to be kept, or was refused above
		case e.Kind == entryNote && e.Event != nil:
			r.remember(*e.Event)
			r.halted = e.Event.Phase == Paused
			if r.final != nil { // of its holdback
				r.final.Journal, r.final.Dropped = r.journal, r.dropped
			}
		case e.Kind == entryRestarted:
			r.restarts++
		case e.Kind == entryReleased:
			r.released = e.Reason
		case r.final != nil && e.Kind != entryUndone: // it has ended
		case e.Kind == entryEnded && e.Status != nil && e.Status.Phase.Final():
			r.close(*e.Status)
			if e.Status.Phase == Promoted {
				inForce = append(inForce, r)
			}
		case e.Kind == entryUndone && r.final != nil && r.final.Phase == Promoted:
			c.undone(r, e.At, e.Reason)
		}
	}
	for _, e := range killed {
		if err := c.kill(e.At, e.Route, e.Parts, e.Reason); err != nil && len(e.Parts) > 0 { // else there is nothing to switch off
			doubt("what was switched off on route %q: %v", e.Route, err)
		}
	}
	doubts = append(doubts, c.reinstateAll(inForce)...)
	c.holdBackAll()
	for i, r := range c.all {
		if !r.isFinal() {
			c.interrupted(r, c.all[i+1:])
		}
	}
	c.flush()
	c.forget()
	return doubts
}

// revive makes a rollout of its first entry.
func (c *Controller) revive(e Entry) (*run, error) {
	if _, err := number(e.ID); err != nil {
		return nil, err
	}
	var spec Spec
	if err := conf.Decode("journal", e.Spec, &spec); err != nil {
		return nil, err
	}
	if spec.Change.Route == "" {
		return nil, errors.New("rollout: the entry says nothing of a route")
	}
	r, err := c.newRun(spec.WithDefaults(), e.At)
	if err == nil {
		r.id = e.ID
	}
	return r, err
}

// number is that of an identifier.
func number(id string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(id, "r"))
	if err != nil || n < 1 || n > 1<<53 || id != identifier(n) {
		return 0, fmt.Errorf("rollout: %q is no identifier of ours", id)
	}
	return n, nil
}

func identifier(n int) string { return "r" + strconv.Itoa(n) }

// remember keeps the first and the last lines when there are too many.
func (r *run) remember(e Event) {
	if len(r.journal) == journalLines {
		half := journalLines / 2
		r.journal = append(r.journal[:half], r.journal[half+1:]...)
		r.dropped++
	}
	r.journal = append(r.journal, e)
}

// close makes r one that ended.
func (r *run) close(s Status) {
	s.Journal, s.Dropped, s.Change = r.journal, r.dropped, r.change
	r.st = state{phase: s.Phase}
	r.over, r.weights, r.final, r.driven = s.Ended, s.Weights, &s, true
	close(r.ended)
}

// reinstateAll puts in force what rollouts promoted, one upon the other. What the last one of a route came to is what
// counts: the file may be ahead of those before.
func (c *Controller) reinstateAll(promoted []*run) (doubts []string) {
	type matter struct {
		route string
		split bool
	}
	last := map[matter]string{}
	var order []matter
	for _, r := range promoted {
		m := matter{r.spec.Change.Route, r.spec.Version != ""}
		if !slices.Contains(order, m) {
			order = append(order, m)
		}
		if r.final.Undone.IsZero() {
			delete(last, m)
		}
		if err := c.reinstate(r); err != nil {
			last[m] = fmt.Sprintf("rollout %s had promoted its change on route %q: %v", r.id, m.route, err)
		}
	}
	for _, m := range order {
		if doubt, ok := last[m]; ok {
			doubts = append(doubts, doubt)
		}
	}
	return doubts
}

// reinstate puts in force what r promoted, unless it was taken back, or the file has changed under it.
func (c *Controller) reinstate(r *run) error {
	if !r.final.Undone.IsZero() {
		return nil
	}
	route, target := r.spec.Change.Route, c.o.Target
	if r.spec.Version != "" {
		weights, err := target.Weights(route)
		if err != nil {
			return err
		}
		switch {
		case alone(weights, r.spec.Version): // the owner has put it into the file
			return nil
		case !maps.Equal(weights, r.weights):
			return errors.New("not put in force again: the file splits its calls in another way now")
		}
		return target.Split(route, only(weights, r.spec.Version))
	}
	now, err := target.Policy(route)
	if err != nil {
		return err
	}
	to := r.inForce.To.Safe()
	switch {
	case reflect.DeepEqual(now.Safe(), to): // the owner has put it into the file
		return nil
	case !reflect.DeepEqual(now.Safe(), r.inForce.From.Safe()):
		return errors.New("not put in force again: the file says another policy now than the one it was promoted over")
	}
	return target.Adopt(route, to)
}

// alone reports whether one version has all weight.
func alone(weights map[string]int, version string) bool {
	for name, w := range weights {
		if (w > 0) != (name == version) {
			return false
		}
	}
	return weights[version] > 0
}

// only gives all weight to one version.
func only(weights map[string]int, version string) map[string]int {
	next := make(map[string]int, len(weights))
	for name := range weights {
		next[name] = 0
	}
	next[version] = 1
	return next
}

// interrupted begins a rollout anew that the end of the process cut off, or gives it up. Its candidate went with the process:
// all calls are on the policy in force. after are those that began after it: one that would move the calls of the same route says
// that it had ended, for there is one at a time.
func (c *Controller) interrupted(r *run, after []*run) {
	r.restarts++
	c.later(Entry{Kind: entryRestarted, ID: r.id}, func(err error) {
		if err != nil {
			c.o.Log.Error("rollout", "rollout", r.id, "error", err)
		}
	})
	_, err := c.from(r.spec.Change)
	next := slices.IndexFunc(after, func(o *run) bool { return o.spec.meets(r.spec) })
	switch {
	case next >= 0:
		err = fmt.Errorf("it had ended before %s began; how could not be written down", after[next].id)
	case r.spec.Restart == Rollback:
		err = errors.New("the program ended in the middle, and it was not to be resumed")
	case err == nil:
		if r.halted {
			r.st.halted = time.Now()
		}
		r.note("the program ended in the middle; it begins anew, and so does the evidence")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.st.phase, r.st.reason = Aborted, err.Error()
	r.st = r.st.note("aborted: %v", err)
	r.driven = true
	r.settle(Pending)
}

// suspended leaves a rollout for the next process to resume, where there is a journal and its spec says so. The candidate
// goes with this one.
func (c *Controller) suspended(id string) bool {
	r, err := c.find(id)
	if err != nil || c.o.Journal == nil || r.spec.Restart != Resume {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.phase.Final() || r.st.ending != "" {
		return false
	}
	if r.st.phase != Pending {
		if err := r.target().Discard(r.spec.Change.Route); err != nil {
			c.o.Log.Warn("rollout: the candidate could not be dropped; it ends with the process", "rollout", id, "error", err)
		}
	}
	r.note("the program ends; the rollout begins anew with the next one")
	return true
}

// Pause takes the calls from a candidate until Resume; the time does not count. ErrUnknown, ErrEnded, ErrState, or the
// Target's error.
func (c *Controller) Pause(id, reason string) error {
	return c.halt(id, func(st state) bool { return st.halted.IsZero() }, func(_ Spec, st state) (state, []command) {
		return pause(st, time.Now(), reasonOr(reason))
	})
}

// Resume ends a Pause. ErrUnknown, ErrEnded, ErrState, or the Target's error.
func (c *Controller) Resume(id, reason string) error {
	return c.halt(id, func(st state) bool { return !st.halted.IsZero() }, func(spec Spec, st state) (state, []command) {
		return resume(spec, st, time.Now(), reasonOr(reason))
	})
}

func (c *Controller) halt(id string, fit func(state) bool, do func(Spec, state) (state, []command)) error {
	r, err := c.find(id)
	if err != nil {
		return err
	}
	defer c.flush()
	refused := error(nil)
	err = r.control(func(st state) (state, []command) {
		if st.phase == Pending && st.halted.IsZero() || st.ending != "" || !fit(st) {
			refused = fmt.Errorf("%w: %s", ErrState, id)
			return st, nil
		}
		return do(r.spec, st)
	})
	return errors.Join(err, refused)
}

// Rollouts is the name of what Kill switches off besides the parts of policies: rollouts themselves. Those under way are
// aborted, and none begins.
const Rollouts = "rollouts"

// Kill switches parts of the policy of a route off at once, whatever rollouts do, and all other parts on again; route "" is every
// route. It is written down, so that a restart does not switch them on. The Target's error, or ErrJournal; what was
// switched off is off all the same then.
func (c *Controller) Kill(route string, parts []string, reason string) error {
	at := time.Now()
	if err := c.kill(at, route, parts, reason); err != nil {
		return err
	}
	c.o.Log.Warn("switched off by hand", "route", route, "parts", parts, "reason", reason)
	return c.write(Entry{Kind: entryKilled, At: at, Route: route, Parts: parts, Reason: reason})
}

func (c *Controller) kill(at time.Time, route string, parts []string, reason string) error {
	rest := slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == Rollouts })
	if err := c.o.Target.Kill(route, rest...); err != nil {
		return err
	}
	freeze := len(rest) < len(parts) || slices.Contains(parts, "all")
	c.mu.Lock()
	if len(parts) > 0 {
		c.killed[route] = Killed{Parts: slices.Clone(parts), Reason: reason, Since: at}
	} else {
		delete(c.killed, route)
	}
	if freeze {
		c.frozen[route] = reasonOr(reason)
	} else {
		delete(c.frozen, route)
	}
	all := slices.Clone(c.all)
	c.mu.Unlock()
	_ = c.yield(route) // tried again with the next look
	if !freeze {
		return nil
	}
	defer c.flush() // once all are aborted
	var errs []error
	for _, r := range all {
		if !r.isFinal() && (route == "" || slices.Contains(r.spec.routes(), route)) {
			if err := c.abort(r.id, "rollouts were switched off: "+reasonOr(reason)); err != nil && !errors.Is(err, ErrEnded) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Killed is what was switched off by hand on a route.
type Killed struct {
	Parts  []string  `json:"parts"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Killed is what is switched off by hand, by route; "" is every route.
func (c *Controller) Killed() map[string]Killed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.killed)
}

// Frozen is why no rollout begins, by route; "" is every route.
func (c *Controller) Frozen() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.frozen)
}
