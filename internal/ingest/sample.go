package ingest

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// An assembly is one trace as far as it is known.
type assembly struct {
	trace.Trace
	first, last time.Time // arrival of spans; zero for files
	bytes       int64     // of its spans and logs
	rank        uint64    // a hash of the ID

	route   *route // nil = not decided yet
	at      int    // its place in route.kept
	rare    bool   // slow or failed: kept longer
	halved  uint8  // it was kept with a probability of 1 in 2^halved
	compact bool   // its texts hold no memory of other traces'
	seen    bool   // its duration was counted in a route

	before, behind *assembly // in a queue
}

// A queue is a list of assemblies, those that were quiet for longest at the front.
type queue struct{ head, tail *assembly }

func (q *queue) push(t *assembly) {
	t.before, t.behind = q.tail, nil
	if q.tail != nil {
		q.tail.behind = t
	} else {
		q.head = t
	}
	q.tail = t
}

func (q *queue) remove(t *assembly) {
	if t.before != nil {
		t.before.behind = t.behind
	} else {
		q.head = t.behind
	}
	if t.behind != nil {
		t.behind.before = t.before
	} else {
		q.tail = t.before
	}
	t.before, t.behind = nil, nil
}

const (
	maxSampled = 4096 // routes told apart by a sampler; the others share one
	rareBonus  = 5    // the slow and the failed are kept with up to 2^rareBonus times the probability of the others
	slowRatio  = 0.05 // the share of a route's traces that counts as slow
	slowFrom   = 50   // traces after which a route knows what is slow
)

// A sampler holds whole traces and, when they are too many, keeps a sample of them: of every route the slow and the
// failed before the others, and of each of these two kinds a uniform share. What it keeps carries its weight, 1 over
// the probability of being kept, so that weighted counts and quantiles stay unbiased.
//
// The probability of a route is a power of 1/2. When room is needed, the route that takes the most of it is halved. A
// trace is kept when a hash of its ID and the seed lies below its probability: who survives one halving is no less
// likely to survive the next, the traces of an hour ago are thinned by the same rule as those of now, and two samplers
// with one seed agree about every trace.
//
// Source: consistent probability sampling (OpenTelemetry), Horvitz-Thompson weights; the slow are told by a quantile
// of the route's traces before this one, so that a trace has no say in its own probability.
type sampler struct {
	seed   uint64
	routes map[routeName]*route
	all    []*route // in the order of their first trace
	traces int
	spans  int
	bytes  int64
	joined uint64 // traces of routes that are not told apart
	pack   compactor
}

type routeName struct{ service, operation string }

// A route is the traces that begin with one operation.
type route struct {
	kept    []*assembly
	bytes   int64
	halved  uint8 // how often its probability was halved
	lengths lengths
}

func newSampler(seed uint64) *sampler {
	return &sampler{seed: seed, routes: make(map[routeName]*route)}
}

// rank is where a trace stands among all, evenly spread.
//
// It is FNV-1a with the last step of MurmurHash3, which spreads what IDs that count up leave close together.
func (s *sampler) rank(id string) uint64 {
	h := s.seed ^ 14695981039346656037
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// root is the span that a trace's route is named after: the first to start of those without a parent, or of all.
func root(spans []trace.Span) *trace.Span {
	best := &spans[0]
	for i := range spans[1:] {
		s := &spans[i+1]
		if (s.Parent == "") != (best.Parent == "") {
			if s.Parent == "" {
				best = s
			}
			continue
		}
		if s.Start < best.Start || s.Start == best.Start && s.ID < best.ID {
			best = s
		}
	}
	return best
}

// decide puts a whole trace into its route. It returns false when the trace is not kept.
func (s *sampler) decide(t *assembly) bool {
	top := root(t.Spans)
	r := s.route(top)
	length := top.Duration()
	t.rare = top.Failed || r.lengths.slow(length)
	if !t.seen {
		r.lengths.add(length)
		t.seen = true
	}
	if !t.survives(r.halved) {
		return false
	}
	t.route, t.at = r, len(r.kept)
	r.kept = append(r.kept, t)
	r.bytes += t.bytes
	s.traces++
	s.spans += len(t.Spans)
	s.bytes += t.bytes
	if r.halved > 0 {
		s.pack.own(t) // most of those that it was decoded with are not kept
	}
	return true
}

func (s *sampler) route(top *trace.Span) *route {
	name := routeName{top.Service, top.Name}
	r := s.routes[name]
	if r != nil {
		return r
	}
	if len(s.routes) >= maxSampled {
		s.joined++
		name = routeName{}
		if r = s.routes[name]; r != nil {
			return r
		}
	}
	r = &route{}
	s.routes[routeName{strings.Clone(name.service), strings.Clone(name.operation)}] = r
	s.all = append(s.all, r)
	return r
}

// survives reports whether t is kept by a route that was halved so often, and notes its probability.
func (t *assembly) survives(halved uint8) bool {
	if t.rare {
		halved -= min(halved, rareBonus)
	}
	if halved <= t.halved {
		return true
	}
	if halved >= 64 || t.rank>>(64-halved) != 0 {
		return false
	}
	t.halved = halved
	return true
}

// weight is 1 over the probability that t was kept with; 0 = 1, it was never in doubt.
func (t *assembly) weight() float64 {
	if t.halved == 0 {
		return 0
	}
	return math.Ldexp(1, int(t.halved))
}

// forget takes t out of its route.
func (s *sampler) forget(t *assembly) {
	r := t.route
	last := r.kept[len(r.kept)-1]
	r.kept[t.at], last.at = last, t.at
	r.kept[len(r.kept)-1] = nil
	r.kept = r.kept[:len(r.kept)-1]
	r.bytes -= t.bytes
	s.traces--
	s.spans -= len(t.Spans)
	s.bytes -= t.bytes
	t.route = nil
}

// grow accounts for spans or logs that were added to a kept trace.
func (s *sampler) grow(t *assembly, spans int, bytes int64) {
	t.route.bytes += bytes
	s.spans += spans
	s.bytes += bytes
}

// thin halves the probability of the route that takes the most room and gives each trace that is not kept any longer
// to drop. It returns false when there is nothing left that could go: one trace is always kept.
func (s *sampler) thin(drop func(*assembly)) bool {
	var most *route
	for _, r := range s.all {
		if len(r.kept) > 0 && (most == nil || r.bytes > most.bytes) {
			most = r
		}
	}
	if most == nil || s.traces < 2 || most.halved >= 64+rareBonus {
		return false
	}
	most.halved++
	for i := len(most.kept) - 1; i >= 0 && s.traces > 1; i-- {
		t := most.kept[i]
		if !t.survives(most.halved) {
			s.forget(t)
			drop(t)
		} else {
			s.pack.own(t)
		}
	}
	return true
}

// relax lets the routes keep twice as many of the traces to come.
func (s *sampler) relax() {
	for _, r := range s.all {
		r.halved -= min(r.halved, 1)
	}
}

// prune makes room for new routes in the place of those that have no trace any more.
func (s *sampler) prune() {
	if len(s.all) < maxSampled {
		return
	}
	maps.DeleteFunc(s.routes, func(_ routeName, r *route) bool { return len(r.kept) == 0 })
	s.all = slices.DeleteFunc(s.all, func(r *route) bool { return len(r.kept) == 0 })
}

// lengths is a histogram of durations in steps of a quarter of an octave, in which the old fades.
type lengths struct {
	n     uint32
	steps [4 * 48]uint32 // of ns, up to 2^48 = 78 hours
}

func step(d time.Duration) int {
	if d < 4 {
		return 0
	}
	octave := bits.Len64(uint64(d)) - 1
	return min(octave*4+int(uint64(d)>>(octave-2)&3), len(lengths{}.steps)-1)
}

func (l *lengths) add(d time.Duration) {
	l.steps[step(d)]++
	if l.n++; l.n < 8192 {
		return
	}
	l.n = 0
	for i := range l.steps {
		l.steps[i] /= 2
		l.n += l.steps[i]
	}
}

// slow reports whether d belongs to the slowest slowRatio of what was added. A route that has one duration only has
// none that is slow.
func (l *lengths) slow(d time.Duration) bool {
	if l.n < slowFrom {
		return false
	}
	at, above := step(d), uint32(0)
	for _, n := range l.steps[at:] {
		above += n
	}
	return float64(above) <= slowRatio*float64(l.n)
}

// A compactor gives a trace memory of its own. Decoded texts and lists stand in slabs beside those of other traces,
// and one trace that is kept would hold them all.
type compactor struct {
	texts  map[string]string
	shared map[*trace.Shared]*trace.Shared // by what they were, which they hold: only few
}

// maxPacked bounds the texts that a compactor shares between traces, and maxRepacked the attributes that their spans have in
// common.
const (
	maxPacked   = 1 << 14
	maxRepacked = 1 << 8
)

// own gives t memory of its own, unless it has it.
func (c *compactor) own(t *assembly) {
	if !t.compact {
		t.compact = true
		c.trace(&t.Trace)
	}
}

func (c *compactor) trace(t *trace.Trace) {
	if c.texts == nil || len(c.texts) > maxPacked {
		c.texts = make(map[string]string)
	}
	n := 0
	for i := range t.Spans {
		n += len(t.Spans[i].Attributes)
	}
	list := make([]trace.Attribute, 0, n)
	var own strings.Builder
	id := func(text string) string {
		if own.Cap()-own.Len() < len(text) {
			own = strings.Builder{}
			own.Grow(max(len(text), min(20*len(t.Spans), 1<<10)))
		}
		from := own.Len()
		own.WriteString(text)
		return own.String()[from:]
	}
	t.ID = strings.Clone(t.ID)
	spans := make([]trace.Span, len(t.Spans))
	for i := range spans {
		spans[i] = t.Spans[i]
		s := &spans[i]
		s.TraceID, s.ID, s.Parent = t.ID, id(s.ID), id(s.Parent)
		s.Service, s.Name, s.Host = c.text(s.Service), c.text(s.Name), c.text(s.Host)
		from := len(list)
		for _, a := range s.Attributes {
			list = append(list, trace.Attribute{Key: c.text(a.Key), Value: c.text(a.Value)})
		}
		s.Attributes = list[from:len(list):len(list)]
		if s.Shared != nil {
			s.Shared = c.repack(s.Shared)
		}
	}
	t.Spans = spans
}

// repack is x in memory of its own.
func (c *compactor) repack(x *trace.Shared) *trace.Shared {
	own, ok := c.shared[x]
	if !ok {
		if c.shared == nil || len(c.shared) >= maxRepacked {
			c.shared = make(map[*trace.Shared]*trace.Shared)
		}
		own = x.With(c.text)
		c.shared[x] = own
	}
	return own
}

func (c *compactor) text(s string) string {
	if len(s) > maxShared {
		return strings.Clone(s)
	}
	if own, ok := c.texts[s]; ok {
		return own
	}
	s = strings.Clone(s)
	if len(c.texts) < maxPacked {
		c.texts[s] = s
	}
	return s
}
