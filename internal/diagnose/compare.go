package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// Comparison is what makes one set of traces slower than another.
type Comparison struct {
	Culprits []Culprit // most likely first (not always most excess first), one a service; empty, never nil, when no service stands out
	Notes    []string  // what a reader must know: that the sets do not differ, or cannot be compared
}

// The rules of the comparison. They are statistics, not thresholds of any one system.
const (
	minSamples = 4     // at a position in either set; fewer say nothing
	winsorAt   = 0.99  // values above this quantile count as this quantile, so that one outlier decides nothing
	errorsOff  = 2.0   // standard errors taken off a growth before it counts
	chance     = 0.001 // probability with which two equal sets would be told apart if times were normal, over all positions; real tails make it some 4 %
	growthSure = 0.1   // part of its healthy time that the surest position must have grown by
	alike      = 4.0   // edges that one service slows grow alike, up to this factor
)

// growth is how much longer one position takes in the suspect set.
type growth struct {
	at    edge
	calls int
	base  float64 // mean of the healthy set, ms
	mean  float64 // growth of the mean, ms; negative = faster
	err   float64 // its standard error, widened where there are few calls, ms
	sigma float64 // how far beyond chance it is, in standard deviations of the normal distribution
}

// sure is the growth that is left after doubt: the lower confidence bound, at least 0.
func (g growth) sure() float64 { return max(0, g.mean-errorsOff*g.err) }

// Compare finds the services that make suspect traffic slower than the baseline.
//
// It compares like with like: the time each service has for itself in each of its operations, and the time that
// each call between two operations spends on its way (the part of the client's span that the server's does not
// cover). Both are taken from critical paths only, per call, so a change in the mix of traffic is no growth; what
// occurs in one set alone is left out. The growth of a mean counts only beyond two standard errors, and is
// weighted by how often the suspect traces meet it.
//
// The growth of an edge is the callee's, unless the evidence speaks for the caller: all edges out of the caller
// grow alike, or other callers of the same callee see nothing. See [blameCaller].
func Compare(suspect, baseline []trace.Trace) Comparison {
	return compareTrees(build(suspect, ClockOptions{}), build(baseline, ClockOptions{}))
}

func build(traces []trace.Trace, o ClockOptions) []*Tree {
	trees := make([]*Tree, len(traces))
	for i, t := range traces {
		trees[i] = Build(t, o)
	}
	return trees
}

func compareTrees(suspect, baseline []*Tree) Comparison {
	n := newNamer()
	for _, t := range slices.Concat(suspect, baseline) {
		for i := range t.Spans {
			n.count(t.Spans[i].Service, t.Spans[i].Name)
		}
	}
	a, b := measure(suspect, n), measure(baseline, n)
	grown, alone := grow(a, b)
	c := Comparison{Culprits: []Culprit{}}
	if len(grown) == 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("nothing to compare: no operation occurs at least %d times in both the suspect and the baseline traces", minSamples))
		return c
	}
	if alone > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d of %d positions occur in too few traces of one set to be compared", alone, alone+len(grown)))
	}
	enough := quantileNormal(1 - chance/float64(len(grown)))
	if !slices.ContainsFunc(grown, func(g growth) bool { return g.sigma > enough && g.mean > growthSure*g.base }) {
		c.Notes = append(c.Notes, "the two sets do not differ: no operation or call is slower than in the baseline beyond chance")
		return c
	}
	c.Culprits = rank(grown, a.traces)
	return c
}

// grow compares the positions that both sets have, in a fixed order, and counts those that only one has.
func grow(suspect, baseline *tally) (grown []growth, alone int) {
	generalise(suspect, baseline)
	for at, s := range suspect.at {
		b := baseline.at[at]
		if b == nil || len(s.values) < minSamples || len(b.values) < minSamples {
			alone++
			continue
		}
		grown = append(grown, newGrowth(at, s.values, b.values))
	}
	slices.SortFunc(grown, func(a, b growth) int { return compareEdges(a.at, b.at) })
	return grown, alone
}

// generalise joins the shapes of an operation that are too rare in either set to be compared one by one.
func generalise(suspect, baseline *tally) {
	enough := func(c *tally, at edge) bool { return c.at[at] != nil && len(c.at[at].values) >= minSamples }
	rare := make(map[edge]bool)
	for _, c := range []*tally{suspect, baseline} {
		for at := range c.at {
			if at.shape != 0 && (!enough(suspect, at) || !enough(baseline, at)) {
				rare[at] = true
			}
		}
	}
	for _, c := range []*tally{suspect, baseline} {
		for at := range rare {
			if s := c.at[at]; s != nil {
				delete(c.at, at)
				c.series(at.general()).values = append(c.series(at.general()).values, s.values...)
			}
		}
	}
}

func compareEdges(a, b edge) int {
	return cmp.Or(cmp.Compare(a.caller, b.caller), cmp.Compare(a.operation, b.operation), cmp.Compare(a.callee, b.callee),
		cmp.Compare(a.target, b.target), cmp.Compare(a.segment, b.segment), cmp.Compare(a.shape, b.shape))
}

// newGrowth compares the values of one position; it sorts them. Times are skewed, so the means decide how much
// was lost, but whether anything was lost may show in their logarithms sooner.
func newGrowth(at edge, suspect, baseline []float64) growth {
	a, b := winsorised(suspect), winsorised(baseline)
	mean, err, free := welch(a, b)
	g := growth{at: at, calls: len(a), base: average(b), mean: mean, err: err * (1 + (errorsOff*errorsOff+1)/(4*free)), sigma: normal(mean, err, free)}
	if mean > 0 {
		g.sigma = max(g.sigma, normal(welch(logarithms(a), logarithms(b))))
	}
	return g
}

// winsorised sorts values and cuts them off at a high quantile.
func winsorised(values []float64) []float64 {
	slices.Sort(values)
	at := min(len(values)-1, int(winsorAt*float64(len(values))))
	for i := at; i < len(values); i++ {
		values[i] = values[at]
	}
	return values
}

func logarithms(values []float64) []float64 {
	const floor = 0.01 // ms; below that, clocks and scheduling are all there is
	logs := make([]float64, len(values))
	for i, v := range values {
		logs[i] = math.Log(max(v, 0) + floor)
	}
	return logs
}

func average(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// welch is the difference of two means, its standard error, and the degrees of freedom of their quotient.
//
// Source: B. L. Welch, The generalization of Student's problem when several different population variances are
// involved, Biometrika 34, 1947.
func welch(a, b []float64) (mean, err, free float64) {
	va, vb := squaredError(a), squaredError(b)
	free = 1
	if sum := va + vb; sum > 0 {
		free = sum * sum / (va*va/float64(len(a)-1) + vb*vb/float64(len(b)-1))
	}
	return average(a) - average(b), math.Sqrt(va + vb), free
}

// squaredError is the square of the standard error of the mean.
func squaredError(values []float64) float64 {
	mean, sum := average(values), 0.0
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	n := float64(len(values))
	return sum / (n - 1) / n
}

// normal turns a difference with its standard error and degrees of freedom into the deviation of a normal
// distribution that is as unlikely. A difference without any spread is beyond doubt.
//
// Source: D. L. Wallace, Bounds on normal approximations to Student's and the chi-square distributions, Annals of
// Mathematical Statistics 30, 1959.
func normal(mean, err, free float64) float64 {
	if mean <= 0 {
		return 0
	}
	if err == 0 {
		return math.Inf(1)
	}
	t := mean / err
	return (8*free + 1) / (8*free + 3) * math.Sqrt(free*math.Log1p(t*t/free))
}

// quantileNormal is the quantile p of the standard normal distribution.
func quantileNormal(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// link is all edges from one service to another, taken together.
type link struct {
	caller, callee string
	calls          float64
	sure           float64 // mean growth of a call beyond doubt, ms
	mean, err      float64 // mean growth of a call and its standard error, ms
}

// agrees reports whether l grew too when another edge of the same service grew by v.
func (l link) agrees(v float64) bool { return l.sure > 0 && l.mean*alike >= v }

// differs reports whether l surely did not grow as an edge did that grew by v.
func (l link) differs(v float64) bool { return (l.mean+errorsOff*l.err)*alike < v }

// links joins the edges between every two services.
func links(grown []growth) map[[2]string]*link {
	all := make(map[[2]string]*link)
	for _, g := range grown {
		if g.at.segment != trace.SegNetwork {
			continue
		}
		key := [2]string{g.at.caller, g.at.callee}
		l := all[key]
		if l == nil {
			l = &link{caller: key[0], callee: key[1]}
			all[key] = l
		}
		n := float64(g.calls)
		l.calls += n
		l.sure += n * g.sure()
		l.mean += n * g.mean
		l.err += n * n * g.err * g.err
	}
	for _, l := range all {
		l.sure /= l.calls
		l.mean /= l.calls
		l.err = math.Sqrt(l.err) / l.calls
	}
	return all
}

// blameCaller reports whether the growth of link l is the caller's doing.
//
// One edge alone cannot tell its two ends apart, but its neighbours can. A slow caller (its processor, its
// network) slows all its edges: that all of them grew alike speaks for it. A slow callee slows the edges from all
// its callers: that another caller sees nothing speaks for the caller, too, unless the caller's other edges are
// as fast as ever. In doubt it is the callee.
func blameCaller(l *link, all []*link) bool {
	var outAgree, outDiffer, inAgree, inDiffer int
	for _, o := range all {
		switch {
		case o == l:
		case o.caller == l.caller:
			count(o, l.sure, &outAgree, &outDiffer)
		case o.callee == l.callee:
			count(o, l.sure, &inAgree, &inDiffer)
		}
	}
	calleeHit := inAgree > 0 && inDiffer == 0
	return outDiffer == 0 && (outAgree > 0 && !calleeHit || inDiffer > 0 && inAgree == 0)
}

func count(l *link, v float64, agree, differ *int) {
	if l.agrees(v) {
		*agree++
	} else if l.differs(v) {
		*differ++
	}
}

// rank adds up what every service is to blame for and sorts them.
func rank(grown []growth, traces int) []Culprit {
	between := links(grown)
	edges := slices.SortedFunc(maps.Values(between), func(a, b *link) int {
		return cmp.Or(cmp.Compare(a.caller, b.caller), cmp.Compare(a.callee, b.callee))
	})
	toCaller := make(map[*link]bool)
	for _, l := range edges {
		toCaller[l] = l.sure > 0 && blameCaller(l, edges)
	}
	services := recorded(grown)
	by := make(map[string]*blame)
	total := 0.0
	for _, g := range grown {
		service, operation := g.owner(services), g.at.operation
		if g.at.segment == trace.SegNetwork {
			if toCaller[between[[2]string{g.at.caller, g.at.callee}]] {
				service = g.at.caller
			} else {
				operation = g.at.target
			}
		}
		b := by[service]
		if b == nil {
			b = &blame{operations: make(map[string]float64), segments: make(map[trace.Segment]float64)}
			by[service] = b
		}
		total += b.add(g, operation, float64(g.calls)/float64(traces))
	}
	return culprits(by, total)
}

// blame is what one service has to answer for, in ms of a mean suspect trace.
type blame struct {
	excess     float64 // beyond doubt
	base       float64 // healthy time of the positions that grew
	own        float64 // healthy time of the service's own code
	operations map[string]float64
	segments   map[trace.Segment]float64
}

func (b *blame) add(g growth, operation string, perTrace float64) (excess float64) {
	if g.at.segment == trace.SegService {
		b.own += perTrace * g.base
	}
	if excess = perTrace * g.sure(); excess > 0 {
		b.excess += excess
		b.base += perTrace * g.base
		b.operations[operation] += excess
		b.segments[g.at.segment] += excess
	}
	return excess
}

// weight is how likely the service is the cause: the time lost, times the order of magnitude by which it grew. Load
// and chance make everything somewhat slower, and long things by much; a fault makes something many times slower.
func (b *blame) weight() float64 { return b.excess * math.Log1p(b.excess/(b.base+0.01)) }

// culprits sorts the blamed services, most likely first. What is below a hundredth of all excess is left out.
func culprits(by map[string]*blame, total float64) []Culprit {
	list := []Culprit{}
	for service, b := range by {
		if b.excess <= total/100 {
			continue
		}
		segment := largest(b.segments)
		list = append(list, Culprit{
			Service: service, Operation: largest(b.operations), Segment: segment, Class: b.class(segment),
			ExcessMS: b.excess, Share: b.excess / total,
		})
	}
	slices.SortFunc(list, func(a, b Culprit) int {
		return cmp.Or(cmp.Compare(by[b.Service].weight(), by[a.Service].weight()), cmp.Compare(a.Service, b.Service))
	})
	return list
}

// Of a service's excess, and of its healthy time: either suspects its processor.
const (
	ownExcess = 0.2
	ownGrowth = 0.5
)

// class names the kind of cause as far as segments can tell. A starved processor slows the service's own code, and
// its answers and calls as well; a slow network leaves the code alone.
func (b *blame) class(segment trace.Segment) string {
	switch segment {
	case trace.SegDatabase, trace.SegCache:
		return "database"
	case trace.SegQueue:
		return "queueing"
	case trace.SegDownstream:
		return "dependency"
	}
	if own := b.segments[trace.SegService]; own > ownExcess*b.excess || own > ownGrowth*b.own {
		return "cpu"
	}
	return "network"
}

// largest is the key with the greatest value; of equals, the first by name.
func largest[K cmp.Ordered](m map[K]float64) K {
	var best K
	found := false
	for k, v := range m {
		if !found || v > m[best] || v == m[best] && k < best {
			best, found = k, true
		}
	}
	return best
}

// recorded is the names of all services that have spans of their own.
func recorded(grown []growth) map[string]bool {
	services := make(map[string]bool)
	for _, g := range grown {
		services[g.at.caller] = true
	}
	return services
}

// owner is the service whose time g is. A call that nobody recorded on the far side is the peer's; an address
// that is no name says nothing, and the time stays with the caller.
func (g growth) owner(services map[string]bool) string {
	at := g.at
	switch {
	case at.callee == "":
		return at.caller
	case at.segment == trace.SegNetwork || services[at.callee]:
		return at.callee
	}
	label, _, _ := strings.Cut(at.callee, ".")
	if services[label] {
		return label
	}
	if _, err := netip.ParseAddr(at.callee); err == nil || label == "localhost" {
		return at.caller
	}
	return at.callee
}
