package diagnose

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

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
	if float64(s.p90) >= modesApart*float64(s.p50) && s.p90-s.p50 >= int64(tailMore) && n >= modeWork {
		if split := modes(sorted); split > 0 {
			s.limit = min(s.limit, split)
		}
	}
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

// What work of two kinds looks like that has one name: so many are slow that they widen what is taken for the shape of the others.
const (
	modeWork   = 50   // fewer show no modes
	modesApart = 4.0  // times, that the slow ones take longer
	modesMost  = 0.45 // of all, that are slow; more are the usual case
	modesClear = 0.8  // of the variance of the logarithm, that lies between the two; of one log-normal kind it is 2/pi, of an even spread 0.75
)

// modes is the time between the fast and the slow works of sorted ones, where these are clearly two groups; 0 = they are not.
//
// Source: N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979, on the logarithm of the times.
func modes(sorted []weighted) int64 {
	logs := make([]float64, len(sorted))
	whole, sum, squares := 0.0, 0.0, 0.0
	for i, x := range sorted {
		logs[i] = math.Log(float64(max(x.ns, 1)))
		whole, sum, squares = whole+x.weight, sum+x.weight*logs[i], squares+x.weight*logs[i]*logs[i]
	}
	variance := squares/whole - sum*sum/whole/whole
	best, at := 0.0, 0
	low, part := 0.0, 0.0 // weight and sum of the fast ones
	for i := range sorted[:len(sorted)-1] {
		low, part = low+sorted[i].weight, part+sorted[i].weight*logs[i]
		high := whole - low
		apart := (sum-part)/high - part/low
		if between := low * high * apart * apart / whole / whole; between > best && high <= modesMost*whole && apart >= math.Log(modesApart) {
			best, at = between, i
		}
	}
	if best < modesClear*variance {
		return 0
	}
	return int64(math.Sqrt(float64(max(sorted[at].ns, 1)) * float64(sorted[at+1].ns)))
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
	switch {
	case a.ns < b.ns:
		return -1
	case a.ns > b.ns:
		return 1
	}
	return cmp.Compare(a.weight, b.weight)
}

// tailed reports whether too much lies beyond the limit for chance.
func (s spread) tailed() bool { return s.beyond >= leastTail && s.ratio >= tailRatio }

// suspect is a place whose work takes longer than it should.
type suspect struct {
	sort
	spread
	works    []work  // in the order of samples
	constant bool    // always long, rather than now and then
	faint    bool    // not long at all by its time, so that all its works count
	slow     int64   // ns of the slow band that the long works take
	excess   int64   // of it, what is more than the typical work
	share    float64 // of the slow band, which that is, 0..1
	high     float64 // of the band below the slow one, the share that the long works take, 0..1
	common   float64 // of all traces, the same
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
	commonShare = 0.5  // of all traces, for a faint one: a machine that stands still at times may fill both bands
	highShare   = 0.4  // of the band below it, for either: one pause of the whole machine may fill the slow band
)

// faintest is the part of always from which a place is asked about, where there is somebody to ask.
const faintest = 10

// suspicious finds the places whose work has a tail that health does not have, or is long always; and the faint ones, which
// are neither, and yet a good part of the slow traces: whether 20 ms are a scan of the whole table, a wait for a lock or honest work
// only the systems behind the traces can tell. Only what these confirm may come of a faint one.
func (v *view) suspicious(c *scene) (list, faint []suspect) {
	b := v.totals()
	for at, works := range c.own {
		s := suspect{sort: at, works: works}
		s.spread = spreadOf(v.took(works))
		if s.constant = !s.tailed(); !s.constant || s.p50 >= always(at.segment) {
			if v.measure(&s, b); s.costs() {
				list = append(list, s)
				continue
			}
		}
		if s.p90 < always(at.segment)/faintest || !v.answerable(at.place) {
			continue
		}
		s.constant, s.faint = true, true
		if v.measure(&s, b); s.costs() || s.common >= commonShare {
			faint = append(faint, s)
		}
	}
	for _, list := range [][]suspect{list, faint} {
		slices.SortFunc(list, func(a, b suspect) int {
			return cmp.Or(cmp.Compare(b.slow, a.slow), byPlace(a.place, b.place), cmp.Compare(a.statement, b.statement))
		})
	}
	return list, faint
}

// totals is how long the traces take of which suspects take a part.
type totals struct {
	from int     // number of the first sample of the band below the slow one, between p95 and p99
	high float64 // ns of that band
	all  float64 // ns of all traces, weighted
}

func (v *view) totals() (b totals) {
	rest := v.samples[:len(v.samples)-len(v.slow)]
	band := tailOf(rest, weigh(v.samples)/20-weigh(v.slow), min(slowFew, len(rest)))
	for i := range band {
		b.high += float64(band[i].duration)
	}
	for i := range v.samples {
		b.all += float64(v.samples[i].duration) * v.samples[i].stands()
	}
	b.from = len(rest) - len(band)
	return b
}

// measure adds up what the long works of s take.
func (v *view) measure(s *suspect, b totals) {
	s.slow, s.excess = 0, 0
	below, all := int64(0), 0.0
	for _, w := range s.works {
		if !s.long(w) {
			continue
		}
		all += float64(w.self) * v.samples[w.sample].stands()
		switch {
		case v.isSlow(int(w.sample)):
			s.slow += w.self
			s.excess += max(0, w.self-s.p50)
		case int(w.sample) >= b.from:
			below += w.self
		}
	}
	if s.constant {
		s.excess = s.slow
	}
	s.share, s.high, s.common = v.share(s.slow), ratio(float64(below), b.high), ratio(all, b.all)
}

// costs reports whether the long works of s are a good part of the slow traces.
func (s *suspect) costs() bool {
	return s.high >= highShare || s.share >= alwaysShare || !s.constant && s.share >= tailShare
}

// took is how long works take, shortest first. What failed sooner than most works end is left out: how fast an error comes says
// nothing of how long the work takes.
func (v *view) took(works []work) []weighted {
	took := make([]weighted, 0, len(works))
	var broken []weighted
	for _, w := range works {
		s := &v.samples[w.sample]
		if x := (weighted{w.self, s.stands()}); s.tree.failed(int(w.span)) {
			broken = append(broken, x)
		} else {
			took = append(took, x)
		}
	}
	slices.SortFunc(took, byTime)
	if len(broken) > 0 {
		usual := weighedQuantile(took, 0.5)
		for _, x := range broken {
			if x.ns >= usual {
				took = append(took, x)
			}
		}
		slices.SortFunc(took, byTime)
	}
	return took
}

// answerable reports whether something was read from the system behind a place.
func (v *view) answerable(at place) bool {
	switch at.segment {
	case trace.SegDatabase:
		return len(v.facts.Postgres) > 0
	case trace.SegCache:
		return true // its other keys answer
	case trace.SegService, trace.SegGateway, trace.SegNetwork:
		return slices.ContainsFunc(v.facts.Services, func(p evidence.ServiceFacts) bool { return p.Service == at.service })
	}
	return false
}

// asked is the suspects of those segments, and the faint ones after them.
func (c *scene) asked(segments ...trace.Segment) []*suspect {
	list := c.of(segments...)
	for i := range c.faint {
		if slices.Contains(segments, c.faint[i].segment) {
			list = append(list, &c.faint[i])
		}
	}
	return list
}

// moments is how many times of trouble it takes for a condition, rather than an accident.
const moments = 3

// once reports whether the long works of s lie in too few moments for a condition: in each of these all began before the first of them
// had ended twice over, as when a machine stands still for a while and then goes on with all of them.
func (v *view) once(s *suspect) bool {
	if s.constant {
		return false
	}
	var list []interval
	for _, w := range s.works {
		if s.long(w) {
			_, span := v.span(w)
			list = append(list, interval{span.Start, span.End})
		}
	}
	slices.SortFunc(list, func(a, b interval) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	n := 0
	for at := 0; at < len(list); n++ {
		first := list[at]
		longest := int64(0)
		for ; at < len(list) && list[at].start-first.start <= 2*max(longest, list[at].end-list[at].start); at++ {
			longest = max(longest, list[at].end-list[at].start)
		}
	}
	return n < moments
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
		harm:   s.high,
	}
	if confidence >= 0.5 {
		f.Verdict = Likely
	}
	f.Evidence = append(f.Evidence, s.tells())
	return f
}

// part is how much of the slow traces the long works of a suspect take, in words: or of other traces, where these suffer more.
func (s *suspect) part() string {
	switch {
	case s.share >= explained*max(s.high, s.common), s.high < highShare && s.common < commonShare:
		return percent(s.share) + " of the slow traces"
	case s.high >= explained*s.common:
		return percent(s.high) + " of the traces between p95 and p99"
	}
	return percent(s.common) + " of the time of all traces"
}

// tells puts the figures of a suspect in words.
func (s *suspect) tells() string {
	if s.faint {
		return "p50 " + duration(time.Duration(s.p50)) + ", p99 " + duration(time.Duration(s.p99)) + " over " + strconv.Itoa(s.n) + " spans"
	}
	if s.constant {
		return "it is always long: p50 " + duration(time.Duration(s.p50)) + ", p99 " + duration(time.Duration(s.p99)) + " over " + strconv.Itoa(s.n) + " spans"
	}
	who := strconv.Itoa(s.beyond) + " of " + strconv.Itoa(s.n) + " spans"
	if math.Abs(s.ratio*float64(s.n)-float64(s.beyond)) >= 0.5 { // a sample, in which what is slow is kept first
		who += ", which stand for " + percent(s.ratio) + " of all,"
	}
	return who + " take more than " + duration(time.Duration(s.limit)) + ", far more than the others: p50 " + duration(time.Duration(s.p50)) +
		" and p90 " + duration(time.Duration(s.p90)) + " of all, longest " + duration(time.Duration(s.max))
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
