package diagnose

import (
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// measured is what was measured at one position in the suspect and in the healthy set, sorted.
type measured struct {
	at                edge
	suspect, baseline []float64 // ms
}

// growth is how much longer one position takes in the suspect set.
type growth struct {
	measured
	base  float64 // mean of the healthy set, ms
	mean  float64 // growth of the mean, ms; negative = faster
	err   float64 // its standard error, ms
	sigma float64 // how far beyond chance it is, in standard deviations of the normal distribution; 0 where it is negative
	doubt float64 // part of base that services differ by from one period to the next
}

func (g growth) calls() int { return len(g.suspect) }

// drift is by how much times differ between two healthy periods, as logarithms of ratios.
type drift struct {
	shift  float64 // what all services share; 0 or more
	spread float64 // standard deviation of the services around it
}

// Bounds of a drift that is taken for one.
const (
	minUnits  = 5              // services; fewer cannot tell what is shared
	maxShift  = 0.405465108108 // ln 1.5: when all are slower by more, that is what the reader wants to know
	minSpread = 0.05
	maxSpread = 0.4
	fewSpread = 0.1 // where there are too few services to tell
)

// drifts is the drift of the services' own time, of the way to them, and of what they wait for elsewhere.
type drifts map[trace.Segment]drift

// kindOf is the segment that stands for g's in drifts.
func kindOf(s trace.Segment) trace.Segment {
	switch s {
	case trace.SegService, trace.SegNetwork, trace.SegDownstream:
		return s
	}
	return trace.SegDatabase
}

// driftBetween tells the drift from the middle half of the times, service by service. It bears that almost half of the
// services are at fault.
func driftBetween(both []measured) drifts {
	type key struct {
		kind    trace.Segment
		service string
	}
	type unit struct{ sum, weight float64 }
	units := make(map[key]*unit)
	for _, p := range both {
		k := key{kindOf(p.at.segment), p.at.caller}
		if k.kind == trace.SegNetwork || k.kind == trace.SegDownstream {
			k.service = p.at.callee
		}
		if units[k] == nil {
			units[k] = new(unit)
		}
		n := float64(min(len(p.suspect), len(p.baseline)))
		units[k].weight += n
		units[k].sum += n * (logarithm(middle(p.suspect)) - logarithm(middle(p.baseline)))
	}
	moved := make(map[trace.Segment][]float64)
	for k, u := range units {
		moved[k.kind] = append(moved[k.kind], u.sum/u.weight)
	}
	d := make(drifts)
	for kind, list := range moved {
		slices.Sort(list)
		d[kind] = driftOf(list)
	}
	return d
}

// driftOf is the drift that logarithms of ratios, sorted, show. From few of them the spread comes out too small, which is
// made up for.
//
// Source: C. Croux, P. J. Rousseeuw, Time-efficient algorithms for two highly robust estimators of scale, COMPSTAT 1992,
// for the size of the correction, which is rounded up here.
func driftOf(moved []float64) drift {
	if len(moved) < minUnits {
		return drift{0, fewSpread}
	}
	centre := atQuantile(moved, 0.5)
	off := make([]float64, len(moved))
	for i, v := range moved {
		off[i] = math.Abs(v - centre)
	}
	slices.Sort(off)
	const normalMAD = 1.4826 // standard deviations in a median absolute deviation of the normal distribution
	few := 1 + 2/float64(len(moved))
	return drift{
		shift:  min(max(moved[(len(moved)-1)/2], 0), maxShift),
		spread: min(max(few*normalMAD*atQuantile(off, 0.5), minSpread), maxSpread),
	}
}

// middle is the mean of the middle half of sorted values: as robust as the median, and not bound to the clock's steps.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return average(sorted[n/4 : n-n/4])
}

// atQuantile is the quantile q of sorted values, between neighbours.
func atQuantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// winsorAt is the quantile above which values count as this quantile, so that one outlier decides nothing.
const winsorAt = 0.99

// newGrowth compares the values of one position. Times are skewed, so the means decide how much was lost, but whether
// anything was lost may show sooner in their logarithms, or in how many are far out.
func newGrowth(p measured, all drifts, usual float64) growth {
	d := all[kindOf(p.at.segment)]
	factor := math.Exp(d.shift)
	b := make([]float64, len(p.baseline))
	for i, v := range p.baseline {
		b[i] = factor * v
	}
	wa, wb := winsorised(p.suspect), winsorised(b)
	mean := average(wa) - average(wb)
	g := growth{measured: p, base: average(wb), mean: mean, doubt: d.spread, err: standardError(wa, wb)}
	if mean <= 0 {
		return g
	}
	g.sigma = normal(welch(logarithms(wa), logarithms(wb), usual))
	if min(len(wa), len(wb)) >= enoughAlone {
		g.sigma = max(g.sigma, normal(welch(wa, wb, 0)), outlying(p.suspect, b))
	}
	if g.sigma > 0 {
		g.err = mean / g.sigma
	}
	return g
}

// standardError is that of the difference of two means, when values are at least as uneven as those that wait for chance.
func standardError(a, b []float64) float64 {
	ma, mb := average(a), average(b)
	va := max(variance(a), ma*ma/float64(len(a)))
	vb := max(variance(b), mb*mb/float64(len(b)))
	return math.Sqrt(va/float64(len(a)) + vb/float64(len(b)))
}

// usualSpread is the median variance of logarithms over the positions of the healthy set.
func usualSpread(both []measured) float64 {
	var all []float64
	for _, p := range both {
		if len(p.baseline) >= enoughAlone {
			all = append(all, variance(logarithms(p.baseline)))
		}
	}
	if len(all) == 0 {
		return 1
	}
	slices.Sort(all)
	return atQuantile(all, 0.5)
}

// winsorised is sorted values, cut off at a high quantile.
func winsorised(sorted []float64) []float64 {
	values := slices.Clone(sorted)
	at := min(len(values)-1, int(winsorAt*float64(len(values))))
	for i := at; i < len(values); i++ {
		values[i] = values[at]
	}
	return values
}

func logarithm(v float64) float64 {
	const floor = 0.01 // ms; below that, clocks and scheduling are all there is
	return math.Log(max(v, 0) + floor)
}

func logarithms(values []float64) []float64 {
	logs := make([]float64, len(values))
	for i, v := range values {
		logs[i] = logarithm(v)
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

// enoughAlone is how many values say themselves how much they vary; fewer borrow that from other positions.
const enoughAlone = 4

// welch is the difference of two means, its standard error, and the degrees of freedom of their quotient. usual is the
// variance that values have elsewhere, which counts as if enoughAlone more of them were known; 0 = it is not known. So a few
// values that happen to be alike are not taken for exact, and a few that differ by far are seen.
//
// Sources: B. L. Welch, The generalization of Student's problem when several different population variances are
// involved, Biometrika 34, 1947. G. K. Smyth, Linear models and empirical Bayes methods for assessing differential
// expression in microarray experiments, Statistical Applications in Genetics and Molecular Biology 3, 2004.
func welch(a, b []float64, usual float64) (mean, err, free float64) {
	va, fa := moderated(a, usual)
	vb, fb := moderated(b, usual)
	va /= float64(len(a))
	vb /= float64(len(b))
	free = 1
	if sum := va + vb; sum > 0 {
		free = sum * sum / (va*va/fa + vb*vb/fb)
	}
	return average(a) - average(b), math.Sqrt(va + vb), free
}

// moderated is the variance of values and its degrees of freedom, drawn towards usual.
func moderated(values []float64, usual float64) (v, free float64) {
	free = float64(len(values) - 1)
	v = variance(values)
	if usual > 0 {
		v = (enoughAlone*usual + free*v) / (enoughAlone + free)
		free += enoughAlone
	}
	return v, free
}

func variance(values []float64) float64 {
	mean, sum := average(values), 0.0
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return sum / float64(len(values)-1)
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

// outlying is by how many standard deviations of the normal distribution too many of the far outliers are suspect: those
// beyond the outer fence of both sets together. A few stalls in a hundred calls move neither mean nor logarithms surely.
//
// Source: J. W. Tukey, Exploratory Data Analysis, 1977, for the fence; here it is twice as far out.
func outlying(suspect, baseline []float64) float64 {
	all := slices.Concat(suspect, baseline)
	slices.Sort(all)
	q1, q3 := atQuantile(all, 0.25), atQuantile(all, 0.75)
	fence := q3 + 6*(q3-q1)
	beyond := func(values []float64) int {
		at, _ := slices.BinarySearch(values, fence)
		return len(values) - at
	}
	return unlikely(beyond(suspect), len(suspect), beyond(baseline), len(baseline))
}

// unlikely is how far beyond chance it is that at least hitsA of all hits are among the a things, and the others among
// the b, in standard deviations of the normal distribution; 0 when they are not too many.
//
// Source: R. A. Fisher, The Design of Experiments, 1935: the exact test.
func unlikely(hitsA, a, hitsB, b int) float64 {
	hits := hitsA + hitsB
	if hits == 0 || float64(hitsA)*float64(b) <= float64(hitsB)*float64(a) {
		return 0
	}
	first := choose(a, hitsA) + choose(b, hits-hitsA) - choose(a+b, hits)
	sum := 0.0
	for k := hitsA; k <= min(hits, a); k++ {
		term := math.Exp(choose(a, k) + choose(b, hits-k) - choose(a+b, hits) - first)
		sum += term
		if term < sum*1e-9 {
			break
		}
	}
	return deviations(first + math.Log(sum))
}

// deviations is how many standard deviations of the normal distribution are as unlikely to be exceeded as logP, a logarithm, says;
// at least 0.
func deviations(logP float64) float64 {
	const far = -20 // below that the first term of the tail's expansion is right within 1 %, and a probability loses its digits
	if logP > far {
		return math.Sqrt2 * math.Erfcinv(2*min(math.Exp(logP), 0.5))
	}
	square := -2 * logP
	return math.Sqrt(square - math.Log(2*math.Pi*square))
}

// choose is the logarithm of the binomial coefficient; that of nothing is -Inf.
func choose(n, k int) float64 {
	if k < 0 || k > n {
		return math.Inf(-1)
	}
	lg := func(v int) float64 { l, _ := math.Lgamma(float64(v) + 1); return l }
	return lg(n) - lg(k) - lg(n-k)
}
