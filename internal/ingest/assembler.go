package ingest

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// AssemblerConfig bounds an Assembler. The zero value means the defaults.
type AssemblerConfig struct {
	MaxSpans      int           // held in all; default 200,000
	MaxBytes      int64         // of memory they take, estimated; default 256 MiB
	MaxTraceSpans int           // of one trace; further ones are dropped; default 10,000, at most a quarter of MaxSpans
	QuietPeriod   time.Duration // a trace is taken as whole when no span came for so long; default 5s
	Keep          time.Duration // a trace is forgotten when its last span is so old; default 15m
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
	Traces     uint64 `json:"traces"`      // to make room
	Spans      uint64 `json:"spans"`       // of those traces
	LateSpans  uint64 `json:"late_spans"`  // came for a trace that had been dropped
	TraceSpans uint64 `json:"trace_spans"` // beyond MaxTraceSpans
}

// An Assembler joins live spans to traces, in bounded memory. It is safe for concurrent
// use, owns no goroutine and is told the time.
//
// While there is room, every trace is kept. When there is none, the oldest traces are dropped until 7/8 of the room is
// used: the window grows shorter, and what is left in it stays a fair picture, whose percentiles mean what they say.
type Assembler struct {
	config AssemblerConfig
	seed   maphash.Seed

	mu      sync.Mutex
	traces  map[string]*assembly
	spans   int
	bytes   int64
	swept   time.Time
	gone    map[uint64]struct{} // hashes of dropped trace IDs, so that late spans do not make new traces
	goneLog []uint64            // the same as a ring, oldest at goneAt
	goneAt  int
	dropped Dropped
}

// An assembly is one trace as far as it is known.
type assembly struct {
	trace.Trace
	first, last time.Time // arrival
	bytes       int64
	rank        uint64 // a hash of the ID
}

// maxGone bounds the memory of dropped traces.
const maxGone = 1 << 16

// NewAssembler returns an empty Assembler.
func NewAssembler(c AssemblerConfig) *Assembler {
	return &Assembler{
		config: c.withDefaults(), seed: maphash.MakeSeed(),
		traces: make(map[string]*assembly), gone: make(map[uint64]struct{}),
	}
}

// Add takes spans that arrive now. They are the Assembler's from then on. Their cost is
// a map look-up each, and now and then a sort of all traces when room has to be made.
func (a *Assembler) Add(now time.Time, spans ...trace.Span) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep(now)
	for i := range spans {
		a.add(now, &spans[i])
	}
}

func (a *Assembler) add(now time.Time, s *trace.Span) {
	t, ok := a.traces[s.TraceID]
	if !ok {
		rank := maphash.String(a.seed, s.TraceID)
		if _, late := a.gone[rank]; late {
			a.dropped.LateSpans++
			return
		}
		t = &assembly{Trace: trace.Trace{ID: s.TraceID}, first: now, rank: rank}
		a.traces[s.TraceID] = t
	}
	t.last = now
	if len(t.Spans) >= a.config.MaxTraceSpans {
		a.dropped.TraceSpans++
		return
	}
	s.TraceID = t.ID
	size := spanBytes(s)
	t.Spans = append(t.Spans, *s)
	t.bytes += size
	a.spans++
	a.bytes += size
	if a.spans > a.config.MaxSpans || a.bytes > a.config.MaxBytes {
		a.trim()
	}
}

// spanBytes estimates the memory of a span; shared texts are counted as if they were not.
func spanBytes(s *trace.Span) int64 {
	n := 256 + len(s.TraceID) + len(s.ID) + len(s.Parent) + len(s.Service) + len(s.Name) + len(s.Host)
	for _, a := range s.Attributes {
		n += 32 + len(a.Key) + len(a.Value)
	}
	return int64(n)
}

// sweep forgets what is too old, at most every sixteenth of Keep.
func (a *Assembler) sweep(now time.Time) {
	if now.Sub(a.swept) < a.config.Keep/16 {
		return
	}
	a.swept = now
	for _, t := range a.traces {
		if now.Sub(t.last) > a.config.Keep {
			a.forget(t)
		}
	}
}

func (a *Assembler) forget(t *assembly) {
	delete(a.traces, t.ID)
	a.spans -= len(t.Spans)
	a.bytes -= t.bytes
}

// trim drops the oldest traces until 7/8 of the room is used.
func (a *Assembler) trim() {
	all := make([]*assembly, 0, len(a.traces))
	for _, t := range a.traces {
		all = append(all, t)
	}
	slices.SortFunc(all, func(x, y *assembly) int {
		return cmp.Or(x.first.Compare(y.first), cmp.Compare(x.rank, y.rank))
	})
	for _, t := range all {
		if a.spans <= a.config.MaxSpans/8*7 && a.bytes <= a.config.MaxBytes/8*7 {
			return
		}
		a.drop(t)
	}
}

func (a *Assembler) drop(t *assembly) {
	a.dropped.Traces++
	a.dropped.Spans += uint64(len(t.Spans))
	a.forget(t)
	if len(a.goneLog) < maxGone {
		a.goneLog = append(a.goneLog, t.rank)
	} else {
		delete(a.gone, a.goneLog[a.goneAt])
		a.goneLog[a.goneAt] = t.rank
		a.goneAt = (a.goneAt + 1) % maxGone
	}
	a.gone[t.rank] = struct{}{}
}

// Window returns the traces whose last span came within since before now and that have
// been quiet for QuietPeriod, in the order of their arrival. A span that comes later still joins
// its trace, which is then in a later Window again. The spans are copies; their
// attributes are shared and must not be changed.
func (a *Assembler) Window(now time.Time, since time.Duration) []trace.Trace {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep(now)
	var found []*assembly
	for _, t := range a.traces {
		if quiet := now.Sub(t.last); quiet >= a.config.QuietPeriod && quiet <= min(since, a.config.Keep) && len(t.Spans) > 0 {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(x, y *assembly) int {
		return cmp.Or(x.first.Compare(y.first), cmp.Compare(x.ID, y.ID))
	})
	traces := make([]trace.Trace, len(found))
	for i, t := range found {
		traces[i] = trace.Trace{ID: t.ID, Spans: slices.Clone(t.Spans)}
	}
	return traces
}

// Held returns how many traces and spans are in memory.
func (a *Assembler) Held() (traces, spans int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.traces), a.spans
}

// Dropped returns what could not be kept so far.
func (a *Assembler) Dropped() Dropped {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}
