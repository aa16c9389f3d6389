package rollout

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/stats"
)

const (
	// fuse is the share of the calls that a turn without a change may lose beyond what is lost with it. It goes off after
	// leastStepCalls: no test, but what nobody would watch until the turn is over.
	fuse = 0.1
	// longestPeriod is as good as never, and no overflow.
	longestPeriod = 100 * 365 * 24 * time.Hour
)

// absence is a promoted change that is held back in turns, because calls that are held back beside the others would feel what
// these do: once in a period, at random, all calls of its route get the policy without it for one turn, and the turn before or
// after is its pair. When that is follows from the rollout alone, so that a restart goes on alike.
type absence struct {
	id              string
	spec            Spec
	seed            uint64
	since           time.Time // of the promotion, from which periods count
	policy, without longpole.Config
	next            int64 // the period whose pair comes next

	promoted, heldBack stats.Tally // of whole pairs
	usual              []float64   // share of the calls that was lost with the change when that was last counted, by spec.routes
	refused            error       // why the Target would not have it; nil = it did
}

func newAbsence(r *run, ended time.Time, policy, without longpole.Config) *absence {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, r.id, " ", r.hash) // never errs
	return &absence{id: r.id, spec: r.spec, seed: h.Sum64(), since: ended.Round(0), policy: policy, without: without, next: -1, usual: make([]float64, len(r.spec.routes()))}
}

// period is the time of which one turn is the share that is held back.
func (a *absence) period() time.Duration {
	return time.Duration(min(float64(a.spec.Switchback)/a.spec.heldBack(), float64(longestPeriod)))
}

// length is that of a pair, with the washout after it in which its last calls end, and the looks that it takes to see so.
func (a *absence) length() time.Duration {
	return 2*a.spec.Switchback + a.spec.Washout + 2*tick(a.spec)
}

func (a *absence) chance(n int64) *rand.Rand { return rand.New(rand.NewPCG(a.seed, uint64(n))) }

// due is when the pair of a period begins.
func (a *absence) due(n int64) time.Time {
	room := float64(a.period() - a.length())
	return a.since.Add(time.Duration(n)*a.period() + time.Duration(a.chance(n).Float64()*room))
}

// heed moves on to the period that now is in. A pair waits while it may not begin, as long as its period has room for it; one that
// was due before anybody looked is left out, so that no number of restarts makes a period hold two.
func (a *absence) heed(now time.Time) {
	n := max(0, int64(now.Sub(a.since)/a.period()))
	switch {
	case a.next < 0 && a.due(n).Before(now):
		a.next = n + 1
	case a.next < n:
		a.next = n
	}
	if n == a.next && now.Add(a.length()).After(a.since.Add(time.Duration(n+1)*a.period())) {
		a.next++
	}
}

// pair is two turns that are under way: with the change and without it, in an order by chance.
type pair struct {
	of      *absence
	back    judge.Switchback
	blocks  judge.Blocks
	current judge.Turn
	begun   bool   // the Target was told of current
	cut     string // why the turn without the change ended early, or is left out; "" = it did not
	over    bool   // it is only to be dropped, which the Target refused
}

// look takes what the two cohorts did so far on each of the routes; the last is judged. It says whose turn it is now, and that
// both turns are over.
func (p *pair) look(now time.Time, seen []sample) (turn judge.Turn, over bool) {
	for i, s := range seen {
		if s.baseline.Calls >= leastStepCalls {
			p.of.usual[i] = lost(s.baseline)
		}
	}
	judged := seen[len(seen)-1]
	if promoted, heldBack, ok := p.blocks.Look(p.back, now, judged.baseline, judged.candidate); ok && heldBack.Calls > 0 {
		p.of.promoted, p.of.heldBack = p.of.promoted.Merge(promoted), p.of.heldBack.Merge(heldBack)
	}
	turn = p.back.At(now)
	if turn.Number > 1 {
		return judge.Turn{Number: turn.Number}, turn.Judged || turn.Number > 2
	}
	if turn.Candidate && p.cut == "" {
		p.cut = p.blown(seen)
	}
	if turn.Candidate && p.cut != "" { // its last calls may still come, and are the evidence for how bad it was
		turn.Candidate, turn.Judged = false, false
	}
	return turn, false
}

// blown says why the turn without the change must end at once; "" = it need not.
func (p *pair) blown(seen []sample) string {
	for i, s := range seen {
		if s.candidate.Calls >= leastStepCalls && lost(s.candidate) > p.of.usual[i]+fuse {
			return fmt.Sprintf("%s of its calls on route %q failed or were refused, %s with the change", percent(lost(s.candidate)), p.of.spec.routes()[i], percent(p.of.usual[i]))
		}
	}
	return ""
}

// inTurns is what a Controller holds back in turns, one pair at a time on all routes.
type inTurns struct {
	mu  sync.Mutex // held while the Target is called, which does not block; taken after a run's, never before it
	all []*absence
	on  *pair // nil = none
}

// absent makes what is held back in turns on a route what it should be now. What stays as it is goes on.
func (c *Controller) absent(route string, want []*absence) {
	h := &c.inTurns
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, w := range want {
		for _, old := range h.all {
			if old.id == w.id && reflect.DeepEqual(old.policy, w.policy) && reflect.DeepEqual(old.without, w.without) {
				want[i] = old
			}
		}
	}
	if h.on != nil && h.on.of.spec.Change.Route == route && !slices.Contains(want, h.on.of) {
		_ = c.dropTurns() // tried again with the next look
	}
	h.all = slices.DeleteFunc(h.all, func(a *absence) bool { return a.spec.Change.Route == route })
	h.all = append(h.all, want...)
}

// refusal is why the Target would not have the policy without a change; nil = it did, or was not asked yet.
func (c *Controller) refusal(id string) error {
	c.inTurns.mu.Lock()
	defer c.inTurns.mu.Unlock()
	for _, a := range c.inTurns.all {
		if a.id == id {
			return a.refused
		}
	}
	return nil
}

// HeldInTurns is what the calls with a promoted change and those without it did, of a change that is held back in turns: of whole
// pairs of turns since the process began or the policy changed. ErrUnknown for any other.
func (c *Controller) HeldInTurns(id string) (promoted, heldBack stats.Tally, err error) {
	c.inTurns.mu.Lock()
	defer c.inTurns.mu.Unlock()
	for _, a := range c.inTurns.all {
		if a.id == id {
			return a.promoted, a.heldBack, nil
		}
	}
	return promoted, heldBack, fmt.Errorf("%w that is held back in turns: %s", ErrUnknown, id)
}

// yield ends the turns that are under way on any of the routes, "" being every route, and their evidence is lost: what is to be
// done there matters more.
func (c *Controller) yield(routes ...string) error {
	c.inTurns.mu.Lock()
	defer c.inTurns.mu.Unlock()
	on := c.inTurns.on
	if on == nil || !slices.ContainsFunc(routes, func(r string) bool { return r == "" || slices.Contains(on.of.spec.routes(), r) }) {
		return nil
	}
	return c.dropTurns()
}

// dropTurns gives all calls the policy in force again. inTurns.mu is held.
func (c *Controller) dropTurns() error {
	on := c.inTurns.on
	if on == nil {
		return nil
	}
	if err := c.targetOf(on.of.spec).Discard(on.of.spec.Change.Route); err != nil {
		on.over = true
		c.o.Log.Warn("rollout: turns without a change could not be ended; trying again", "rollout", on.of.id, "error", err)
		return err
	}
	c.inTurns.on = nil
	return nil
}

// holdInTurns takes looks until ctx ends.
func (c *Controller) holdInTurns(ctx context.Context) {
	next := time.NewTimer(glance)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			next.Reset(c.lookAtTurns(time.Now()))
		case <-ctx.Done():
			for range lastTries {
				if c.yield("") == nil {
					return
				}
			}
			return
		}
	}
}

// lookAtTurns takes a look at what is held back in turns, and says when the next one is due.
func (c *Controller) lookAtTurns(now time.Time) time.Duration {
	var a *absence
	var stop bool
	var gate string
	for _, a = range c.dueNow(now) { // one that must wait keeps no other from its turn
		if stop, gate = c.hindered(a.spec); !stop && gate == "" {
			break
		}
	}
	if a == nil {
		return glance
	}
	h := &c.inTurns
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.on == nil && (stop || gate != "" || !slices.Contains(h.all, a)):
		return glance
	case h.on == nil:
		c.beginTurns(a, now)
	case h.on.of != a:
		return glance
	case stop || h.on.over:
		_ = c.dropTurns() // tried again with the next look
	default:
		if gate != "" && h.on.cut == "" {
			h.on.cut = gate
		}
		c.followTurns(now)
	}
	return tick(a.spec)
}

// dueNow is the change whose turns are under way or, where there are none, those that are due, the longest first.
func (c *Controller) dueNow(now time.Time) (list []*absence) {
	c.inTurns.mu.Lock()
	defer c.inTurns.mu.Unlock()
	if c.inTurns.on != nil {
		return []*absence{c.inTurns.on.of}
	}
	for _, a := range c.inTurns.all {
		if a.heed(now); !a.due(a.next).After(now) {
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b *absence) int { return a.due(a.next).Compare(b.due(b.next)) })
	return list
}

// hindered reports whether no turns may be taken now, because something else is done to the routes, and why no turn may be
// without the change now; "" = it may.
func (c *Controller) hindered(spec Spec) (stop bool, gate string) {
	for _, route := range spec.routes() {
		if gate == "" {
			gate = c.gate(route)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, route := range append([]string{""}, spec.routes()...) {
		if _, off := c.killed[route]; off {
			return true, gate
		}
	}
	return c.closed || slices.ContainsFunc(c.all, func(r *run) bool { return !r.isFinal() && r.spec.meets(spec) }), gate
}

// beginTurns begins the pair that is due. inTurns.mu is held.
func (c *Controller) beginTurns(a *absence, now time.Time) {
	route, target := a.spec.Change.Route, c.targetOf(a.spec)
	n := a.next
	a.next++
	if err := target.Stage(route, a.without); err != nil {
		a.refused = err
		return
	}
	a.refused = nil
	c.inTurns.on = &pair{of: a, back: judge.Switchback{Seed: a.chance(n).Uint64(), Start: now, Block: a.spec.Switchback, Washout: a.spec.Washout}}
	inForce, err := target.Policy(route)
	if err != nil || !reflect.DeepEqual(inForce.Safe(), a.policy) { // what is staged is no longer that without the change
		_ = c.dropTurns()
		return
	}
	c.o.Log.Info("a turn without a promoted change, and one with it", "rollout", a.id, "route", route, "each", a.spec.Switchback)
	c.followTurns(now)
}

// followTurns takes a look at the pair that is under way. inTurns.mu is held.
func (c *Controller) followTurns(now time.Time) {
	on := c.inTurns.on
	a, route, target := on.of, on.of.spec.Change.Route, c.targetOf(on.of.spec)
	var seen []sample
	for _, of := range a.spec.routes() {
		baseline, candidate, err := c.o.Target.Tallies(of)
		if err != nil { // whatever changed the policy in force has dropped the candidate
			_ = c.dropTurns()
			return
		}
		seen = append(seen, sample{baseline: baseline, candidate: candidate})
	}
	cut := on.cut
	turn, over := on.look(now, seen)
	if on.cut != "" && cut == "" {
		c.o.Log.Warn("the turn without a promoted change was cut short", "rollout", a.id, "route", route, "why", on.cut)
	}
	switch {
	case over:
		_ = c.dropTurns() // tried again with the next look
		return
	case on.begun && turn.Candidate == on.current.Candidate && turn.Judged == on.current.Judged:
		return
	}
	if err := target.Turn(route, turn.Candidate, turn.Judged); err != nil {
		c.o.Log.Warn("rollout: turns without a promoted change ended", "rollout", a.id, "route", route, "error", err)
		_ = c.dropTurns()
		return
	}
	on.current, on.begun = turn, true
}
