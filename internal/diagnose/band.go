package diagnose

import (
	"cmp"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// sample is one trace as its route sees it.
type sample struct {
	tree      *Tree
	root      int
	operation int32     // the number of the root's
	failed    bool      // the root did
	duration  int64     // ns
	weight    float64   // traces it stands for; 0 = 1
	sections  []Section // the critical path of root
	pieces    []piece   // the same, added up by place
	calls     []remote  // see remotes; nil until asked for
	order     []int     // see critical; nil until asked for
	inclusive []int64   // the same
}

// piece is the critical time that a sample spends in one place.
type piece struct {
	place int32 // index into places.list
	ns    int64
}

// places numbers what the critical paths touch. It is not changed once it is made.
type places struct {
	list    []place
	names   *namer
	renamed []int32 // by the number that the trees' place has
}

// newPlaces numbers the places of trees, with the names that n gives them.
func newPlaces(known []place, n *namer) *places {
	p := &places{names: n, renamed: make([]int32, len(known))}
	index := make(map[place]int32, len(known))
	for i, at := range known {
		at.operation = n.name(at.service, at.operation)
		p.renamed[i] = intern(index, &p.list, at)
	}
	return p
}

// of is the number of the place where the time of span i belongs.
func (p *places) of(t *Tree, i int) int32 { return p.renamed[t.places[i]] }

// taker measures paths, in the memory of those before.
type taker struct {
	places *places
	walk   walk
	pieces []piece
	slot   []int32 // the index in pieces of each place, plus 1; 0 = it has none

	// What the samples keep is cut from larger pieces of memory.
	sections roll[Section]
	kept     roll[piece]
}

func newTaker(p *places) *taker { return &taker{places: p, slot: make([]int32, len(p.list))} }

// take measures the path of the first root of a tree, which has one.
func (p *taker) take(t *Tree) sample {
	root := t.Roots[0]
	s := sample{tree: t, root: root, weight: t.Weight, sections: t.walked}
	if s.sections == nil {
		p.walk.of(t, root)
		s.sections = p.sections.keep(p.walk.path)
	}
	span := &t.Spans[root]
	s.operation, s.failed, s.duration = t.spots[root], span.Failed, span.End-span.Start
	p.pieces = p.pieces[:0]
	for _, section := range s.sections {
		number, ns := p.places.of(t, section.Span), section.End-section.Start
		if p.slot[number] == 0 {
			p.pieces = append(p.pieces, piece{place: number})
			p.slot[number] = int32(len(p.pieces))
		}
		p.pieces[p.slot[number]-1].ns += ns
	}
	for _, x := range p.pieces {
		p.slot[x.place] = 0
	}
	s.pieces = p.kept.keep(p.pieces)
	return s
}

// slowFew is how many of the slowest traces stand for the tail when a hundredth of them is fewer.
const slowFew = 5

// bands is the parts of a route's samples that are compared. They are slices of one list.
type bands struct {
	typical []sample // quantiles 0.40 to 0.60
	high    []sample // 0.95 to 0.99
	slow    []sample // the slowest hundredth
}

// bandsOf picks the bands from samples, which are sorted by duration. A trace counts as often as its weight says.
//
// The slow and the high band hold at least five traces each, as far as there are so many: three traces tell nothing
// about a cause. Below 500 traces the slow band is therefore wider than its name says. Where no trace is left between
// them the high band is the slow one.
func bandsOf(samples []sample) (b bands) {
	n := len(samples)
	if n == 0 {
		return b
	}
	whole := weigh(samples)
	slow := tailOf(samples, whole/100, slowFew)
	rest := samples[:n-len(slow)]
	b.slow, b.high = slow, slow
	if len(rest) > 0 {
		b.high = tailOf(rest, whole/20-weigh(slow), slowFew)
	}
	from, to, before := n, n, 0.0
	for i := range samples {
		after := before + samples[i].stands()
		if from == n && after > 0.4*whole {
			from = i
		}
		if before >= 0.6*whole-rounding*whole {
			to = i
			break
		}
		before = after
	}
	b.typical = samples[from:max(to, from+1)]
	return b
}

// rounding is what sums of weights may be off by, as a part of them.
const rounding = 1e-12

// tailOf is the last of samples that together weigh at least weight, and at least few of them.
func tailOf(samples []sample, weight float64, few int) []sample {
	at, sum := len(samples), 0.0
	for at > 0 && (len(samples)-at < few || sum < weight-rounding*weight) {
		at--
		sum += samples[at].stands()
	}
	return samples[at:]
}

// weigh is how many traces the samples stand for.
func weigh(samples []sample) (sum float64) {
	for i := range samples {
		sum += samples[i].stands()
	}
	return sum
}

// stands is how many traces the sample stands for, more than 0.
func (s *sample) stands() float64 {
	if s.weight > 0 {
		return s.weight
	}
	return 1
}

// quantile is the nearest rank of sorted values; 0 when there are none.
func quantile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// latency is the quantiles of samples, which are sorted by duration, by weight.
func latency(samples []sample) (l Latency) {
	whole, sum, i := weigh(samples), 0.0, -1
	for _, to := range []struct {
		q  float64
		at *float64
	}{{0.5, &l.P50}, {0.9, &l.P90}, {0.95, &l.P95}, {0.99, &l.P99}, {0.999, &l.P999}, {1, &l.Max}} {
		for i < len(samples)-1 && (i < 0 || to.q == 1 || sum < to.q*whole-rounding*whole) {
			i++
			sum += samples[i].stands()
		}
		if i >= 0 {
			*to.at = ms(samples[i].duration)
		}
	}
	return l
}

// How many traces of a route the rules look at, of which half may be slow ones.
const (
	maxJudged   = 600
	maxAnswered = 1000 // those that tell endpoints apart
)

// thin is v with no more than most traces: the slow band, or traces evenly from it, and others evenly by their
// duration. A trace that was kept stands for those next to it, too. What a rule sees of a request does not become clearer
// with more of them, but takes longer.
func (v *view) thin(most int) *view {
	n, slow := len(v.samples), len(v.slow)
	if n <= most {
		return v
	}
	keep := min(slow, most/2)
	w := *v
	w.whole, w.seen = v.all(), nil
	w.samples = make([]sample, 0, most)
	for _, part := range []struct {
		of   []sample
		keep int
	}{{v.samples[:n-slow], most - keep}, {v.slow, keep}} {
		for i := range part.keep {
			from, to := i*len(part.of)/part.keep, (i+1)*len(part.of)/part.keep
			s := part.of[(from+to)/2]
			s.weight = weigh(part.of[from:to])
			w.samples = append(w.samples, s)
		}
	}
	w.slow = w.samples[most-keep:]
	w.typical = bandsOf(w.samples).typical
	w.slowTotal = 0
	for i := range w.slow {
		w.slowTotal += w.slow[i].duration
	}
	return &w
}

// all is v with all its traces, for rules that ask how requests follow each other.
func (v *view) all() *view {
	if v.whole != nil {
		return v.whole
	}
	return v
}

// maxSegments is how many segments of a route are reported one by one; the smaller ones are joined by kind.
const maxSegments = 100

// total is the time of one band, by place.
type total struct {
	weight float64   // traces it stands for
	whole  float64   // ns
	own    []float64 // ns on the critical path, by place

	floated []float64 // ns of own that the following are from
	drag    []float64 // ns that would be saved if the place took no time, by place
	slack   []float64 // ns, of all its spans that were waited for
	spans   []float64 // how many these are
}

func sum(samples []sample, p *places) *total {
	n := len(p.list)
	t := &total{own: make([]float64, n), floated: make([]float64, n), drag: make([]float64, n), slack: make([]float64, n), spans: make([]float64, n)}
	for i := range samples {
		s := &samples[i]
		w := s.stands()
		t.weight += w
		t.whole += w * float64(s.duration)
		for _, x := range s.pieces {
			t.own[x.place] += w * float64(x.ns)
		}
	}
	t.float(samples, p)
	return t
}

// maxFloated is how many traces of a band slack and drag are taken from.
const maxFloated = 100

// float adds up slack and drag of traces that stand evenly in the band.
func (t *total) float(samples []sample, p *places) {
	var own []int64
	n := len(samples)
	for i := range min(n, maxFloated) {
		s := &samples[i*n/min(n, maxFloated)]
		w := s.stands()
		own = append(own[:0], make([]int64, len(s.tree.Spans))...)
		for _, x := range s.sections {
			own[x.Span] += x.End - x.Start
		}
		for k, f := range s.tree.Floats(s.root) {
			if f.Slack < 0 {
				continue
			}
			if at := int(p.of(s.tree, k)); at < len(t.own) {
				t.floated[at] += w * float64(own[k])
				t.drag[at] += w * float64(min(own[k], f.Drag))
				t.slack[at] += w * float64(f.Slack)
				t.spans[at] += w
			}
		}
	}
}

func (t *total) share(place int) float64 { return ratio(t.own[place], t.whole) }
func (t *total) mean(ns float64) float64 { return ratio(ns/1e6, t.weight) }

// saved is the drag of a place, mean of the band's traces, ms: of its time, as much as of the traces that were looked at.
func (t *total) saved(place int) float64 {
	if t.floated[place] == 0 {
		return t.mean(t.own[place])
	}
	return t.mean(t.own[place]) * t.drag[place] / t.floated[place]
}

// segments adds up the pieces of the bands.
func segments(b bands, p *places) []Segment {
	typical, high, slow := sum(b.typical, p), sum(b.high, p), sum(b.slow, p)
	var list []Segment
	for i := range typical.own { // the places after these are on no path
		at := p.list[i]
		if typical.own[i] == 0 && high.own[i] == 0 && slow.own[i] == 0 {
			continue
		}
		slack := func(t *total) float64 { return ratio(t.slack[i]/1e6, t.spans[i]) }
		list = append(list, Segment{
			Segment: at.segment, Service: at.service, Operation: at.operation,
			Share:      Bands{P50: typical.share(i), P95: high.share(i), P99: slow.share(i)},
			CriticalMS: Bands{P50: typical.mean(typical.own[i]), P95: high.mean(high.own[i]), P99: slow.mean(slow.own[i])},
			DragMS:     Bands{P50: typical.saved(i), P95: high.saved(i), P99: slow.saved(i)},
			SlackMS:    Bands{P50: slack(typical), P95: slack(high), P99: slack(slow)},
		})
	}
	slices.SortFunc(list, bySlowShare)
	return joinSmall(list)
}

func bySlowShare(a, b Segment) int {
	return cmp.Or(cmp.Compare(b.Share.P99, a.Share.P99), cmp.Compare(b.Share.P50, a.Share.P50), cmp.Compare(b.Share.P95, a.Share.P95),
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
		r.Share.add(s.Share)
		r.CriticalMS.add(s.CriticalMS)
		r.DragMS.add(s.DragMS)
	}
	list = slices.Clone(list[:maxSegments])
	for _, r := range rest {
		list = append(list, *r)
	}
	slices.SortFunc(list, bySlowShare)
	return list
}
