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

// scene is what several rules look at, gathered once for a route.
type scene struct {
	own      map[sort][]work             // spans with time of their own on the critical path, none of whose calls failed, by what they do
	families []family                    // who calls whom
	spots    []spot                      // the callers
	targets  []place                     // what they call
	failing  []bool                      // by target: a call of it failed
	hurt     []bool                      // by caller: one of its calls failed, or was no first try
	canceled bool                        // a call was called off
	gaps     map[int32]map[int32]gap     // see view.gapBefore; nil until asked for
	side     map[string]bool             // see view.sideWork
	suspects []suspect                   // of own, those that take long, the largest part of the slow band first
	faint    []suspect                   // of own, those that only facts could make suspects
	refuted  map[place][]string          // why the time of a place is not what it looks like
	patience map[spot]map[place]*givenUp // see view.patience; nil until asked for
	fates    map[spot]*fates             // see view.fates; nil until asked for
}

// sort is what spans do: where they belong, and for databases the statement without its values, since one name may stand for many.
type sort struct {
	place
	statement string
}

// work is a span and the time that the critical path spends in it and in none of its children.
type work struct {
	sample, span int32
	self         int64 // ns
}

// family is the calls that one span makes, in time order.
type family struct {
	sample, parent int32
	where          int32 // the span's service and operation, in scene.spots
	calls          []attempt
}

// attempt is one call: a span that waits for another service, for a store or for a queue.
type attempt struct {
	span, served int32 // served = the span that serves it; -1 = none is recorded
	to           int32 // what it calls, in scene.targets
	start, end   int64
	failed       bool
}

// nearby is how many of a span's calls are compared with one of them: more of them cost time and tell nothing.
const nearby = 64

// look gathers the scene in one walk over the spans of the route.
func (v *view) look() *scene {
	if v.seen != nil {
		return v.seen
	}
	c := &scene{own: make(map[sort][]work)}
	v.seen = c
	g := gathering{view: v, scene: c, spots: make(map[spot]int32), targets: make(map[place]int32)}
	for n := range v.samples {
		v.rest()
		g.sample(int32(n))
	}
	c.suspects = v.suspicious(c)
	c.faint = v.faint(c)
	return c
}

// gathering is the scene in the making.
type gathering struct {
	view    *view
	scene   *scene
	spots   map[spot]int32
	targets map[place]int32
	self    []int64 // of the sample's spans, ns
	places  []place // of the sample's spans; what locate says, zero = not asked
}

func (g *gathering) sample(n int32) {
	s := &g.view.samples[n]
	t := s.tree
	g.self = append(g.self[:0], make([]int64, len(t.Spans))...)
	g.places = append(g.places[:0], make([]place, len(t.Spans))...)
	for _, x := range s.sections {
		g.self[x.Span] += x.End - x.Start
	}
	for i := range t.Spans {
		g.family(n, t, i)
		if g.self[i] == 0 || slices.ContainsFunc(t.Children(i), func(c int32) bool { return t.failed(int(c)) }) {
			continue // pauses between the tries of a call are nobody's work
		}
		at := sort{place: g.place(t, i)}
		if at.segment == trace.SegDatabase {
			at.statement = g.view.statement(t.attr(i, askQuery))
		}
		g.scene.own[at] = append(g.scene.own[at], work{n, int32(i), g.self[i]})
	}
}

// family takes in the calls of span i.
func (g *gathering) family(n int32, t *Tree, i int) {
	calls := g.callsOf(t, i)
	if len(calls) == 0 {
		return
	}
	f := family{n, int32(i), intern(g.spots, &g.scene.spots, g.view.spot(&t.Spans[i])), calls}
	g.scene.families = append(g.scene.families, f)
	if int(f.where) == len(g.scene.hurt) {
		g.scene.hurt = append(g.scene.hurt, false)
	}
	for _, a := range calls {
		g.scene.hurt[f.where] = g.scene.hurt[f.where] || a.failed || t.resent(int(a.span))
	}
}

// place is where the time of span i belongs.
func (g *gathering) place(t *Tree, i int) place {
	p := &g.places[i]
	if p.segment == "" {
		*p = locate(t, i)
		p.operation = g.view.names.name(p.service, p.operation)
	}
	return *p
}

// intern numbers key, and lists it at its number.
func intern[K comparable](numbers map[K]int32, list *[]K, key K) int32 {
	n, ok := numbers[key]
	if !ok {
		n = int32(len(*list))
		numbers[key] = n
		*list = append(*list, key)
	}
	return n
}

// maxTexts bounds how many texts of statements are remembered.
const maxTexts = 4096

// statement is the text of a statement without its values.
func (v *view) statement(text string) string {
	if text == "" {
		return ""
	}
	plain, known := v.plain[text]
	if !known {
		plain = withoutLiterals(text)
		if v.plain == nil {
			v.plain = make(map[string]string)
		}
		if len(v.plain) < maxTexts {
			v.plain[text] = plain
		}
	}
	return plain
}

// callsOf is the calls among the children of span i, in time order.
func (g *gathering) callsOf(t *Tree, i int) (list []attempt) {
	children := t.Children(i)
	if len(children) == 0 {
		return nil
	}
	s := &t.Spans[i]
	if served, ok := calls(t, i); ok && served >= 0 {
		return nil // the call itself: what serves it is no call of its own
	}
	for _, c := range children {
		child := &t.Spans[c]
		served, ok := calls(t, int(c))
		switch {
		case ok:
		case entry(t, int(c)) && child.Kind != trace.Consumer && child.Service != s.Service:
			served = int(c) // the caller's side is not recorded
		case len(t.Children(int(c))) == 0 && isStore(g.place(t, int(c)).segment):
			served = -1
		default:
			continue
		}
		a := attempt{span: c, served: int32(served), start: child.Start, end: child.End, failed: t.failed(int(c))}
		var to place
		if served >= 0 {
			answer := &t.Spans[served]
			a.failed = a.failed || served != int(c) && t.failed(served)
			to = place{trace.SegDownstream, answer.Service, g.view.names.name(answer.Service, answer.Name)}
		} else {
			to = g.place(t, int(c))
		}
		a.to = intern(g.targets, &g.scene.targets, to)
		g.scene.note(a, t.Why(int(c)) == Canceled)
		list = append(list, a)
	}
	return list
}

// note remembers what some rules need to have been seen at all.
func (c *scene) note(a attempt, off bool) {
	if int(a.to) == len(c.failing) {
		c.failing = append(c.failing, false)
	}
	if off {
		c.canceled = true
	} else if a.failed {
		c.failing[a.to] = true
	}
}

func isStore(segment trace.Segment) bool {
	return segment == trace.SegDatabase || segment == trace.SegCache || segment == trace.SegQueue
}

// target names what an attempt calls: the serving span's service and operation, or what the caller's span tells.
func (v *view) target(a attempt) place { return v.look().targets[a.to] }

// sameCall reports whether two calls of one span may be tries of the same thing: the caller's spans have one name and ask
// for the same, and where both callees are recorded they are one operation.
func sameCall(t *Tree, a, b attempt) bool {
	x, y := &t.Spans[a.span], &t.Spans[b.span]
	i, k := int(a.span), int(b.span)
	if x.Name != y.Name || t.attr(i, askQuery) != t.attr(k, askQuery) || t.path(i) != t.path(k) || t.attr(i, askPeer) != t.attr(k, askPeer) {
		return false
	}
	if a.served < 0 || b.served < 0 {
		return a.served == b.served || x.Kind == trace.Client
	}
	p, q := &t.Spans[a.served], &t.Spans[b.served]
	return p.Service == q.Service && p.Name == q.Name
}

// status is the HTTP status that span i tells; 0 = none.
func (t *Tree) status(i int) int {
	status, _ := strconv.Atoi(t.last(i, kindStatus))
	return status
}

// rpcStatus is the status code of gRPC that span i tells, as a number; 0 = fine, or none.
func (t *Tree) rpcStatus(i int) int {
	text := t.last(i, kindRPC)
	if text == "" {
		return 0
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		code = rpcCodes[strings.ReplaceAll(strings.ToLower(text[:min(len(text), 40)]), "_", "")]
	}
	return code
}

var rpcCodes = map[string]int{
	"cancelled": 1, "canceled": 1, "unknown": 2, "deadlineexceeded": 4, "resourceexhausted": 8, "aborted": 10, "internal": 13, "unavailable": 14,
}

// failed reports whether the call that span i stands for failed by the fault of who served it.
func (t *Tree) failed(i int) bool {
	if has, known := t.knows(i, markFailed); known {
		return has
	}
	if t.Spans[i].Failed {
		return true
	}
	if status := t.status(i); status >= 500 || status == 429 || status == 408 {
		return true
	}
	switch t.rpcStatus(i) {
	case 2, 4, 8, 13, 14:
		return true
	}
	return false
}

// complaint is what span i says of its error, in lower case.
func (t *Tree) complaint(i int) string {
	list := t.all(i, kindComplaint)
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	for _, k := range list {
		text := t.Spans[i].Attributes[k].Value
		b.WriteString(strings.ToLower(text[:min(len(text), 400)]))
		b.WriteByte(' ')
	}
	return b.String()
}

// says reports whether text holds one of the phrases.
func says(text string, phrases ...string) bool {
	return text != "" && slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(text, p) })
}

// timedOut reports whether span i tells that its caller gave up waiting.
func (t *Tree) timedOut(i int) bool {
	status := t.status(i)
	return t.rpcStatus(i) == 4 || status == 504 || status == 408 || says(t.complaint(i), "timeout", "timed out", "deadline", "timedout", "57014", "etimedout")
}

// instance names who worked on span i: its instance, pod or host, or "".
func (t *Tree) instance(i int) string {
	if name := t.attr(i, askInstance); name != "" {
		return name
	}
	return t.Spans[i].Host
}

// spread describes how long one kind of work takes.
type spread struct {
	n                  int
	p50, p90, p99, max int64
	limit              int64   // beyond it lies nothing that varies as the faster half does
	beyond             int     // how many lie there
	ratio              float64 // part of all that these stand for
}

// The shape of healthy work: beside its median it varies as widely upwards as downwards on a logarithmic scale.
const (
	fewWork    = 20               // fewer show no shape
	skewed     = 1.5              // times, that sigma may be larger in the slower half
	sigmaFloor = 0.15             // of the logarithm: less is taken for this
	leastTail  = 3                // works beyond the limit, from where there is a tail
	tailRatio  = 0.008            // of all works, the same; the slow band is 0.01
	tailFactor = 2.5              // times the median, below which nothing is beyond the limit
	tailMore   = time.Millisecond // more than the median, the same
)

// spreadOf describes sorted durations. The limit is the median times e^(k sigma), with sigma taken from the faster half, so that
// what is ill in the slower half does not hide itself; the slower half may raise it by a half, for sums of works are skewed. Healthy work, which is near log-normal or has a thinner tail, lies
// beyond it less often than once in 10,000 times; k is larger where few works make sigma uncertain.
//
// A work counts as often as its weight says; how many there are is counted as it is.
func spreadOf(sorted []weighted) spread {
	n := len(sorted)
	s := spread{n: n, limit: math.MaxInt64}
	if n == 0 {
		return s
	}
	s.p50, s.p90, s.p99, s.max = weighedQuantile(sorted, 0.5), weighedQuantile(sorted, 0.9), weighedQuantile(sorted, 0.99), sorted[n-1].ns
	if n < fewWork {
		return s
	}
	k := 4.0
	switch {
	case n < 50:
		k = 5.5
	case n < 200:
		k = 4.5
	}
	middle := math.Log(float64(max(s.p50, 1)))
	sigma := sigmaFloor
	for _, low := range []struct{ q, z float64 }{{0.1, 1.2816}, {0.25, 0.6745}} {
		sigma = max(sigma, (middle-math.Log(float64(max(weighedQuantile(sorted, low.q), 1))))/low.z)
	}
	up := (math.Log(float64(max(s.p90, 1))) - middle) / 1.2816
	sigma = max(sigma, min(up, skewed*sigma))
	factor := max(math.Exp(min(k*sigma, 40)), tailFactor)
	s.limit = int64(min(max(float64(s.p50)*factor, float64(s.p50)+float64(tailMore)), math.MaxInt64/2))
	whole, beyond := 0.0, 0.0
	for _, x := range sorted {
		whole += x.weight
		if x.ns > s.limit {
			beyond += x.weight
			s.beyond++
		}
	}
	s.ratio = ratio(beyond, whole)
	return s
}

// weighedQuantile is the nearest rank of sorted values that each stand for several; 0 when there are none.
func weighedQuantile(sorted []weighted, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	whole, sum := 0.0, 0.0
	for _, x := range sorted {
		whole += x.weight
	}
	for _, x := range sorted {
		if sum += x.weight; sum >= (q-rounding)*whole {
			return x.ns
		}
	}
	return sorted[len(sorted)-1].ns
}

// byTime puts shorter times first.
func byTime(a, b weighted) int {
	return cmp.Or(cmp.Compare(a.ns, b.ns), cmp.Compare(a.weight, b.weight))
}

// tailed reports whether too much lies beyond the limit for chance.
func (s spread) tailed() bool { return s.beyond >= leastTail && s.ratio >= tailRatio }

// suspect is a place whose work takes longer than it should.
type suspect struct {
	sort
	spread
	works    []work // in the order of samples
	constant bool   // always long, rather than now and then
	slow     int64  // ns of the slow band that the long works take
	excess   int64  // of it, what is more than the typical work
}

// long reports whether a work is one of those that take too long.
func (s *suspect) long(w work) bool { return s.constant || w.self > s.limit }

// always is the time from which work of a kind is long even if it always takes that long: there is no healthy traffic to
// compare with, so these are what operators of such systems set as limits, on the generous side.
func always(segment trace.Segment) int64 {
	switch segment {
	case trace.SegDatabase, trace.SegGateway:
		return int64(50 * time.Millisecond)
	case trace.SegCache:
		return int64(10 * time.Millisecond)
	case trace.SegNetwork:
		return int64(30 * time.Millisecond)
	}
	return int64(300 * time.Millisecond)
}

const (
	tailShare   = 0.15 // of the slow band, which the works of a tail must take
	alwaysShare = 0.3  // the same for works that are always long
)

// suspicious finds the places whose work has a tail that health does not have, or is long always.
func (v *view) suspicious(c *scene) (list []suspect) {
	for at, works := range c.own {
		s := suspect{sort: at, works: works}
		took := make([]weighted, len(works))
		for i, w := range works {
			took[i] = weighted{w.self, v.samples[w.sample].stands()}
		}
		slices.SortFunc(took, byTime)
		s.spread = spreadOf(took)
		s.constant = !s.tailed() && s.p50 >= always(at.segment)
		if !s.constant && !s.tailed() {
			continue
		}
		for _, w := range works {
			if v.isSlow(int(w.sample)) && s.long(w) {
				s.slow += w.self
				s.excess += max(0, w.self-s.p50)
			}
		}
		if s.constant {
			s.excess = s.slow
		}
		if share := v.share(s.slow); s.constant && share >= alwaysShare || !s.constant && share >= tailShare {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b suspect) int {
		return cmp.Or(cmp.Compare(b.slow, a.slow), byPlace(a.place, b.place), cmp.Compare(a.statement, b.statement))
	})
	return list
}

// faintest is the part of always from which a database is asked, where there are facts to ask.
const faintest = 10

// faint finds the calls of databases that are no suspects by their time alone, and yet a good part of the slow traces: whether
// 20 ms are a scan of the whole table or honest work only the server can tell. Only what it confirms may come of them.
func (v *view) faint(c *scene) (list []suspect) {
	if len(v.facts.Postgres) == 0 {
		return nil
	}
	for at, works := range c.own {
		if at.segment != trace.SegDatabase || slices.ContainsFunc(c.suspects, func(s suspect) bool { return s.sort == at }) {
			continue
		}
		s := suspect{sort: at, works: works, constant: true}
		took := make([]weighted, len(works))
		for i, w := range works {
			took[i] = weighted{w.self, v.samples[w.sample].stands()}
			if v.isSlow(int(w.sample)) {
				s.slow += w.self
			}
		}
		slices.SortFunc(took, byTime)
		s.spread, s.excess = spreadOf(took), s.slow
		if s.p50 >= always(at.segment)/faintest && v.share(s.slow) >= alwaysShare {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b suspect) int {
		return cmp.Or(cmp.Compare(b.slow, a.slow), byPlace(a.place, b.place), cmp.Compare(a.statement, b.statement))
	})
	return list
}

// of is the suspects of those segments.
func (c *scene) of(segments ...trace.Segment) (list []*suspect) {
	for i := range c.suspects {
		if slices.Contains(segments, c.suspects[i].segment) {
			list = append(list, &c.suspects[i])
		}
	}
	return list
}

// span gives the tree and the span of a work.
func (v *view) span(w work) (*Tree, *trace.Span) {
	t := v.samples[w.sample].tree
	return t, &t.Spans[w.span]
}

// finding starts a finding about a suspect.
func (v *view) finding(code, class string, s *suspect, confidence float64) Finding {
	f := Finding{
		Code: code, Class: class, Segment: s.segment, Service: s.service, Operation: s.operation,
		Verdict: Suspected, Confidence: confidence, ShareP99: v.share(s.slow),
		Detail: Detail{Saved: v.perSlow(s.excess), Latency: time.Duration(s.p50)},
	}
	if confidence >= 0.5 {
		f.Verdict = Likely
	}
	f.Evidence = append(f.Evidence, s.tells())
	return f
}

// tells puts the figures of a suspect in words.
func (s *suspect) tells() string {
	if s.constant {
		return "it is always long: p50 " + duration(time.Duration(s.p50)) + ", p99 " + duration(time.Duration(s.p99)) + " over " + strconv.Itoa(s.n) + " spans"
	}
	return strconv.Itoa(s.beyond) + " of " + strconv.Itoa(s.n) + " spans take more than " + duration(time.Duration(s.limit)) +
		", which the others do not come near: p50 " + duration(time.Duration(s.p50)) + ", p90 " + duration(time.Duration(s.p90)) + ", longest " + duration(time.Duration(s.max))
}

// confirm makes a finding sure: what was read from the system behind it leaves no other reading.
func (f *Finding) confirm(confidence float64, evidence string) {
	f.Verdict, f.Confidence = Confirmed, max(f.Confidence, confidence)
	f.Evidence = append(f.Evidence, evidence)
}

// doubt puts down what speaks against a finding, and what that takes from its confidence.
func (f *Finding) doubt(less float64, counter string) {
	f.Confidence = max(f.Confidence-less, 0.05)
	f.CounterEvidence = append(f.CounterEvidence, counter)
	if f.Confidence < 0.5 && f.Verdict == Likely {
		f.Verdict = Suspected
	}
}

// refute puts down why the time of a place is not what it looks like, for whoever speaks of that place in the end.
func (c *scene) refute(at place, why string) {
	if c.refuted == nil {
		c.refuted = make(map[place][]string)
	}
	c.refuted[at] = append(c.refuted[at], why)
}

func byPlace(a, b place) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation), cmp.Compare(a.segment, b.segment))
}
