package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/staging"
)

// Errors of a Controller, for errors.Is.
var (
	ErrBusy    = errors.New("rollout: the route has a rollout under way")
	ErrUnknown = errors.New("rollout: no such rollout")
	ErrEnded   = errors.New("rollout: it has ended, or is ending, already")
	ErrStale   = errors.New("rollout: the policy in force is not the one that the change starts from")
	ErrClosed  = errors.New("rollout: the controller is closed")
	ErrState   = errors.New("rollout: it is not in the state for that")
	ErrBlocked = errors.New("rollout: nothing may be tried on the route now")
	ErrJournal = errors.New("rollout: the journal cannot be written")
	// ErrUnverified is a change that another environment must have verified first.
	ErrUnverified = errors.New("rollout: the change was not verified")
)

const (
	kept         = 100 // ended rollouts that are remembered
	journalLines = 64  // of one rollout
	mostWritten  = 512 // notes of one rollout in a process that are written down; then only those of another phase
	lastTries    = 3   // to drop a candidate when the program ends
)

// Event is one line of a rollout's journal.
type Event struct {
	At     time.Time `json:"at"`
	Phase  Phase     `json:"phase"`
	Weight float64   `json:"weight"`
	Text   string    `json:"text"`
}

// Status is all that is known about a rollout.
type Status struct {
	ID     string  `json:"id"`
	Route  string  `json:"route"`
	Phase  Phase   `json:"phase"`
	Step   int     `json:"step"` // counted from 1; 0 before the first
	Steps  int     `json:"steps"`
	Weight float64 `json:"weight"` // share of the calls that the candidate gets now
	// Version is the upstream that is tried, in place of a policy.
	Version string `json:"version,omitempty"`
	Goal    string `json:"goal"`
	Target  string `json:"target"`
	// SliceMS, WarmupMS and MaxDurationMS are the pace.
	SliceMS        float64         `json:"slice_ms"`
	WarmupMS       float64         `json:"warmup_ms"`
	MaxDurationMS  float64         `json:"max_duration_ms"`
	Reason         string          `json:"reason"`            // as given by who asked for it
	Outcome        string          `json:"outcome,omitempty"` // why it ended or is ending
	Ending         Phase           `json:"ending,omitempty"`  // the phase that follows once the Target does what it was told
	Started        time.Time       `json:"started"`
	Ended          time.Time       `json:"ended,omitzero"`
	Plan           string          `json:"plan,omitempty"` // what the rollout is able to see at the traffic of its warm-up
	Judgement      Judgement       `json:"judgement"`
	Calibration    *Calibration    `json:"calibration,omitempty"` // how often the judge was wrong on the route when it began; nil = that is not measured
	Predicted      *Quantiles      `json:"predicted_ms,omitempty"`
	Measured       Quantiles       `json:"measured_ms"` // of the candidate since the warm-up
	Baseline       Quantiles       `json:"baseline_ms"` // of the cohort beside it
	Change         json.RawMessage `json:"change,omitempty"`
	Journal        []Event         `json:"journal"`
	Dropped        int             `json:"journal_dropped,omitempty"` // lines in the middle that did not fit
	Blocked        string          `json:"blocked,omitempty"`         // why it gets no more calls now, as that the route's budget of errors burns
	Restarts       int             `json:"restarts,omitempty"`        // times that the program ended in the middle of it
	Weights        map[string]int  `json:"weights,omitempty"`         // of the route's versions before a version was promoted
	Undone         time.Time       `json:"undone,omitzero"`           // when a promotion was taken back
	UndoReason     string          `json:"undo_reason,omitempty"`
	Hash           string          `json:"hash"`                    // of the change's content, by staging.Hash
	Override       bool            `json:"override,omitempty"`      // it began without the record that was required
	Weak           bool            `json:"weak,omitempty"`          // its record proves little: every step took twice the evidence
	Hypothesis     *Hypothesis     `json:"hypothesis,omitempty"`    // nil = not said
	Holdback       float64         `json:"holdback,omitempty"`      // share of the calls that keeps the old policy after a promotion; with a switchback, of the time
	Held           string          `json:"held,omitempty"`          // what became of that: Held, or why none are held back; "" = the change is not in force
	AttemptsFactor float64         `json:"attempts_factor"`         // attempts per call that the candidate may make, over the baseline's
	CostFactor     float64         `json:"cost_factor,omitempty"`   // the same of cost per call; 0 = the judge's default
	Shed           float64         `json:"shed,omitempty"`          // share of the calls that the candidate may refuse beyond the baseline's; 0 = none: a refused call is an error
	Observe        string          `json:"observe,omitempty"`       // route by whose calls it is judged; "" = its own
	SwitchbackMS   float64         `json:"switchback_ms,omitempty"` // length of a turn; 0 = the arms run side by side
	WashoutMS      float64         `json:"washout_ms,omitempty"`
}

// Controller runs rollouts against a Target, one at a time for each route.
//
// Make one with NewController and call Run once; what was started before waits for it. All methods are safe for
// concurrent use. It remembers the last 100 that ended.
type Controller struct {
	o    Options
	wake chan struct{} // a rollout was started; holds one
	quit chan struct{} // closed by Close
	ran  sync.WaitGroup

	begin   sync.Mutex // held while a rollout is admitted, which waits for the journal
	holding sync.Mutex // held while the holdbacks of a route are changed

	mu     sync.Mutex
	all    []*run // in order of start
	next   int
	closed bool
	frozen map[string]string // by route, "" = all: why nothing may be tried
	killed map[string]Killed // by route, "" = all

	inTurns inTurns

	ledger    ledger
	unwritten atomic.Uint64
}

// run is one rollout.
type run struct {
	c      *Controller
	id     string
	spec   Spec
	change json.RawMessage
	hash   string        // of its content
	proof  string        // that let it begin
	ended  chan struct{} // closed when the phase is final
	driven bool          // by a goroutine; guarded by Controller.mu

	mu      sync.Mutex // held while the Target is called, which does not block; never while the journal is written
	st      state
	started time.Time
	over    time.Time
	journal []Event
	dropped int
	written int     // notes
	told    Phase   // of the last that was written down
	final   *Status // once ended, in place of st
	unsaved Phase   // that it is shown in until its end stands in the journal; "" = it does

	inForce  longpole.Change // what it promoted, less what was taken back of changes before it
	released string          // why its holdback was ended by hand; "" = it was not

	restarts int
	halted   bool // when the process before ended
	weights  map[string]int
}

// Options is what a Controller works with.
type Options struct {
	Target  Target
	Log     *slog.Logger // nil = nothing is logged
	Journal Journal      // nil = nothing outlives the process
	// Calibration is how often the judge was wrong on a route, by which it is judged; nil = that is not measured. It must not block.
	Calibration func(route string) Calibration
	// Verified says how another environment that must have verified the change did so; an error that wraps ErrUnverified
	// when it did not, or when that cannot be told. nil = nothing is required. It may wait; Start waits for it.
	Verified func(spec Spec, hash string) (Verification, error)
	Gate     func(route string) (reason string) // says why nothing on the route may get more calls, as while its error budget burns; "" = it may. nil = always. It must not block
}

// Verification is the record that lets a rollout begin.
type Verification struct {
	Text string // who verified it, when, and what that is worth, for the journal; "" = nothing is required
	Weak bool   // it proves little
}

// NewController makes a Controller that does nothing before Run. What a journal holds, Restore brings back.
func NewController(o Options) *Controller {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{o: o, wake: make(chan struct{}, 1), quit: make(chan struct{}), frozen: map[string]string{}, killed: map[string]Killed{}}
}

// gate says why nothing on the route may get more calls.
func (c *Controller) gate(route string) string {
	if c.o.Gate == nil {
		return ""
	}
	return c.o.Gate(route)
}

// Calibration is how often the judge was wrong on a route; the zero value where that is not measured.
func (c *Controller) Calibration(route string) Calibration {
	if c.o.Calibration == nil {
		return Calibration{}
	}
	return c.o.Calibration(route)
}

// Start asks for a rollout and returns its id. It errs with the faults of spec, with ErrBusy while another rollout of
// the route is under way, with ErrStale when spec.Change.From is given and no longer in force, with ErrClosed after
// the end of Run, with ErrBlocked while the Gate or a kill switch says so, with ErrUnverified when another environment
// must have verified the change and has not, with ErrJournal when it could not be written down, or with the Target's error for an unknown route.
func (c *Controller) Start(spec Spec) (id string, err error) {
	if err := spec.Validate(); err != nil {
		return "", err
	}
	spec = spec.WithDefaults()
	if spec.Change.From, err = c.from(spec.Change); err != nil {
		return "", err
	}
	if spec.Observe != "" {
		if _, err := observable(c.o.Target, spec.Observe); err != nil {
			return "", err
		}
	}
	if reason := c.gate(spec.Change.Route); reason != "" {
		return "", fmt.Errorf("%w: %s", ErrBlocked, reason)
	}
	if spec.Seed == 0 {
		spec.Seed = rand.Uint64()
	}
	spec, proof, err := c.verified(spec)
	if err != nil {
		return "", err
	}
	r, err := c.newRun(spec, time.Now())
	if err != nil {
		return "", err
	}
	r.proof = proof
	if err := c.admit(r); err != nil {
		return "", err
	}
	c.o.Log.Info("rollout started", "rollout", r.id, "route", spec.Change.Route, "goal", spec.Goal, "target", spec.Target)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return r.id, nil
}

func (c *Controller) newRun(spec Spec, started time.Time) (*run, error) {
	change, err := conf.MarshalJSON(spec.Change)
	if err != nil {
		return nil, fmt.Errorf("rollout: describe the change: %w", err)
	}
	hash, err := staging.Hash(spec.Change.Route, spec.Version, spec.Change.To.Safe())
	if err != nil {
		return nil, err
	}
	return &run{c: c, spec: spec, change: change, hash: hash, inForce: spec.Change, ended: make(chan struct{}), st: pending(spec), started: started}, nil
}

// verified asks whether the change may begin here, and makes spec as careful as the answer demands.
func (c *Controller) verified(spec Spec) (_ Spec, proof string, err error) {
	if c.o.Verified == nil {
		return spec, "", nil
	}
	hash, err := staging.Hash(spec.Change.Route, spec.Version, spec.Change.To.Safe())
	if err != nil {
		return spec, "", err
	}
	v, err := c.o.Verified(spec, hash)
	switch {
	case err != nil && spec.Override:
		c.o.Log.Warn("rollout of a change that was not verified", "route", spec.Change.Route, "hash", hash, "reason", spec.Reason, "missing", err.Error())
		return spec.weakened(), fmt.Sprintf("overridden, with the care that a weak record asks for: %v", err), nil
	case err != nil:
		return spec, "", err
	case v.Weak:
		spec = spec.weakened()
	}
	return spec, v.Text, nil
}

// from is the policy in force, which must be the one that the change names.
func (c *Controller) from(change longpole.Change) (longpole.Config, error) {
	inForce, err := c.o.Target.Policy(change.Route)
	if err != nil {
		return longpole.Config{}, fmt.Errorf("rollout: route %q: %w", change.Route, err)
	}
	named := change.From
	if !reflect.DeepEqual(named, longpole.Config{}) && !reflect.DeepEqual(named.Safe(), inForce.Safe()) {
		return longpole.Config{}, fmt.Errorf("%w: route %q", ErrStale, change.Route)
	}
	return inForce, nil
}

// admit adds r to the rollouts, once it is written down. What was switched off meanwhile ends it at once.
func (c *Controller) admit(r *run) error {
	c.begin.Lock()
	defer c.begin.Unlock()
	if err := c.admissible(r); err != nil {
		return err
	}
	r.id = identifier(c.next + 1)
	if err := c.began(r); err != nil {
		return err
	}
	r.note("asked for: " + reasonOr(r.spec.Reason))
	if r.proof != "" {
		r.note(r.proof)
	}
	c.mu.Lock()
	c.next++
	c.forget()
	c.all = append(c.all, r)
	c.mu.Unlock()
	c.flush()
	if err := c.admissible(r); err != nil {
		return errors.Join(err, c.Abort(r.id, err.Error()))
	}
	return nil
}

// admissible reports why r may not be begun now.
func (c *Controller) admissible(r *run) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	for _, route := range append([]string{""}, r.spec.routes()...) {
		if reason, ok := c.frozen[route]; ok {
			return fmt.Errorf("%w: rollouts are switched off: %s", ErrBlocked, reason)
		}
	}
	for _, other := range c.all {
		if other != r && !other.isFinal() && other.spec.meets(r.spec) {
			return fmt.Errorf("%w: %s", ErrBusy, other.id)
		}
	}
	return nil
}

// forget makes room for one more that ended. Never forgotten are the newest promotion of a route, which is in force, and what
// holds calls back.
func (c *Controller) forget() {
	inForce := map[string]bool{}
	var left []*run
	ended := 0
	for _, r := range slices.Backward(c.all) {
		s := r.status()
		newest := s.Phase == Promoted && s.Undone.IsZero() && !inForce[s.Route]
		if newest {
			inForce[s.Route] = true
		} else if s.Held == Held {
			left = append(left, r)
			continue
		} else if s.Phase.Final() {
			if ended++; ended >= kept {
				continue
			}
		}
		left = append(left, r)
	}
	slices.Reverse(left)
	c.all = left
}

func reasonOr(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}

// Abort ends a rollout; the old policy stays. ErrUnknown, ErrEnded, or the Target's error when the candidate could
// not be dropped at once: the Controller then goes on trying.
func (c *Controller) Abort(id, reason string) error {
	defer c.flush()
	return c.abort(id, reason)
}

// abort is Abort that leaves the journal to who calls it.
func (c *Controller) abort(id, reason string) error {
	r, err := c.find(id)
	if err != nil {
		return err
	}
	return r.control(func(st state) (state, []command) { return abort(st, reasonOr(reason)) })
}

// Promote makes the candidate the policy at once, whatever the evidence. ErrUnknown, ErrEnded (also when it is
// still pending: there is no candidate), or the Target's error, after which the old policy stays.
func (c *Controller) Promote(id, reason string) error {
	r, err := c.find(id)
	if err != nil {
		return err
	}
	defer c.flush()
	refused := false
	err = r.control(func(st state) (state, []command) {
		if st.phase == Pending || st.ending != "" {
			refused = true
			return st, nil
		}
		return end(st, Promoted, "by hand: "+reasonOr(reason))
	})
	if refused {
		return fmt.Errorf("%w: %s", ErrEnded, id)
	}
	r.holdBackIfPromoted()
	return err
}

// List is all rollouts, in the order in which they were started.
func (c *Controller) List() []Status {
	c.mu.Lock()
	all := append([]*run(nil), c.all...)
	c.mu.Unlock()
	list := make([]Status, len(all))
	for i, r := range all {
		list[i] = r.status()
	}
	return list
}

// Get is one rollout.
func (c *Controller) Get(id string) (Status, bool) {
	r, err := c.find(id)
	if err != nil {
		return Status{}, false
	}
	return r.status(), true
}

func (c *Controller) find(id string) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.all {
		if r.id == id {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
}

// Run drives the rollouts until ctx ends or Close is called. It then drops the candidates that are under way, so that
// each route is left with its old policy, and returns nil once that is done.
func (c *Controller) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.ran.Add(1)
	c.mu.Unlock()
	defer c.ran.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var drivers sync.WaitGroup
	drivers.Go(func() { c.holdInTurns(ctx) })
	ticker := time.NewTicker(holdbackEvery)
	defer ticker.Stop()
	for alive := true; alive; {
		for _, r := range c.fresh() {
			drivers.Go(func() { r.drive(ctx) })
		}
		select {
		case <-c.wake:
		case <-ticker.C:
			c.holdBackAll()
		case <-c.quit:
			alive = false
		case <-ctx.Done():
			alive = false
		}
	}
	cancel()
	c.shut()
	drivers.Wait()
	c.abortAll("the program ends")
	return nil
}

// Close ends Run as the end of its context does, and waits for it. Without a Run it ends what is pending.
func (c *Controller) Close() {
	if c.shut() {
		close(c.quit)
	}
	c.ran.Wait()
	c.abortAll("the program ends")
}

// shut refuses new rollouts; it reports whether they were accepted until now.
func (c *Controller) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closed
	c.closed = true
	return first
}

func (c *Controller) fresh() (list []*run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.all {
		if !r.driven {
			r.driven = true
			list = append(list, r)
		}
	}
	return list
}

func (c *Controller) abortAll(reason string) {
	defer c.flush() // once all are dropped
	for _, s := range c.List() {
		if s.Phase.Final() || c.suspended(s.ID) {
			continue
		}
		var err error
		for range lastTries {
			if err = c.abort(s.ID, reason); err == nil || errors.Is(err, ErrEnded) {
				err = nil
				break
			}
		}
		if err != nil {
			c.o.Log.Error("rollout: the candidate could not be dropped", "rollout", s.ID, "route", s.Route, "error", err)
			c.surrender(s.ID)
		}
	}
}

// surrender ends a rollout whose candidate cannot be dropped: it goes with the program, and the next one must not begin it anew.
func (c *Controller) surrender(id string) {
	if r, err := c.find(id); err == nil {
		_ = r.apply(func(st state) (state, []command) { return surrender(st), nil })
	}
}
