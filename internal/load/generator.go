package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// The errors of this package.
var (
	ErrRan    = errors.New("load: a generator runs once")
	ErrPhases = errors.New("load: too many phases; at most 64")
)

// maxPhases bounds the memory of a run: a phase holds three histograms a target.
const maxPhases = 64

// Options is what a Generator works with. The zero value is ready to use.
type Options struct {
	// Transport sends the calls. nil = an HTTP/1.1 transport of the generator's own that keeps as many idle
	// connections as there may be calls in flight, so that connections are opened only to follow the load upwards.
	Transport http.RoundTripper
	// Spans takes the CLIENT span of each ended call, service "client"; the calls carry it as W3C traceparent.
	// It is called from many goroutines and must not block. nil = no spans, no header.
	Spans func([]trace.Span)
	// Precise lets the generator hold an operating system's thread and sleep on it to within some 60 µs of each arrival.
	// The timers of the Go runtime wake up to 1 ms late on an idle machine, which a response time from the intended start
	// would show. Not for tests with virtual time.
	Precise bool
}

// Generator sends the traffic of a plan. Its methods are safe for concurrent use.
type Generator struct {
	plan    Plan
	options Options
	host    string
	streams []*stream
	slots   chan struct{} // holds a token for each call on the wire; nil = no bound
	flying  atomic.Int64
	ran     atomic.Bool
	current atomic.Pointer[phase]

	transport http.RoundTripper // set by Run before anything uses it
	mu        sync.Mutex
	phases    []*phase
}

// phase is a named part of a run. took and since are guarded by Generator.mu; since is zero unless it is current
// and running.
type phase struct {
	name    string
	took    time.Duration
	since   time.Time
	tallies []tally
}

// New checks p and returns a generator whose first phase has the name "". Faults are all reported, joined.
func New(p Plan, o Options) (*Generator, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("load: plan: %w", err)
	}
	g := &Generator{plan: p.WithDefaults(), options: o}
	g.host, _ = os.Hostname() // unknown is allowed: it only names the clock
	for i, t := range g.plan.Targets {
		g.streams = append(g.streams, &stream{Target: t, index: i, random: rand.New(rand.NewPCG(g.plan.Seed, 2*uint64(i)+1))})
	}
	if n := g.plan.Concurrent; n > 0 {
		g.slots = make(chan struct{}, n)
	}
	if err := g.Begin(""); err != nil {
		return nil, err
	}
	return g, nil
}

// Begin makes name the phase of all arrivals from now on. Calls in flight stay in the phase in which they were due.
// A name that was used before continues that phase. ErrPhases after 64 different names.
func (g *Generator) Begin(name string) error {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.find(name)
	if next == nil {
		if len(g.phases) == maxPhases {
			return ErrPhases
		}
		next = &phase{name: name, tallies: make([]tally, len(g.streams))}
		g.phases = append(g.phases, next)
	}
	if old := g.current.Swap(next); old != nil && !old.since.IsZero() {
		old.took += now.Sub(old.since)
		old.since = time.Time{}
		next.since = now
	}
	return nil
}

// find is called with mu held.
func (g *Generator) find(name string) *phase {
	for _, p := range g.phases {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Phase is what came of the phase of that name up to now; it still grows a little after the phase has ended, until
// its calls in flight have. false = there is no such phase.
func (g *Generator) Phase(name string) (Snapshot, bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.find(name)
	if p == nil {
		return Snapshot{}, false
	}
	return g.snapshot(p, now), true
}

// Snapshot is what came of the whole run up to now, all phases together.
func (g *Generator) Snapshot() Snapshot {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.snapshot(g.phases[0], now)
	for _, p := range g.phases[1:] {
		next := g.snapshot(p, now)
		all.Took += next.Took
		for i := range all.Results {
			all.Results[i] = all.Results[i].add(next.Results[i])
		}
	}
	return all
}

// snapshot is called with mu held.
func (g *Generator) snapshot(p *phase, now time.Time) Snapshot {
	s := Snapshot{Took: p.took, Results: make([]Result, len(g.streams))}
	if !p.since.IsZero() {
		s.Took += now.Sub(p.since)
	}
	for i, stream := range g.streams {
		s.Results[i] = p.tallies[i].result(stream.Name)
	}
	return s
}

// clock starts or stops the current phase's time.
func (g *Generator) clock(running bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.current.Load()
	if running {
		p.since = now
	} else if !p.since.IsZero() {
		p.took += now.Sub(p.since)
		p.since = time.Time{}
	}
}

// Run sends the traffic until ctx ends, or all targets have: a replay without Loop does. Then it gives the calls in flight
// Plan.Drain, abandons the rest, and returns once every goroutine that it started has ended: nil, or why a recording could
// not be read. ErrRan when called twice.
func (g *Generator) Run(ctx context.Context) error {
	if !g.ran.CompareAndSwap(false, true) {
		return ErrRan
	}
	g.transport = g.options.Transport
	if g.transport == nil {
		own := &http.Transport{
			MaxIdleConnsPerHost: g.plan.MaxInFlight,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		}
		defer own.CloseIdleConnections()
		g.transport = own
	}
	calls, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	g.clock(true)
	start := time.Now()
	var drivers, workers sync.WaitGroup
	sources := g.sources()
	faults := make([]error, len(sources))
	for i, s := range sources {
		drivers.Go(func() { faults[i] = g.drive(ctx, calls, s, start, &workers) })
	}
	drivers.Wait()
	g.clock(false)
	stop := time.AfterFunc(g.plan.Drain, abandon)
	defer stop.Stop()
	workers.Wait()
	return errors.Join(faults...)
}

// drive sends the calls of one source when they are due. When it wakes late it sends what is overdue at once, each with
// its own intended start. The error is that of a recording.
func (g *Generator) drive(ctx, calls context.Context, s *source, start time.Time, workers *sync.WaitGroup) error {
	alarm := newAlarm(g.options.Precise)
	defer alarm.stop()
	if s.replay != nil {
		defer s.replay.close()
	}
	for {
		after, skipped, err := s.due()
		to := s.pick()
		tally := &g.current.Load().tallies[to.index]
		tally.skipped.Add(skipped)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if l := g.plan.Length; l > 0 && after >= l {
			alarm.wait(ctx, start.Add(l))
			return nil
		}
		due := start.Add(after)
		if !alarm.wait(ctx, due) {
			return nil
		}
		request, err := s.request(to) // drawn for dropped calls too, or a drop would change all later URLs
		tally = &g.current.Load().tallies[to.index]
		if to.inFlight.Add(1) > int64(g.plan.MaxInFlight) {
			to.inFlight.Add(-1)
			tally.dropped.Add(1)
			continue
		}
		g.flying.Add(1)
		workers.Go(func() {
			defer g.flying.Add(-1)
			defer to.inFlight.Add(-1)
			g.call(calls, to, tally, request, err, due)
		})
	}
}

// InFlight is how many calls have begun and not ended, those that wait for their turn among them.
func (g *Generator) InFlight() int64 { return g.flying.Load() }

// call makes one call and counts it; fault is why there is no request to send.
func (g *Generator) call(calls context.Context, s *stream, t *tally, request *http.Request, fault error, due time.Time) {
	ready := time.Now()
	if fault != nil {
		t.ended(due, ready, ready, time.Now(), outcome{code: -1, err: fmt.Errorf("%w: %w", errRequest, fault)})
		return
	}
	sent := ready
	if g.slots != nil {
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
			sent = time.Now()
		case <-calls.Done():
			t.unfinished.Add(1)
			return
		}
	}
	ctx, cancel := context.WithDeadline(calls, sent.Add(g.plan.Timeout))
	defer cancel()
	request = request.WithContext(ctx)
	var ids spanIDs
	if g.options.Spans != nil {
		ids = newSpanIDs()
		request.Header.Set("Traceparent", ids.traceparent())
	}
	out := exchange(g.transport, request, s.GRPC)
	end := time.Now()
	if out.err != nil && calls.Err() != nil {
		t.unfinished.Add(1)
		return
	}
	t.sentBytes.Add(uint64(max(request.ContentLength, 0)))
	t.ended(due, ready, sent, end, out)
	if g.options.Spans != nil {
		g.options.Spans([]trace.Span{clientSpan(ids, s.Target, g.host, request, out.status, out.err, sent, end)})
	}
}
