package fault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Why a fault was not started or stopped.
var (
	ErrRunning = errors.New("fault: one of that name runs already")
	ErrUnknown = errors.New("fault: none of that name runs")
	ErrTooMany = errors.New("fault: too many run at once; at most 16")
)

const (
	maxRunning = 16
	maxPast    = 32 // ended faults that a Set remembers
)

// Call is what a fault may know of one.
type Call struct {
	Method string
	Header http.Header
	Trace  string // id of the trace, 32 hex digits
}

// Effect is what a call suffers. Its zero value is nothing; Release must be called when the call has ended.
type Effect struct {
	Fault          string // its name
	Delay          time.Duration
	Status         int   // 0 = no abort
	Reset          Reset // "" = none
	ResetAfter     int64
	BytesPerSecond int64 // 0 = no limit
	Blackhole      bool
	Until          time.Time // when the fault ends, and with it a blackhole

	of *running
}

// Set is the faults of one route. The zero value is empty and ready; it is safe for concurrent use. Deciding takes no lock.
type Set struct {
	mu      sync.Mutex // serialises changes
	running atomic.Pointer[[]*running]
	past    []Status // oldest first
}

// running is one fault that was started. Its counters are of all calls of the route since then.
type running struct {
	cfg          Config
	began, ends  time.Time
	draws        atomic.Uint64 // calls that met the conditions
	hits, passed atomic.Uint64 // of draws: hit; passed because max_active suffered
	active       atomic.Int64
	halted       atomic.Bool // stopped is not ""

	mu      sync.Mutex // guards what follows
	window  window
	stopped string // why; "" = not yet
}

// Start makes c run from now on, until its TTL ends, its stop condition holds, or Stop. It returns the faults of c,
// ErrRunning or ErrTooMany.
func (s *Set) Start(now time.Time, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	list := s.list()
	if slices.ContainsFunc(list, func(r *running) bool { return r.cfg.Name == c.Name }) {
		return fmt.Errorf("%w: %q", ErrRunning, c.Name)
	}
	if len(list) >= maxRunning {
		return ErrTooMany
	}
	c = c.WithDefaults()
	s.store(append(slices.Clone(list), &running{cfg: c, began: now, ends: now.Add(c.TTL)}))
	return nil
}

// Stop ends a fault; what calls suffer already, they suffer to the end. It returns ErrUnknown.
func (s *Set) Stop(now time.Time, name, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	for _, r := range s.list() {
		if r.cfg.Name == name {
			r.halt(reason)
			s.sweep(now)
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrUnknown, name)
}

func (s *Set) list() []*running {
	if p := s.running.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *Set) store(list []*running) {
	if len(list) == 0 {
		s.running.Store(nil)
		return
	}
	s.running.Store(&list)
}

// sweep moves what has ended to the past. It is called with mu held.
func (s *Set) sweep(now time.Time) {
	var left []*running
	for _, r := range s.list() {
		if why := r.over(now); why != "" {
			s.past = append(s.past, r.status(now))
			continue
		}
		left = append(left, r)
	}
	if len(left) != len(s.list()) {
		s.store(left)
	}
	if n := len(s.past) - maxPast; n > 0 {
		s.past = slices.Delete(s.past, 0, n)
	}
}

// Idle reports that nothing runs, so that nothing need be asked or told.
func (s *Set) Idle() bool { return s.running.Load() == nil }

// Decide tells what a call suffers at a point: the effect of the oldest fault that hits it. endpoint is "" at AtCall.
func (s *Set) Decide(now time.Time, at Point, endpoint string, c Call) (Effect, bool) {
	p := s.running.Load()
	if p == nil {
		return Effect{}, false
	}
	ended := false
	for _, r := range *p {
		if r.halted.Load() || !now.Before(r.ends) {
			ended = true
			continue
		}
		if r.cfg.At != at || r.cfg.Endpoint != "" && r.cfg.Endpoint != endpoint || !r.meets(c) {
			continue
		}
		if e, ok := r.hit(); ok {
			return e, true
		}
	}
	if ended && s.mu.TryLock() {
		s.sweep(now)
		s.mu.Unlock()
	}
	return Effect{}, false
}

func (r *running) meets(c Call) bool {
	if len(r.cfg.Method) > 0 && !slices.Contains(r.cfg.Method, c.Method) {
		return false
	}
	for name, want := range r.cfg.Headers {
		values := c.Header.Values(name)
		if len(values) == 0 || want != "*" && !slices.Contains(values, want) {
			return false
		}
	}
	if t := r.cfg.Traces; t != nil {
		h := TraceHash(c.Trace)
		return h >= t.From && h < t.To
	}
	return true
}

// TraceHash places a trace id in [0, 1): everywhere and always at the same place, and evenly even where ids are not.
func TraceHash(id string) float64 {
	h := uint64(0xcbf29ce484222325) // FNV-1a
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 0x100000001b3
	}
	return float64(mix(h)>>11) / (1 << 53)
}

// hit draws whether a call that meets the conditions is one of the share, and what it suffers.
func (r *running) hit() (Effect, bool) {
	s := newStream(uint64(r.cfg.Seed), r.draws.Add(1))
	if s.unit() >= r.cfg.Share {
		return Effect{}, false
	}
	if r.active.Add(1) > int64(r.cfg.MaxActive) {
		r.active.Add(-1)
		r.passed.Add(1)
		return Effect{}, false
	}
	r.hits.Add(1)
	e := Effect{
		Fault: r.cfg.Name, Status: r.cfg.Abort, Reset: r.cfg.Reset, ResetAfter: r.cfg.ResetAfter, BytesPerSecond: r.cfg.BytesPerSecond,
		Blackhole: r.cfg.Blackhole, Until: r.ends, of: r,
	}
	if r.cfg.Delay != nil {
		e.Delay = r.cfg.Delay.draw(s)
	}
	return e, true
}

// Release says that what was hit has ended. Once for each Effect.
func (e Effect) Release() {
	if e.of != nil {
		e.of.active.Add(-1)
	}
}

// Observe counts one ended call of the route, hit or not; failed is what its client saw. It ends the faults whose stop
// condition holds and returns their names.
func (s *Set) Observe(now time.Time, failed bool) (stopped []string) {
	p := s.running.Load()
	if p == nil {
		return nil
	}
	for _, r := range *p {
		if r.observe(now, failed) {
			stopped = append(stopped, r.cfg.Name)
		}
	}
	if stopped != nil {
		s.mu.Lock()
		s.sweep(now)
		s.mu.Unlock()
	}
	return stopped
}

func (r *running) observe(now time.Time, failed bool) (stops bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, bad := r.window.add(now, failed)
	st := r.cfg.Stop
	if st == nil || r.stopped != "" || calls < st.MinCalls || float64(bad) <= st.ErrorRatio*float64(calls) {
		return false
	}
	r.stopped = fmt.Sprintf("stop condition: %d of %d calls failed, more than %g %%", bad, calls, 100*st.ErrorRatio)
	r.halted.Store(true)
	return true
}

func (r *running) halt(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped == "" {
		if r.stopped = strings.TrimSpace(reason); r.stopped == "" {
			r.stopped = "stopped"
		}
		r.halted.Store(true)
	}
}

// over says why a fault has ended; "" = it has not.
func (r *running) over(now time.Time) string {
	if !now.Before(r.ends) {
		r.halt("ttl")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// window counts the calls of the last 8 s to 10 s.
type window struct{ slots [5]windowSlot }

type windowSlot struct {
	number     int64
	calls, bad int
}

const slotWidth = 2 * time.Second

func (w *window) add(now time.Time, failed bool) (calls, bad int) {
	number := now.UnixNano() / int64(slotWidth)
	slot := &w.slots[number%int64(len(w.slots))]
	if slot.number != number {
		*slot = windowSlot{number: number}
	}
	slot.calls++
	if failed {
		slot.bad++
	}
	return w.sum(now)
}

func (w *window) sum(now time.Time) (calls, bad int) {
	number := now.UnixNano() / int64(slotWidth)
	for _, s := range w.slots {
		if s.number > number-int64(len(w.slots)) && s.number <= number {
			calls += s.calls
			bad += s.bad
		}
	}
	return calls, bad
}
