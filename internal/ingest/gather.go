package ingest

import (
	"sync"
	"sync/atomic"

	"github.com/longpole/longpole/internal/trace"
)

// A gatherer joins the spans of files to traces, in the order in which the traces first appear. Spans stay in the
// chunks they were decoded to until the end, and are then put in their places once. When they are too many, it
// samples; see sampler. It is not safe for concurrent use.
type gatherer struct {
	limits  Limits
	index   map[string]int32
	traces  []gathered
	chunks  []chunk
	last    int32 // the trace of the last span
	spans   int   // in chunks
	bytes   int64
	arrived int64 // spans so far, a clock of a kind

	sampler *sampler // nil until there was no room
	kept    []*assembly
	gone    remembered
	dropped Dropped
	logs    *logShelf
}

// gathered is a trace of which spans are in the chunks.
type gathered struct {
	id     string
	spans  int32
	bytes  int64
	latest int64 // when its last span arrived
}

// A chunk is spans as they were decoded, and the number of the trace of each.
type chunk struct {
	spans  []trace.Span
	traces []int32
}

func newGatherer(l Limits) *gatherer {
	return &gatherer{limits: l, index: make(map[string]int32), last: -1, gone: remembered{limit: 1 << 20}, logs: newLogShelf(l.Bytes / 8)}
}

// add takes chunks of spans, which take bytes of memory together, and returns how many spans they are.
func (g *gatherer) add(bytes int64, chunks ...[]trace.Span) (count int) {
	for _, spans := range chunks {
		count += len(spans)
	}
	if count == 0 {
		return 0
	}
	share := bytes / int64(count)
	for _, spans := range chunks {
		c := chunk{spans, make([]int32, len(spans))}
		for i := range spans {
			n := g.number(spans[i].TraceID)
			c.traces[i] = n
			t := &g.traces[n]
			t.spans++
			t.bytes += share
			t.latest = g.arrived + int64(i)
		}
		g.arrived += int64(len(spans))
		g.chunks = append(g.chunks, c)
	}
	g.spans += count
	g.bytes += bytes
	if held, room := g.held(), g.room(); held.spans > room.spans || held.bytes > room.bytes {
		g.spill(false)
	}
	return count
}

func (g *gatherer) number(id string) int32 {
	if g.last >= 0 && g.traces[g.last].id == id {
		return g.last
	}
	n, ok := g.index[id]
	if !ok {
		n = int32(len(g.traces))
		g.index[id] = n
		g.traces = append(g.traces, gathered{id: id})
	}
	g.last = n
	return n
}

func (g *gatherer) held() usage {
	u := usage{g.spans, g.bytes}
	if g.sampler != nil {
		u.spans += g.sampler.spans
		u.bytes += g.sampler.bytes
	}
	return u
}

func (g *gatherer) room() usage { return usage{g.limits.Spans, g.limits.Bytes} }

// spill moves the traces that seem whole to the sampler, which then keeps as many as take half of the room. A trace
// of which a span came among the last eighth waits on, unless these are too many or this is the end.
func (g *gatherer) spill(end bool) {
	if g.sampler == nil {
		g.sampler = newSampler(0)
	}
	young, room := g.arrived-int64(g.spans/8), usage{g.limits.Spans / 2, g.limits.Bytes / 2}
	if end {
		young, room = g.arrived, g.room()
	}
	placed, numbers := g.place(1)
	known := make(map[string]*assembly, len(g.kept))
	for _, t := range g.kept {
		known[t.ID] = t
	}
	late := trace.Trace{}
	for i := range placed {
		t := &placed[i]
		n := &numbers[i]
		switch old := known[t.ID]; {
		case old != nil:
			g.join(old, t, n)
		case g.gone.has(g.sampler.rank(t.ID)):
			g.dropped.LateSpans += uint64(len(t.Spans))
		case n.latest >= young && len(late.Spans)+len(t.Spans) <= g.limits.Spans/8:
			late.Spans = append(late.Spans, t.Spans...)
		default:
			g.decide(t, n)
		}
	}
	for (g.sampler.spans > room.spans || g.sampler.bytes > room.bytes) && g.sampler.thin(g.drop) {
	}
	g.keepOnly()
	if len(late.Spans) > 0 {
		bytes := int64(0)
		for i := range late.Spans {
			bytes += spanBytes(&late.Spans[i])
		}
		g.addQuietly(bytes, late.Spans)
	}
}

// addQuietly is add without a spill: it takes back what waits on.
func (g *gatherer) addQuietly(bytes int64, spans []trace.Span) {
	room := g.limits
	g.limits.Spans, g.limits.Bytes = 1<<62, 1<<62
	g.add(bytes, spans)
	g.limits = room
}

// join adds the spans of t to those of a trace that is kept.
func (g *gatherer) join(old *assembly, t *trace.Trace, n *gathered) {
	if room := max(g.limits.Spans/4-len(old.Spans), 0); len(t.Spans) > room || old.bytes > g.limits.Bytes/4 {
		if old.bytes > g.limits.Bytes/4 {
			room = 0
		}
		g.dropped.TraceSpans += uint64(len(t.Spans) - room)
		t.Spans = t.Spans[:room]
	}
	if len(t.Spans) == 0 {
		return
	}
	old.Spans = append(old.Spans, t.Spans...)
	old.compact = false
	old.bytes += n.bytes
	g.sampler.grow(old, len(t.Spans), n.bytes)
}

// decide gives a trace to the sampler.
func (g *gatherer) decide(t *trace.Trace, n *gathered) {
	if most := max(g.limits.Spans/4, 1); len(t.Spans) > most {
		g.dropped.TraceSpans += uint64(len(t.Spans) - most)
		t.Spans = t.Spans[:most:most]
	}
	a := &assembly{Trace: *t, bytes: n.bytes, rank: g.sampler.rank(t.ID)}
	if !g.sampler.decide(a) {
		g.drop(a)
		return
	}
	g.kept = append(g.kept, a)
}

func (g *gatherer) drop(t *assembly) {
	g.dropped.Traces++
	g.dropped.Spans += uint64(len(t.Spans))
	g.gone.add(t.rank)
	g.logs.drop(t.ID)
}

// keepOnly forgets the traces that the sampler has dropped, and gives the others memory of their own: what they were
// decoded from must go.
func (g *gatherer) keepOnly() {
	kept := g.kept[:0]
	for _, t := range g.kept {
		if t.route == nil {
			continue
		}
		g.sampler.pack.own(t)
		kept = append(kept, t)
	}
	clear(g.kept[len(kept):])
	g.kept = kept
}

// A shelf is traces whose spans share a piece of memory, from up to to, and where their spans stand among all.
type shelf struct{ from, to, at, spans int }

// shelvesOf puts traces on shelves of chunkSpans spans or more. next is where the first span of each stands.
func shelvesOf(traces []gathered) (shelves []shelf, next []int) {
	next = make([]int, len(traces))
	var x shelf
	for i := range traces {
		next[i] = x.at + x.spans
		x.spans += int(traces[i].spans)
		if x.to = i + 1; x.spans >= chunkSpans || x.to == len(traces) {
			shelves = append(shelves, x)
			x = shelf{from: x.to, at: x.at + x.spans}
		}
	}
	return shelves, next
}

// place empties the chunks into traces. It uses so many goroutines.
func (g *gatherer) place(workers int) ([]trace.Trace, []gathered) {
	numbers := g.traces
	traces := make([]trace.Trace, len(numbers))
	shelves, next := shelvesOf(numbers)
	from := make([]*trace.Span, g.spans)
	for _, c := range g.chunks {
		for k, n := range c.traces {
			from[next[n]] = &c.spans[k]
			next[n]++
		}
	}
	parallel(workers, len(shelves), func(i int) {
		x := &shelves[i]
		all := make([]trace.Span, x.spans)
		for k, s := range from[x.at : x.at+x.spans] {
			all[k] = *s
		}
		for k := x.from; k < x.to; k++ {
			n := int(numbers[k].spans)
			traces[k] = trace.Trace{ID: numbers[k].id, Spans: all[:n:n]}
			all = all[n:]
		}
	})
	g.index, g.traces, g.chunks, g.spans, g.bytes, g.last = make(map[string]int32), nil, nil, 0, 0, -1
	return traces, numbers
}

// finish returns all traces.
func (g *gatherer) finish(workers int) []trace.Trace {
	if g.sampler == nil {
		traces, _ := g.place(workers)
		return traces
	}
	g.spill(true)
	traces := make([]trace.Trace, len(g.kept))
	for i, t := range g.kept {
		t.Weight = t.weight()
		traces[i] = t.Trace
	}
	return traces
}

// parallel calls each for 0..n-1 on so many goroutines.
func parallel(workers, n int, each func(i int)) {
	if workers = min(workers, n); workers < 2 {
		for i := range n {
			each(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				each(i)
			}
		})
	}
	wg.Wait()
}
