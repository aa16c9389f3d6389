package rollout

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/longpole/longpole"
)

// Held is what a Status says of a promoted change that keeps a holdback. Of any other it says why it keeps none.
const Held = "held"

// Bounds of the holdbacks of a route. The newest one counts, but is never refused.
const (
	mostHeldBack  = 0.05 // of the calls
	mostHoldbacks = 10
)

// routeGone is why a change of a route that was removed holds nothing back.
const routeGone = "the route is gone, and its calls with it"

// holdbackEvery is how often the holdbacks of all routes are looked after: a reload of the configuration ends them.
const holdbackEvery = 10 * time.Second

// claim is a promoted change that is in force, as far as its holdback goes.
type claim struct {
	id       string
	change   longpole.Change
	share    float64 // that was asked for; 0 = none
	turns    bool    // it was tried in turns, and is held back so
	released string  // why it was ended by hand; "" = it was not
	ended    time.Time
}

// fate is what becomes of a claim: a share of the calls on the policy without the change or, where why says so, none.
type fate struct {
	without longpole.Config
	why     string
}

// fates are those of all changes that were promoted on a route and not taken back, the oldest first; now is the policy in force.
// Each is held back alone: its holdback is today's policy without it. One whose settings were changed again cannot be. Where
// there is no room for all, the oldest are let go.
func fates(now longpole.Config, claims []claim) []fate {
	all := make([]fate, len(claims))
	sum, n := 0.0, 0
	for i, c := range slices.Backward(claims) {
		f := &all[i]
		without, ok := takenBack(now, c.change)
		later := superseding(claims[i+1:], c.change)
		switch {
		case c.turns && c.share == 0:
			f.why = "it was tried in turns, and none was asked for: all calls would feel its turns"
		case c.share == 0:
			f.why = "nobody asked for one"
		case c.released != "":
			f.why = "released: " + c.released
		case later != "":
			f.why = "superseded by " + later
		case !ok:
			f.why = "superseded by the file, which says something else now"
		case c.turns && without.Cache != nil:
			f.why = "it was tried in turns, and its turns would begin with an empty cache"
		case n > 0 && (sum+c.share > mostHeldBack+1e-9 || n == mostHoldbacks):
			f.why = fmt.Sprintf("let go for newer changes: a route holds back %s of its calls at most", percent(mostHeldBack))
		default:
			f.without = without
			sum, n = sum+c.share, n+1
		}
	}
	return all
}

// superseding is the first of the later changes that changed a setting again that change had made, if only back to what it had
// been made; "" = none did.
func superseding(later []claim, change longpole.Change) string {
	for _, c := range later {
		_, before := takenBack(c.change.From, change)
		if _, after := takenBack(c.change.To, change); before != after {
			return c.id
		}
	}
	return ""
}

// promotions are the runs whose promoted change of the route's policy was not taken back, the oldest first, and their claims.
func (c *Controller) promotions(route string) (runs []*run, claims []claim) {
	c.mu.Lock()
	all := slices.Clone(c.all)
	c.mu.Unlock()
	for _, r := range all {
		if r.spec.Change.Route != route || r.spec.Version != "" {
			continue
		}
		r.mu.Lock()
		if r.final != nil && r.final.Phase == Promoted && r.final.Undone.IsZero() {
			runs = append(runs, r)
			claims = append(claims, claim{id: r.id, change: r.inForce, share: r.spec.heldBack(), turns: r.spec.Switchback > 0, released: r.released, ended: r.final.Ended})
		}
		r.mu.Unlock()
	}
	return runs, claims
}

// holdBack makes the holdbacks of a route what they should be now. It must not be called with a run's lock or the Controller's,
// and leaves the journal to who calls it.
func (c *Controller) holdBack(route string) {
	c.holding.Lock()
	defer c.holding.Unlock()
	runs, claims := c.promotions(route)
	if len(runs) == 0 {
		c.absent(route, nil)
		return
	}
	now, err := c.o.Target.Policy(route)
	if err != nil {
		c.absent(route, nil)
		for _, r := range runs {
			r.heldBack(routeGone)
		}
		return
	}
	all := fates(now, claims)
	var turns []*absence
	for i, r := range runs {
		if all[i].why == "" && claims[i].turns {
			turns = append(turns, newAbsence(r, claims[i].ended, now.Safe(), all[i].without))
		}
	}
	c.absent(route, turns)
	for i, r := range runs {
		if all[i].why != "" && r.standing() == Held {
			_ = c.o.Target.Release(route, r.id) // what refuses that has no such route any more
		}
	}
	for i, r := range runs {
		why := all[i].why
		if why == "" {
			why = Held
			if err := c.keepBack(route, claims[i], all[i].without); err != nil {
				why = fmt.Sprintf("it cannot be held back alone: %v", err)
			}
		}
		r.heldBack(why)
	}
}

// keepBack holds back what is held back beside the others; what is held back in turns waits for these.
func (c *Controller) keepBack(route string, of claim, without longpole.Config) error {
	if of.turns {
		return c.refusal(of.id)
	}
	return c.o.Target.Hold(route, of.id, without, of.share)
}

// standing is what the Status says of the holdback.
func (r *run) standing() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.final.Held
}

// heldBack notes what became of the holdback, once.
func (r *run) heldBack(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.final.Held == why {
		return
	}
	r.final.Held = why
	text := fmt.Sprintf("%s of the calls keep the policy without this change", percent(r.spec.heldBack()))
	if r.spec.Switchback > 0 {
		text = fmt.Sprintf("for %s of the time, a turn of %s at a time, all calls get the policy without this change", percent(r.spec.heldBack()), r.spec.Switchback)
	}
	if why != Held {
		text = "holds nothing back: " + why
	}
	last := len(r.journal) - 1
	if r.spec.heldBack() == 0 || last >= 0 && r.journal[last].Text == text { // said before a restart
		return
	}
	r.note(text)
	r.final.Journal, r.final.Dropped = r.journal, r.dropped
	r.c.o.Log.Info("rollout", "rollout", r.id, "route", r.spec.Change.Route, "text", text)
}

// holdBackAll looks after the holdbacks of all routes.
func (c *Controller) holdBackAll() {
	c.mu.Lock()
	routes := map[string]bool{}
	for _, r := range c.all {
		routes[r.spec.Change.Route] = true
	}
	c.mu.Unlock()
	for route := range routes {
		c.holdBack(route)
	}
	c.some()
}

// Release ends the holdback of a promoted change for good; the change stays. ErrUnknown; ErrState when it holds nothing back; or
// ErrJournal: it is released all the same then, and the next process will not know.
func (c *Controller) Release(id, reason string) error {
	r, err := c.find(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	held := r.final != nil && r.final.Held == Held && r.final.Undone.IsZero()
	if held {
		r.released = reasonOr(reason)
	}
	r.mu.Unlock()
	if !held {
		return fmt.Errorf("%w: %s holds no calls back", ErrState, id)
	}
	err = c.write(Entry{Kind: entryReleased, ID: id, Route: r.spec.Change.Route, Reason: reasonOr(reason)})
	c.holdBack(r.spec.Change.Route)
	c.flush()
	return err
}

// Undo takes a promotion back: the policy is without its change with the next call, or the split is as before. Changes that were
// promoted after it stay in force, unless they build on it. ErrUnknown; ErrState when it promoted nothing, was undone already or a
// later one changed the same; ErrStale when the policy, or the split, in force is not what rollouts promoted; ErrBusy while another
// rollout of the route runs; the Target's error; or ErrJournal: then it is undone all the same, and the next process will not know.
func (c *Controller) Undo(id, reason string) error {
	r, err := c.find(id)
	if err != nil {
		return err
	}
	if err := c.undoable(r); err != nil {
		return err
	}
	route := r.spec.Change.Route
	if err := c.takeBack(r, reasonOr(reason)); err != nil {
		return err
	}
	c.o.Log.Warn("rollout undone", "rollout", id, "route", route, "reason", reason)
	err = c.write(Entry{Kind: entryUndone, ID: id, Route: route, Reason: reasonOr(reason)})
	if err != nil {
		c.o.Log.Error("rollout: that it was undone will be forgotten with the process", "rollout", id, "error", err)
	}
	c.holdBack(route)
	c.some()
	return err
}

// takeBack undoes r while nobody looks after holdbacks, who would hold calls back for what is no longer in force.
func (c *Controller) takeBack(r *run, reason string) (err error) {
	c.holding.Lock()
	defer c.holding.Unlock()
	if r.spec.Version != "" {
		err = c.resplit(r)
	} else {
		err = c.adoptWithout(r)
	}
	if err == nil {
		c.undone(r, time.Now(), reason)
	}
	return err
}

func (c *Controller) undoable(r *run) error {
	seen, standing := false, false
	for _, s := range slices.Backward(c.List()) {
		switch {
		case !s.Phase.Final() && (s.Route == r.spec.Change.Route || s.Observe == r.spec.Change.Route):
			return fmt.Errorf("%w: %s", ErrBusy, s.ID)
		case s.Route != r.spec.Change.Route:
		case s.ID == r.id:
			seen, standing = true, s.Phase == Promoted && s.Undone.IsZero()
		case !seen && s.Version != "" && r.spec.Version != "" && s.Phase == Promoted && s.Undone.IsZero():
			return fmt.Errorf("%w: %s was promoted after %s; undo that first", ErrState, s.ID, r.id)
		}
	}
	if !standing {
		return fmt.Errorf("%w: %s promoted nothing that is still in force", ErrState, r.id)
	}
	return nil
}

// resplit puts the weights from before a version was promoted in force.
func (c *Controller) resplit(r *run) error {
	route := r.spec.Change.Route
	now, err := c.o.Target.Weights(route)
	if err != nil {
		return err
	}
	if !alone(now, r.spec.Version) {
		return fmt.Errorf("%w: the calls of route %q are split in another way since", ErrStale, route)
	}
	return c.o.Target.Split(route, r.weights)
}

// adoptWithout puts the policy without the change of r in force. What rollouts promoted must be in force: of anything else nobody
// knows what it would be without it.
func (c *Controller) adoptWithout(r *run) error {
	route := r.spec.Change.Route
	now, err := c.o.Target.Policy(route)
	if err != nil {
		return err
	}
	runs, claims := c.promotions(route)
	at := slices.Index(runs, r)
	if at < 0 {
		return fmt.Errorf("%w: %s promoted nothing that is still in force", ErrState, r.id)
	}
	if later := superseding(claims[at+1:], claims[at].change); later != "" {
		return fmt.Errorf("%w: %s changed the same settings after %s; undo that first", ErrState, later, r.id)
	}
	newest := claims[len(claims)-1].change.To
	without, ok := takenBack(now, claims[at].change)
	if !ok || !reflect.DeepEqual(now.Safe(), newest.Safe()) {
		return fmt.Errorf("%w: route %q has got another policy since", ErrStale, route)
	}
	return c.o.Target.Adopt(route, without)
}

// undone notes that r was taken back, and rebases the changes that were promoted after it: they were made over a policy that had
// its change, and are in force over one that has not.
func (c *Controller) undone(r *run, at time.Time, reason string) {
	runs, claims := c.promotions(r.spec.Change.Route)
	if i := slices.Index(runs, r); i >= 0 {
		for j, later := range runs[i+1:] {
			from, known := takenBack(claims[i+1+j].change.From, claims[i].change)
			to, ok := takenBack(claims[i+1+j].change.To, claims[i].change)
			if known && ok {
				later.mu.Lock()
				later.inForce.From, later.inForce.To = from, to
				later.mu.Unlock()
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.final.Undone, r.final.UndoReason, r.final.Held = at, reason, ""
}
