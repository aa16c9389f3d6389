package diagnose

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// alike is the factor up to which edges that one service slows grow alike.
const alike = 4.0

// link is all edges from one service to another, taken together.
type link struct {
	caller, callee string
	calls          float64
	mean, err      float64 // mean growth of a call and its standard error, ms
}

// grew reports whether l is more likely slower than not.
func (l link) grew() bool { return l.mean > l.err }

// agrees reports whether l grew too when another edge of the same service grew by v.
func (l link) agrees(v float64) bool { return l.grew() && l.mean*alike >= v }

// differs reports whether l surely did not grow as an edge did that grew by v.
func (l link) differs(v float64) bool { return (l.mean+2*l.err)*alike < v }

// links joins the edges between every two services.
func links(grown []growth, services map[string]bool) map[[2]string]*link {
	all := make(map[[2]string]*link)
	for _, g := range grown {
		key, ok := g.link(services)
		if !ok {
			continue
		}
		l := all[key]
		if l == nil {
			l = &link{caller: key[0], callee: key[1]}
			all[key] = l
		}
		n := float64(g.calls())
		l.calls += n
		l.mean += n * g.mean
		l.err += n * n * g.err * g.err
	}
	for _, l := range all {
		l.mean /= l.calls
		l.err = math.Sqrt(l.err) / l.calls
	}
	return all
}

// link is the two services that g lies between; false for what a service has for itself.
func (g growth) link(services map[string]bool) (key [2]string, ok bool) {
	if g.at.segment != trace.SegNetwork && g.at.segment != trace.SegDownstream {
		return key, false
	}
	callee := g.owner(services)
	return [2]string{g.at.caller, callee}, callee != g.at.caller
}

// suffering is the services whose own code, or whose statements, surely got slower by much.
func suffering(grown []growth, services map[string]bool) map[string]bool {
	const sure, much = 4, 0.5
	all := make(map[string]bool)
	for _, g := range grown {
		if _, between := g.link(services); !between && g.sigma > sure && g.mean > much*g.base {
			all[g.owner(services)] = true
		}
	}
	return all
}

// blameCaller reports whether the growth of link l is the caller's doing.
//
// One edge alone cannot tell its two ends apart, but its neighbours can. A slow caller (its processor, its
// network) slows all its edges: that all of them grew alike speaks for it, and that the calls to it did so, or its own
// work. The same speaks for a slow callee; that another of its callers sees nothing speaks for the caller, too, unless the
// caller's other edges are as fast as ever. In doubt it is the callee.
func blameCaller(l *link, all []*link, suffer map[string]bool) bool {
	var outAgree, outDiffer, inAgree, inDiffer, beyond int
	for _, o := range all {
		switch {
		case o == l:
		case o.caller == l.caller:
			count(o, l.mean, &outAgree, &outDiffer)
		case o.callee == l.callee:
			count(o, l.mean, &inAgree, &inDiffer)
		case o.callee == l.caller:
			count(o, l.mean, &outAgree, &beyond)
		case o.caller == l.callee:
			count(o, l.mean, &inAgree, &beyond)
		}
	}
	if suffer[l.caller] {
		outAgree++
	}
	if suffer[l.callee] {
		inAgree++
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

// blame is the positions that one service has to answer for.
type blame struct {
	service    string
	positions  []growth
	operations []string // that each of them is charged to
	found      scanned
	likely     float64
}

// rank charges every position to a service, and sorts the services that grew.
func rank(grown []growth, suspect *tally) []Culprit {
	services := recorded(grown)
	between, suffer := links(grown, services), suffering(grown, services)
	edges := slices.SortedFunc(maps.Values(between), func(a, b *link) int {
		return cmp.Or(cmp.Compare(a.caller, b.caller), cmp.Compare(a.callee, b.callee))
	})
	toCaller := make(map[*link]bool)
	for _, l := range edges {
		toCaller[l] = l.grew() && blameCaller(l, edges, suffer)
	}
	by := make(map[string]*blame)
	for _, g := range grown {
		service, operation := g.owner(services), g.at.operation
		if key, ok := g.link(services); ok {
			if toCaller[between[key]] {
				service = g.at.caller
			} else {
				operation = g.at.target
			}
		}
		b := by[service]
		if b == nil {
			b = &blame{service: service}
			by[service] = b
		}
		b.positions = append(b.positions, g)
		b.operations = append(b.operations, operation)
	}
	return culprits(by, suspect)
}

// The confidence of a scan, in units of log probability that are added to the logarithm of the number of choices it had.
const (
	sureOfAny  = 4.0 // that any service differs, over all services
	sureOfThis = 2.0 // that this one does, when one surely does
)

// scanned is the positions that together speak most for a service's growth, in ms of a mean suspect trace.
type scanned struct {
	chosen []int   // of the blame's positions
	excess float64 // lower confidence bound
	beyond float64 // what of it is more than drift; above 0 for a culprit
	likely float64 // the same at one standard error
	base   float64 // healthy time of the chosen positions
}

// scan finds the positions whose joint growth is greatest beyond doubt: the lower bound of their sum, at a confidence
// that grows with the number of ways to choose as many. Sorted by how sure each is, only the first k have to be tried. Many
// positions that each grew a little tell as much as one that surely did.
//
// Source: D. B. Neill, Fast subset scan for spatial pattern detection, Journal of the Royal Statistical Society B 74, 2012.
//
// As much as services drift apart does not count: twice the standard deviation for one, and more for any of many.
func (b *blame) scan(traces int, choices, confidence float64) scanned {
	drifting := 2 + math.Sqrt(2*choices)/2
	order := make([]int, 0, len(b.positions))
	for i, g := range b.positions {
		if g.sigma > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(b.positions[j].sigma, b.positions[i].sigma) })
	var best scanned
	var sum, square, base, doubt float64
	for k, i := range order {
		g := b.positions[i]
		perTrace := float64(g.calls()) / float64(traces)
		sum += perTrace * g.mean
		square += perTrace * perTrace * g.err * g.err
		base += perTrace * g.base
		doubt += perTrace * g.base * g.doubt
		quantile := math.Sqrt(2 * (choose(len(b.positions), k+1) + choices + confidence))
		excess := sum - quantile*math.Sqrt(square)
		if beyond := excess - drifting*doubt; beyond > best.beyond {
			best = scanned{order[:k+1], excess, beyond, sum - math.Sqrt(square) - drifting*doubt, base}
		}
	}
	return best
}

// culprits sorts the services that surely grew, most likely first. There are none when no service is sure over all of
// them. What is below a hundredth of all excess is left out.
func culprits(by map[string]*blame, suspect *tally) []Culprit {
	var guilty []*blame
	any, total := false, 0.0
	choices := math.Log(float64(len(by)))
	for _, service := range slices.Sorted(maps.Keys(by)) {
		b := by[service]
		any = any || b.scan(suspect.traces, choices, sureOfAny).beyond > 0
		if b.found = b.scan(suspect.traces, 0, sureOfThis); b.found.beyond > 0 {
			guilty = append(guilty, b)
			total += b.found.excess
			b.likely = b.likelihood(suspect)
		}
	}
	list := []Culprit{}
	if !any {
		return list
	}
	slices.SortStableFunc(guilty, func(a, b *blame) int { return cmp.Compare(b.likely, a.likely) })
	for _, b := range guilty {
		if b.found.excess > total/100 {
			list = append(list, b.culprit(total))
		}
	}
	return list
}

// likelihood orders services: the time lost in a trace that meets the service, times the order of magnitude by
// which it grew. Load and chance make everything somewhat slower, and long things by much; a fault makes something
// many times slower, however seldom it is called.
func (b *blame) likelihood(suspect *tally) float64 {
	met := max(suspect.met[b.service], 1)
	return b.found.likely * float64(suspect.traces) / float64(met) * math.Log1p(b.found.likely/(b.found.base+0.01))
}

func (b *blame) culprit(total float64) Culprit {
	operations, segments := make(map[string]float64), make(map[trace.Segment]float64)
	for _, i := range b.found.chosen {
		g := b.positions[i]
		grown := float64(g.calls()) * g.mean
		operations[b.operations[i]] += grown
		segments[g.at.segment] += grown
	}
	segment := largest(segments)
	return Culprit{
		Service: b.service, Operation: largest(operations), Segment: segment, Class: b.class(segment),
		ExcessMS: b.found.excess, Share: b.found.excess / total,
	}
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
