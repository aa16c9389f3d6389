package ingest

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// AssemblerConfig bounds an Assembler. The zero value means the defaults.
type AssemblerConfig struct {
	MaxSpans      int           // held in all; default 200,000
	MaxBytes      int64         // of memory they take, estimated; default 256 MiB
	MaxTraceSpans int           // of one trace; further ones are dropped; default 10,000, at most a quarter of MaxSpans; a quarter of MaxBytes holds too
	QuietPeriod   time.Duration // a trace is taken as whole when no span came for so long; default 5s
	Keep          time.Duration // a trace is forgotten when its last span is so old; default 15m
	Seed          uint64        // of the sample: assemblers with one seed keep the same traces, other things being equal
}

func (c AssemblerConfig) withDefaults() AssemblerConfig {
	if c.MaxSpans <= 0 {
		c.MaxSpans = 200_000
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 256 << 20
	}
	if c.MaxTraceSpans <= 0 {
		c.MaxTraceSpans = 10_000
	}
	c.MaxTraceSpans = max(min(c.MaxTraceSpans, c.MaxSpans/4), 1)
	if c.QuietPeriod <= 0 {
		c.QuietPeriod = 5 * time.Second
	}
	if c.Keep <= 0 {
		c.Keep = 15 * time.Minute
	}
	return c
}

// Dropped counts what an Assembler could not keep since it was made. Traces that grew
// older than AssemblerConfig.Keep are not counted: they had their time.
type Dropped struct {
	Traces     uint64 `json:"traces"`      // sampled out to make room; those that stay carry their weight
	Spans      uint64 `json:"spans"`       // of those traces
	LateSpans  uint64 `json:"late_spans"`  // came for a trace that had been dropped
	TraceSpans uint64 `json:"trace_spans"` // beyond MaxTraceSpans
	Logs       uint64 `json:"logs"`        // of dropped traces, or beyond 64 a trace
	// EarlyTraces were judged before they were quiet, since those that wait took more than half of the room. They are
	// not lost; but their slow or failed part may have come too late to count.
	EarlyTraces uint64 `json:"early_traces"`
	// JoinedRoutes counts traces of routes beyond 4,096 at a time, which are sampled as if they were one.
	JoinedRoutes uint64 `json:"joined_routes"`
}

// maxLogs bounds the log records of one trace.
const maxLogs = 64

// An Assembler joins live spans to traces, in bounded memory. It is safe for concurrent
// use, owns no goroutine and is told the time.
//
// While there is room, every trace is kept. When there is none, the whole window is thinned to a sample: the slow and
// the failed stay longest, of the others a uniform share, fair between routes; see trace.Trace.Weight. So the window
// does not grow shorter, and weighted percentiles mean what they say.
type Assembler struct {
	config AssemblerConfig

	mu      sync.Mutex
	traces  map[string]*assembly
	waiting queue // not quiet yet, nor decided
	kept    queue // decided
	pending usage // of the waiting
	sampler *sampler
	relaxed time.Time
	gone    remembered
	dropped Dropped
}

// usage is what some traces take.
type usage struct {
	spans int
	bytes int64
}

// NewAssembler returns an empty Assembler.
func NewAssembler(c AssemblerConfig) *Assembler {
	return &Assembler{config: c.withDefaults(), traces: make(map[string]*assembly), sampler: newSampler(c.Seed)}
}

// Add takes spans that arrive now. They are the Assembler's from then on. Their cost is
// a map look-up each, and now and then a walk through the traces of a route when room has to be made.
func (a *Assembler) Add(now time.Time, spans ...trace.Span) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	for i := range spans {
		a.add(now, &spans[i])
	}
}

// AddLogs takes log records that arrive now, and keeps each beside its trace: at most 64 a trace, the first ones.
// Records without a trace ID are not kept anywhere. Those of a trace that is not known wait for it.
func (a *Assembler) AddLogs(now time.Time, logs ...trace.Log) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	for i := range logs {
		l := &logs[i]
		if l.TraceID == "" {
			continue
		}
		t := a.find(now, l.TraceID)
		if t == nil || len(t.Logs) >= maxLogs {
			a.dropped.Logs++
			continue
		}
		l.TraceID = t.ID
		t.Logs = append(t.Logs, *l)
		a.grow(t, 0, int64(128+len(l.Body)+len(l.Exception)+len(l.SpanID)))
	}
}

// find returns the trace of that ID, made when it is new and touched in any case; nil when it was dropped.
func (a *Assembler) find(now time.Time, id string) *assembly {
	t, ok := a.traces[id]
	if !ok {
		rank := a.sampler.rank(id)
		if a.gone.has(rank) {
			return nil
		}
		t = &assembly{Trace: trace.Trace{ID: id}, first: now, rank: rank}
		a.traces[id] = t
		t.bytes = 256
		a.pending.bytes += t.bytes
		a.waiting.push(t)
	} else if now.After(t.last) {
		q := a.queueOf(t)
		q.remove(t)
		q.push(t)
	}
	t.last = now
	return t
}

func (a *Assembler) queueOf(t *assembly) *queue {
	if t.route != nil {
		return &a.kept
	}
	return &a.waiting
}

func (a *Assembler) add(now time.Time, s *trace.Span) {
	t := a.find(now, s.TraceID)
	if t == nil {
		a.dropped.LateSpans++
		return
	}
	if len(t.Spans) >= a.config.MaxTraceSpans || t.bytes > a.config.MaxBytes/4 {
		a.dropped.TraceSpans++
		return
	}
	if t.route != nil && s.Parent == "" && t.halved == 0 {
		a.reopen(t)
	}
	s.TraceID = t.ID
	t.Spans = append(t.Spans, *s)
	t.compact = false
	a.grow(t, 1, spanBytes(s))
}

// reopen lets a decided trace wait again: the span that names its route has come.
func (a *Assembler) reopen(t *assembly) {
	a.sampler.forget(t)
	a.kept.remove(t)
	a.waiting.push(t)
	a.pending.spans += len(t.Spans)
	a.pending.bytes += t.bytes
}

// grow accounts for what was added to t, and makes room for it.
func (a *Assembler) grow(t *assembly, spans int, bytes int64) {
	t.bytes += bytes
	if t.route != nil {
		a.sampler.grow(t, spans, bytes)
	} else {
		a.pending.spans += spans
		a.pending.bytes += bytes
	}
	if u := a.held(); u.spans > a.config.MaxSpans || u.bytes > a.config.MaxBytes {
		a.makeRoom()
	}
}

func (a *Assembler) held() usage {
	return usage{a.pending.spans + a.sampler.spans, a.pending.bytes + a.sampler.bytes}
}

// settle decides about the traces that are quiet, and forgets those that are too old.
func (a *Assembler) settle(now time.Time) {
	for t := a.waiting.head; t != nil && now.Sub(t.last) >= a.config.QuietPeriod; t = a.waiting.head {
		if len(t.Spans) > 0 {
			a.decide(t)
			continue
		}
		if now.Sub(t.first) < a.config.Keep { // logs alone wait on for their spans, behind the others
			a.waiting.remove(t)
			t.last = now
			a.waiting.push(t)
			continue
		}
		a.release(t)
	}
	for t := a.kept.head; t != nil && now.Sub(t.last) > a.config.Keep; t = a.kept.head {
		a.release(t)
	}
	if now.Sub(a.relaxed) < a.config.Keep/16 {
		return
	}
	a.relaxed = now
	a.sampler.prune()
	if u := a.held(); u.spans < a.config.MaxSpans/2 && u.bytes < a.config.MaxBytes/2 {
		a.sampler.relax()
	}
}

// decide moves a waiting trace to the kept ones, or drops it.
func (a *Assembler) decide(t *assembly) {
	a.waiting.remove(t)
	a.pending.spans -= len(t.Spans)
	a.pending.bytes -= t.bytes
	if len(t.Spans) > 0 && a.sampler.decide(t) {
		a.kept.push(t)
		return
	}
	a.drop(t)
}

// release forgets a trace that had its time.
func (a *Assembler) release(t *assembly) {
	delete(a.traces, t.ID)
	a.queueOf(t).remove(t)
	if t.route != nil {
		a.sampler.forget(t)
		return
	}
	a.pending.spans -= len(t.Spans)
	a.pending.bytes -= t.bytes
}

// makeRoom samples until 7/8 of the room is used. Traces that are not quiet yet are judged early, the oldest first,
// when they take more than half of it.
func (a *Assembler) makeRoom() {
	for {
		u := a.held()
		if u.spans <= a.config.MaxSpans/8*7 && u.bytes <= a.config.MaxBytes/8*7 {
			return
		}
		early := a.pending.spans > a.config.MaxSpans/2 || a.pending.bytes > a.config.MaxBytes/2
		if !early && a.sampler.thin(func(t *assembly) { a.kept.remove(t); a.drop(t) }) {
			continue
		}
		t := a.waiting.head
		if t == nil {
			return
		}
		if len(t.Spans) > 0 {
			a.dropped.EarlyTraces++
		}
		a.decide(t)
	}
}

// drop forgets a trace for want of room. It is in no queue any more.
func (a *Assembler) drop(t *assembly) {
	delete(a.traces, t.ID)
	a.dropped.Logs += uint64(len(t.Logs))
	if len(t.Spans) > 0 {
		a.dropped.Traces++
		a.dropped.Spans += uint64(len(t.Spans))
		a.gone.add(t.rank)
	}
}

// Window returns the traces whose last span came within since before now and that have
// been quiet for QuietPeriod, in the order of their arrival. A span that comes later still joins
// its trace, which is then in a later Window again. The spans are copies; their
// attributes are shared and must not be changed.
func (a *Assembler) Window(now time.Time, since time.Duration) []trace.Trace {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	var found []*assembly
	for t := a.kept.head; t != nil; t = t.behind {
		if quiet := now.Sub(t.last); quiet >= a.config.QuietPeriod && quiet <= min(since, a.config.Keep) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(x, y *assembly) int {
		return cmp.Or(x.first.Compare(y.first), cmp.Compare(x.ID, y.ID))
	})
	traces := make([]trace.Trace, len(found))
	for i, t := range found {
		traces[i] = trace.Trace{ID: t.ID, Spans: slices.Clone(t.Spans), Weight: t.weight(), Logs: slices.Clone(t.Logs)}
	}
	return traces
}

// Held returns how many traces and spans are in memory.
func (a *Assembler) Held() (traces, spans int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.traces), a.held().spans
}

// Dropped returns what could not be kept so far.
func (a *Assembler) Dropped() Dropped {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.dropped
	d.JoinedRoutes = a.sampler.joined
	return d
}

// maxGone bounds the memory of dropped traces.
const maxGone = 1 << 16

// remembered is the ranks of the last traces that were dropped, so that late spans do not make new ones.
type remembered struct {
	set   map[uint64]struct{}
	ring  []uint64 // the same, oldest at next once it is full
	next  int
	limit int // 0 = maxGone
}

func (g *remembered) has(rank uint64) bool {
	_, ok := g.set[rank]
	return ok
}

func (g *remembered) add(rank uint64) {
	if g.set == nil {
		g.set = make(map[uint64]struct{})
	}
	if g.has(rank) {
		return
	}
	most := g.limit
	if most == 0 {
		most = maxGone
	}
	if len(g.ring) < most {
		g.ring = append(g.ring, rank)
	} else {
		delete(g.set, g.ring[g.next])
		g.ring[g.next] = rank
		g.next = (g.next + 1) % most
	}
	g.set[rank] = struct{}{}
}
