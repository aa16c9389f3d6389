package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	endpointCalls = 20  // of an endpoint, and of all its siblings together, fewer are no distribution
	endpointKnown = 5   // of a sibling, fewer do not make it one
	endpointWorse = 2.0 // times the siblings' tail, from where an endpoint is slow
	endpointMore  = int64(time.Millisecond)
	endpointFar   = 8   // calls beyond twice the siblings' tail, from where these alone may show it
	endpointSigma = 4.0 // standard deviations by which its slow calls must outnumber chance
	maxEndpoints  = 256 // of one operation; more are not told apart
)

// tries is the calls of one operation, by the endpoint that answered them.
type tries struct {
	took    map[string][]weighted
	silent  map[string]int     // calls that were given up
	slow    map[string][]int64 // critical ns of each call in the slow band
	segment trace.Segment
	missed  int      // calls that do not tell their endpoint
	pooled  []answer // see sort
}

// answer is a call, and the number of the endpoint that answered it.
type answer struct {
	weighted
	by int32
}

// slowEndpoint finds LP103: one endpoint of several whose calls take much longer than its siblings' calls of the
// same operation.
func slowEndpoint(v *view) []Finding {
	v = v.answered
	at, known := make(map[spot]*tries), make(map[int32]*tries)
	var lost []work
	for i := range v.samples {
		v.rest()
		s := &v.samples[i]
		var inclusive []int64
		if v.isSlow(i) {
			_, inclusive = s.critical()
		}
		for span := range s.tree.Spans {
			if v.try(at, known, s, span, inclusive) {
				lost = append(lost, work{sample: int32(i), span: int32(span)})
			}
		}
	}
	v.givenUp(at, lost)
	return findingsBySpot(at, func(key spot, x *tries) (Finding, bool) { return v.endpointFinding(key, x) })
}

// try notes span i if it is a call whose endpoint is known: from the calling side where that is recorded. It reports whether the call
// was given up and no span tells what was called.
//
// known is at by the number that the set has for the operation, which is found sooner.
func (v *view) try(at map[spot]*tries, known map[int32]*tries, from *sample, i int, inclusive []int64) (lost bool) {
	t := from.tree
	s := &t.Spans[i]
	served, ok := calls(t, i)
	switch {
	case ok:
	case t.Parent[i] >= 0 && entry(t, i) && s.Kind != trace.Consumer:
		if _, called := calls(t, int(t.Parent[i])); called {
			return false // counted there
		}
		served = i
	default:
		return false
	}
	if t.Why(i) == Canceled {
		return false // how fast it is called off says nothing of how fast it serves
	}
	silent := s.Failed && t.timedOut(i) // it would have taken longer still
	if s.Failed && !silent {
		return false // and neither does how fast it refuses
	}
	if silent && served < 0 {
		return true
	}
	answers, segment := i, trace.SegDownstream
	if served >= 0 {
		answers = served
	} else {
		segment = locate(t, i).segment
	}
	x := known[t.spots[answers]]
	if x == nil {
		key := v.spot(&t.Spans[answers])
		if x = at[key]; x == nil {
			x = &tries{took: make(map[string][]weighted), slow: make(map[string][]int64), silent: make(map[string]int), segment: segment}
			at[key] = x
		}
		known[t.spots[answers]] = x
	}
	x.add(endpoint(t, i, served), from, i, inclusive, silent)
	return false
}

func (x *tries) add(name string, from *sample, i int, inclusive []int64, silent bool) {
	took, seen := x.took[name]
	if name == "" || !seen && len(x.took) >= maxEndpoints {
		x.missed++
		return
	}
	s := &from.tree.Spans[i]
	x.took[name] = append(took, weighted{s.End - s.Start, from.stands()})
	if inclusive != nil && inclusive[i] > 0 {
		x.slow[name] = append(x.slow[name], inclusive[i])
	}
	if silent {
		x.silent[name]++
	}
}

// givenUp notes the calls that were given up before anything answered, among the answered ones of the same caller. Only a balancer
// tells which endpoint such a call went to: an address may be that of all.
func (v *view) givenUp(at map[spot]*tries, lost []work) {
	lost = slices.DeleteFunc(lost, func(w work) bool {
		t, _ := v.span(w)
		return t.attr(int(w.span), askEndpoint) == ""
	})
	if len(lost) == 0 {
		return
	}
	caller := func(t *Tree, i int) spot {
		if p := t.Parent[i]; p >= 0 {
			i = int(p)
		}
		return v.spot(&t.Spans[i])
	}
	answers := make(map[spot]spot) // by caller; zero = there are several
	for i := range v.samples {
		t := v.samples[i].tree
		for span := range t.Spans {
			if served, ok := calls(t, span); ok && served >= 0 && t.attr(span, askEndpoint) != "" {
				from, to := caller(t, span), v.spot(&t.Spans[served])
				if old, known := answers[from]; known && old != to {
					to = spot{}
				}
				answers[from] = to
			}
		}
	}
	for _, w := range lost {
		s := &v.samples[w.sample]
		t, i := s.tree, int(w.span)
		x := at[answers[caller(t, i)]]
		if x == nil {
			continue
		}
		var inclusive []int64
		if v.isSlow(int(w.sample)) {
			_, inclusive = s.critical()
		}
		x.add(endpoint(t, i, -1), s, i, inclusive, true)
	}
}

// endpoint names who answered the call that span i makes and span served serves; "" = unknown. What the balancer
// chose comes first, then the instance that answered, then the address, which may be that of a whole service.
func endpoint(t *Tree, i, served int) string {
	if name := t.attr(i, askEndpoint); name != "" {
		return name
	}
	if served >= 0 {
		if name := t.attr(served, askPod); name != "" {
			return name
		}
		if name := t.Spans[served].Host; name != "" {
			return name
		}
	}
	if i == served {
		return ""
	}
	name := t.attr(i, askAddress)
	if port := t.attr(i, askPort); name != "" && port != "" {
		name += ":" + port
	}
	return name
}

// tail is the quantile that n calls can still show.
func tail(n int) float64 {
	switch {
	case n >= 200:
		return 0.99
	case n >= 60:
		return 0.95
	}
	return 0.9
}

func (v *view) endpointFinding(key spot, x *tries) (Finding, bool) {
	var names []string
	for _, name := range ordered(x.took) {
		if len(x.took[name]) >= endpointKnown {
			names = append(names, name)
		}
	}
	if len(names) < 2 {
		return Finding{}, false
	}
	x.sort(names)
	worst, best := "", 0.0
	for _, name := range names {
		if excess := x.excess(name, names); excess > best {
			worst, best = name, excess
		}
	}
	if worst == "" {
		return Finding{}, false
	}
	return v.slowFinding(key, x, worst, names)
}

// sort puts the calls of the endpoints of these names in order: all together, and so those of each.
func (x *tries) sort(names []string) {
	own := make([][]weighted, len(names))
	for i, name := range names {
		for _, c := range x.took[name] {
			x.pooled = append(x.pooled, answer{c, int32(i)})
		}
		own[i] = x.took[name][:0]
	}
	slices.SortFunc(x.pooled, func(a, b answer) int { return byTime(a.weighted, b.weighted) })
	for _, c := range x.pooled {
		own[c.by] = append(own[c.by], c.weighted)
	}
	for i, name := range names {
		x.took[name] = own[i]
	}
}

// rest is the calls of all endpoints but one, in order.
func (x *tries) rest(but string, names []string) []weighted {
	by := int32(slices.Index(names, but))
	rest := make([]weighted, 0, len(x.pooled)-len(x.took[but]))
	for _, c := range x.pooled {
		if c.by != by {
			rest = append(rest, c.weighted)
		}
	}
	return rest
}

// standing is how many calls those of a sample stand for.
func standing(calls []weighted) (n float64) {
	for _, c := range calls {
		n += c.weight
	}
	return n
}

// excess is how many times slower the tail of name is than its siblings', or 0 where chance could have done it.
func (x *tries) excess(name string, names []string) float64 {
	own, rest := x.took[name], x.rest(name, names)
	if len(own) < endpointCalls || len(rest) < endpointCalls {
		return 0
	}
	q := tail(int(standing(own)))
	mine, theirs := weighedQuantile(own, q), weighedQuantile(rest, q)
	if float64(mine) < endpointWorse*float64(theirs) || mine-theirs < endpointMore {
		return 0
	}
	if !outnumber(own, rest, theirs, byChance(rest, theirs, q)) {
		far := int64(endpointWorse * float64(theirs)) // fewer calls may lie there, and their siblings' hardly ever do
		if longer(own, far) < endpointFar || !outnumber(own, rest, far, float64(longer(rest, far)+1)/float64(len(rest)+1)) {
			return 0
		}
	}
	return float64(mine) / float64(max(theirs, 1))
}

// outnumber reports whether more of own are longer than limit than chance would have it, where each of the siblings' calls rest is with
// probability p.
func outnumber(own, rest []weighted, limit int64, p float64) bool {
	n, m := float64(len(own)), float64(len(rest))
	return float64(longer(own, limit)) >= n*p+endpointSigma*math.Sqrt(n*p*(1-p)*(1+n/m))
}

// byChance is the probability that a call of an endpoint that is like its siblings lies above their quantile q. It is 1-q, unless
// the calls are a sample: that prefers slow traces, whichever endpoint made them slow.
func byChance(rest []weighted, limit int64, q float64) float64 {
	return max(1-q, float64(longer(rest, limit))/float64(len(rest)))
}

// above counts the sorted values greater than limit.
func above(sorted []int64, limit int64) int {
	i, _ := slices.BinarySearch(sorted, limit+1)
	return len(sorted) - i
}

// longer counts the calls, sorted, that took longer than limit.
func longer(sorted []weighted, limit int64) int {
	i, _ := slices.BinarySearchFunc(sorted, limit+1, func(c weighted, ns int64) int { return cmp.Compare(c.ns, ns) })
	return len(sorted) - i
}

func (v *view) slowFinding(key spot, x *tries, name string, names []string) (Finding, bool) {
	own, rest := x.took[name], x.rest(name, names)
	q := tail(int(standing(own)))
	mine, theirs := time.Duration(weighedQuantile(own, q)), time.Duration(weighedQuantile(rest, q))
	typical := weighedQuantile(rest, 0.5)
	lost := int64(0)
	for _, ns := range x.slow[name] {
		lost += max(0, ns-typical)
	}
	share := v.share(lost)
	if share < leastShare {
		return Finding{}, false
	}
	others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	label := "p" + strings.TrimSuffix(fmt.Sprintf("%.0f", 100*q), ".")
	f := Finding{
		Code: "LP103", Class: "dependency", Segment: x.segment, Service: key.service, Operation: key.operation,
		Verdict: Likely, Confidence: 0.8, ShareP99: share,
		Summary: fmt.Sprintf("endpoint %s of %s is slow: %s %s against %s of its %d siblings; it takes %s of the slow traces",
			name, key.service, label, duration(mine), duration(theirs), len(others), percent(share)),
		Evidence: []string{
			fmt.Sprintf("%s of %s: %s over %d calls; pooled siblings: %s over %d calls", label, name, duration(mine), len(own), duration(theirs), len(rest)),
			fmt.Sprintf("%d of its calls take longer than the siblings' %s; chance would give %.0f", longer(own, int64(theirs)), label, byChance(rest, int64(theirs), q)*float64(len(own))),
		},
		Detail: Detail{Endpoint: name, Others: others, Latency: theirs, Saved: v.perSlow(lost), Calls: float64(len(own)+len(rest)) / float64(len(v.samples))},
	}
	if n := x.silent[name]; n > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d of its calls were given up without an answer", n))
	}
	if p50 := weighedQuantile(own, 0.5); p50 < 2*typical {
		f.Evidence = append(f.Evidence, fmt.Sprintf("its typical call is no slower (p50 %s against %s): the tail alone is ill", duration(time.Duration(p50)), duration(time.Duration(typical))))
	}
	if len(own) >= 200 && mine >= 4*theirs {
		f.Confidence = 0.9
	}
	if len(others) == 1 {
		f.CounterEvidence = append(f.CounterEvidence, "it has one sibling only: that the slow one of the two is the ill one is taken for granted")
		f.Confidence -= 0.15
	}
	all := standing(own) + standing(rest)
	even := all / float64(len(names))
	if n := standing(own); n > 1.5*even || n < even/1.5 {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("calls are spread unevenly (%.0f of %.0f went there): it may get other work than its siblings", n, all))
		f.Confidence -= 0.1
	}
	if x.missed > 0 {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("%d calls do not tell their endpoint", x.missed))
	}
	return f, true
}
