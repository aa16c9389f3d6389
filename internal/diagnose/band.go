package diagnose

import (
	"cmp"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// sample is one trace as its route sees it.
type sample struct {
	tree     *Tree
	root     int
	duration int64            // ns
	sections []Section        // the critical path of root
	pieces   []piece          // the same, added up by place
	calls    map[int][]remote // see remotes; nil until asked for
}

// piece is the critical time that a sample spends in one place.
type piece struct {
	place int32 // index into places.list
	ns    int64
}

// places numbers what the critical paths touch.
type places struct {
	index map[place]int32
	list  []place
	names *namer
}

func newPlaces(n *namer) *places { return &places{index: make(map[place]int32), names: n} }

func (p *places) number(at place) int32 {
	at.operation = p.names.name(at.service, at.operation)
	i, ok := p.index[at]
	if !ok {
		i = int32(len(p.list))
		p.index[at] = i
		p.list = append(p.list, at)
	}
	return i
}

// take measures the path of root.
func take(t *Tree, root int, p *places) sample {
	s := sample{tree: t, root: root, sections: t.Path(root)}
	span := &t.Spans[root]
	s.duration = span.End - span.Start
	for _, section := range s.sections {
		number, ns := p.number(locate(t, section.Span)), section.End-section.Start
		if i := slices.IndexFunc(s.pieces, func(x piece) bool { return x.place == number }); i >= 0 {
			s.pieces[i].ns += ns
			continue
		}
		s.pieces = append(s.pieces, piece{number, ns})
	}
	return s
}

// slowFew is how many of the slowest traces stand for the tail when a hundredth of them is fewer.
const slowFew = 5

// bandsOf picks from samples, sorted by duration, the typical ones (quantiles 0.40 to 0.60) and the slow ones
// (the slowest hundredth, but at least five, as far as there are so many). Below 500 traces the slow band is
// therefore wider than its name says: three traces tell nothing about a cause.
func bandsOf(samples []sample) (typical, slow []sample) {
	n := len(samples)
	if n == 0 {
		return nil, nil
	}
	from, to := int(math.Floor(0.4*float64(n))), int(math.Ceil(0.6*float64(n)))
	few := max((n+99)/100, min(slowFew, n))
	return samples[from:max(to, from+1)], samples[n-few:]
}

// quantile is the nearest rank of sorted values; 0 when there are none.
func quantile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func latency(samples []sample) Latency {
	sorted := make([]int64, len(samples))
	for i := range samples {
		sorted[i] = samples[i].duration
	}
	at := func(q float64) float64 { return ms(quantile(sorted, q)) }
	return Latency{P50: at(0.5), P90: at(0.9), P95: at(0.95), P99: at(0.99), P999: at(0.999), Max: at(1)}
}

// maxSegments is how many segments of a route are reported one by one; the smaller ones are joined by kind.
const maxSegments = 100

// segments adds up the pieces of both bands.
func segments(typical, slow []sample, p *places) []Segment {
	wholeTypical, byTypical := sum(typical)
	wholeSlow, bySlow := sum(slow)
	list := make([]Segment, 0, len(bySlow))
	for number, at := range p.list {
		a, b := byTypical[int32(number)], bySlow[int32(number)]
		if a == 0 && b == 0 {
			continue
		}
		list = append(list, Segment{
			Segment: at.segment, Service: at.service, Operation: at.operation,
			Share:      Bands{P50: ratio(float64(a), float64(wholeTypical)), P99: ratio(float64(b), float64(wholeSlow))},
			CriticalMS: Bands{P50: ratio(ms(a), float64(len(typical))), P99: ratio(ms(b), float64(len(slow)))},
		})
	}
	slices.SortFunc(list, bySlowShare)
	return joinSmall(list)
}

// sum is the time of all samples together, and by place, ns.
func sum(samples []sample) (whole int64, by map[int32]int64) {
	by = make(map[int32]int64)
	for i := range samples {
		whole += samples[i].duration
		for _, x := range samples[i].pieces {
			by[x.place] += x.ns
		}
	}
	return whole, by
}

func bySlowShare(a, b Segment) int {
	return cmp.Or(cmp.Compare(b.Share.P99, a.Share.P99), cmp.Compare(b.Share.P50, a.Share.P50),
		cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
}

// joinSmall keeps the list short and its shares whole.
func joinSmall(list []Segment) []Segment {
	if len(list) <= maxSegments {
		return list
	}
	rest := make(map[trace.Segment]*Segment)
	for _, s := range list[maxSegments:] {
		r := rest[s.Segment]
		if r == nil {
			r = &Segment{Segment: s.Segment, Operation: other}
			rest[s.Segment] = r
		}
		r.Share.P50 += s.Share.P50
		r.Share.P99 += s.Share.P99
		r.CriticalMS.P50 += s.CriticalMS.P50
		r.CriticalMS.P99 += s.CriticalMS.P99
	}
	list = slices.Clone(list[:maxSegments])
	for _, r := range rest {
		list = append(list, *r)
	}
	slices.SortFunc(list, bySlowShare)
	return list
}
