package diagnose

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// AsyncPath is work that traces of a route start and do not wait for, of one kind: a path of its own.
type AsyncPath struct {
	Why        string        `json:"why"` // "message", "follows", "late", "outlives" or "linked"; see [Detached]
	Service    string        `json:"service"`
	Operation  string        `json:"operation"`
	Count      int           `json:"count"`       // times it was seen
	WaitMS     Spread        `json:"wait_ms"`     // from the end of what started it to its own start, milliseconds
	DurationMS Spread        `json:"duration_ms"` // milliseconds
	Path       []AsyncOnPath `json:"path"`        // what its critical path goes through, most first, at most ten
}

// AsyncOnPath is a part of a detached critical path.
type AsyncOnPath struct {
	Segment    trace.Segment `json:"segment"`
	Service    string        `json:"service"`
	Operation  string        `json:"operation"`
	Share      float64       `json:"share"`       // of the duration of all the work of that kind, 0..1
	CriticalMS float64       `json:"critical_ms"` // mean, milliseconds
}

// Queue is how long the messages of one destination wait for a consumer.
type Queue struct {
	System      string `json:"system"`      // "kafka"; "" = not told
	Destination string `json:"destination"` // topic or queue; "" = not told
	Messages    int    `json:"messages"`
	WaitMS      Spread `json:"wait_ms"` // from the producer's end to the consumer's start, or since the time of enqueuing, milliseconds
	// From says where the waits are from: "spans", "enqueued_time", or "both". Times of enqueuing often are in whole
	// seconds, and are not corrected for the difference of clocks.
	From string `json:"from"`
	// Early counts the messages that were received before they were sent, by clocks that no other call corrects.
	Early int `json:"early,omitempty"`
}

// Spread is how a figure is distributed: its quantiles by nearest rank.
type Spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// The bounds of the async part of a route.
const (
	maxAsync       = 50      // kinds of detached work, and destinations, in a report
	maxAsyncValues = 1 << 16 // values of one of them that its quantiles are from
	maxAsyncOnPath = 10
)

// weighted is a value that stands for several.
type weighted struct {
	ns     int64
	weight float64
}

// waits is values whose quantiles are asked for; those beyond the bound are not in them.
type waits struct{ list []weighted }

func (w *waits) add(ns int64, weight float64) {
	if len(w.list) < maxAsyncValues {
		w.list = append(w.list, weighted{ns, weight})
	}
}

func (w *waits) spread() (s Spread) {
	slices.SortFunc(w.list, func(a, b weighted) int { return cmp.Or(cmp.Compare(a.ns, b.ns), cmp.Compare(a.weight, b.weight)) })
	whole := 0.0
	for _, x := range w.list {
		whole += x.weight
	}
	sum, n := 0.0, len(w.list)
	for _, x := range w.list {
		if before := sum; before < 0.99*whole-rounding*whole {
			s.P99 = ms(x.ns)
			if before < 0.5*whole-rounding*whole {
				s.P50 = ms(x.ns)
			}
		}
		sum += x.weight
	}
	if n > 0 {
		s.Max = ms(w.list[n-1].ns)
	}
	return s
}

// asyncKey is what is one line of the report.
type asyncKey struct {
	why Detached
	spot
}

type asyncSum struct {
	asyncKey
	count        int
	wait, length waits
	stands       float64           // pieces of work it stands for
	whole        float64           // ns
	own          map[int32]float64 // ns by place
}

type queueKey struct{ system, destination string }

type queueSum struct {
	queueKey
	wait          waits
	early         int
	spans, stamps bool
}

// asyncOf is the detached work of a route.
type asyncOf struct {
	view   *view
	places *places
	kinds  map[asyncKey]*asyncSum
	queues map[queueKey]*queueSum
	paths  map[spanAt][]Section // of linked work, which several may be linked to
	cut    int
}

// async lists the detached work of a route, most time first, and the queues, by their p99. cut is how many pieces of
// work and messages are in neither because of the bounds.
func (v *view) async(p *places) (paths []AsyncPath, queues []Queue, cut int) {
	a := asyncOf{view: v, places: p, kinds: make(map[asyncKey]*asyncSum), queues: make(map[queueKey]*queueSum), paths: make(map[spanAt][]Section)}
	for i := range v.samples {
		v.rest()
		s := &v.samples[i]
		a.arrived(s)
		if v.passes != nil {
			a.linked(s)
		}
		if s.tree.detached == 0 {
			continue
		}
		for _, x := range s.tree.Async(s.root) {
			a.add(s, x)
		}
	}
	for _, k := range a.kinds {
		paths = append(paths, k.path(p))
	}
	slices.SortFunc(paths, func(a, b AsyncPath) int {
		return cmp.Or(cmp.Compare(b.DurationMS.P50*float64(b.Count), a.DurationMS.P50*float64(a.Count)),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Why, b.Why))
	})
	for _, q := range a.queues {
		queues = append(queues, q.queue())
	}
	slices.SortFunc(queues, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(b.WaitMS.P99, a.WaitMS.P99), cmp.Compare(a.System, b.System), cmp.Compare(a.Destination, b.Destination))
	})
	return paths, queues, a.cut
}

// add takes in one piece of detached work, and the message that it works on.
func (a *asyncOf) add(s *sample, x Async) {
	span := &s.tree.Spans[x.Span]
	switch {
	case x.Why == Message:
		a.received(s, &s.tree.Spans[x.Parent], span)
	case span.Kind == trace.Consumer && len(a.view.passes.sentBy(s.tree, x.Span)) == 0:
		a.received(s, nil, span)
	}
	a.work(s, x.Why, spanAt{s.tree, x.Span}, x.Wait, x.Sections)
}

// work takes in one piece of work that a sample did not wait for, with its critical path.
func (a *asyncOf) work(s *sample, why Detached, at spanAt, wait int64, path []Section) {
	t, span := at.tree, &at.tree.Spans[at.span]
	key := asyncKey{why, a.view.spot(span)}
	k := a.kinds[key]
	if k == nil {
		if len(a.kinds) == maxAsync {
			a.cut++
			return
		}
		k = &asyncSum{asyncKey: key, own: make(map[int32]float64)}
		a.kinds[key] = k
	}
	w := s.stands()
	k.count++
	k.stands += w
	k.wait.add(wait, w)
	k.length.add(span.End-span.Start, w)
	k.whole += w * float64(span.End-span.Start)
	for _, section := range path {
		k.own[a.places.of(t, section.Span)] += w * float64(section.End-section.Start)
	}
}

func (k *asyncSum) path(p *places) AsyncPath {
	path := AsyncPath{
		Why: k.why.String(), Service: k.service, Operation: k.operation, Count: k.count,
		WaitMS: k.wait.spread(), DurationMS: k.length.spread(), Path: []AsyncOnPath{},
	}
	mean := ratio(k.whole/1e6, k.stands)
	for number, ns := range k.own {
		at := p.list[number]
		share := ratio(ns, k.whole)
		path.Path = append(path.Path, AsyncOnPath{Segment: at.segment, Service: at.service, Operation: at.operation, Share: share, CriticalMS: share * mean})
	}
	slices.SortFunc(path.Path, func(a, b AsyncOnPath) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
	})
	path.Path = path.Path[:min(len(path.Path), maxAsyncOnPath)]
	return path
}

// The keys of messages, the current convention first.
var (
	keysSystem      = []string{"messaging.system"}
	keysDestination = []string{"messaging.destination.template", "messaging.destination.name", "messaging.destination", "message_bus.destination"}
)

// received takes in that a message was received; sent is its producer's span, nil where that is not there.
func (a *asyncOf) received(s *sample, sent, got *trace.Span) {
	wait, stamped, ok := waitInQueue(sent, got)
	if !ok {
		return
	}
	key := queueKey{got.Attr(keysSystem...), cmp.Or(destination(got), destinationOf(got.Name))}
	if sent != nil {
		key = queueKey{cmp.Or(key.system, sent.Attr(keysSystem...)), cmp.Or(key.destination, destination(sent), destinationOf(sent.Name))}
	}
	q := a.queues[key]
	if q == nil {
		if len(a.queues) == maxAsync {
			a.cut++
			return
		}
		q = &queueSum{queueKey: key}
		a.queues[key] = q
	}
	if wait < 0 {
		q.early++
	}
	q.stamps, q.spans = q.stamps || stamped, q.spans || !stamped
	q.wait.add(max(wait, 0), s.stands())
}

// destination is what s tells of it. The nameless one of RabbitMQ, "<default>", says nothing.
func destination(s *trace.Span) string {
	if name := s.Attr(keysDestination...); !strings.HasPrefix(name, "<") {
		return name
	}
	return ""
}

// destinationOf is what comes before the operation in a span's name, "" = nothing does.
func destinationOf(name string) string {
	if endsIn(name, "send", "publish", "process", "receive") {
		return name[:strings.LastIndexByte(name, ' ')]
	}
	return ""
}

func (q *queueSum) queue() Queue {
	from := "spans"
	if q.stamps {
		from = "enqueued_time"
		if q.spans {
			from = "both"
		}
	}
	return Queue{System: q.system, Destination: q.destination, Messages: len(q.wait.list), WaitMS: q.wait.spread(), From: from, Early: q.early}
}

// waitInQueue is how long a message waited, ns: from the end of the producer's span, or from when it was enqueued, if
// only that is told. Less than 0 = by these clocks it was received before it was sent.
func waitInQueue(sent, got *trace.Span) (ns int64, stamped, ok bool) {
	if sent != nil {
		ns = minus(got.Start, sent.End)
		if got.Start >= sent.Start {
			ns = max(ns, 0) // a producer's span may end after its message has arrived
		}
		return ns, false, true
	}
	for a := range got.All() {
		if strings.HasSuffix(a.Key, "enqueued_time") {
			if at, ok := instant(a.Value); ok {
				return minus(got.Start, at), true, true
			}
		}
	}
	return 0, false, false
}

// instant reads a point in time: RFC 3339, or a number since the Unix epoch in seconds, milli-, micro- or nanoseconds,
// which tell themselves apart by their size.
func instant(text string) (ns int64, ok bool) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.UnixNano(), true
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !(number > 1e8) || number > math.MaxInt64/2 {
		return 0, false
	}
	for number < 1e17 { // nanoseconds are more since 1973
		number *= 1000
	}
	return int64(number), true
}
