package load

import (
	"math"
	"slices"
)

// side is the runs before a change, or those after it.
type side struct {
	runs  []run
	all   Bins
	calls uint64
	crit  float64 // of the interval, for the shortest run
	level float64 // one-sided: 0.95, 0.975 or 0.99
	short int     // slices of the shortest run
}

// run is the seconds of one run.
type run struct {
	slices  []Slice
	seconds float64 // of a slice
	all     Bins
	calls   uint64
}

// maxCompared bounds the work: longer runs have their seconds joined.
const maxCompared = 600

func sideOf(reports []Report, confidence float64) side {
	s := side{level: (1 + confidence) / 2}
	shortest := maxCompared
	for _, r := range reports {
		one := run{slices: thin(r.Slices, maxCompared, Slice.join)}
		for _, slice := range one.slices {
			one.all = one.all.merge(slice.Response)
			one.calls += slice.Calls
		}
		one.seconds = r.TookSeconds / float64(max(len(one.slices), 1))
		s.runs = append(s.runs, one)
		s.all, s.calls = s.all.merge(one.all), s.calls+one.calls
		shortest = min(shortest, len(one.slices))
	}
	s.short = shortest
	s.crit = critical(s.level, float64(bandwidth(shortest)+1)/float64(max(shortest, 1)))
	return s
}

// bandwidth is how many seconds back Newey-West looks: a tenth of the run, and 3 at least. That is more than the usual rules
// allow, which is fine since the critical value knows of it: it makes intervals honest, not narrow.
func bandwidth(n int) int { return min(max(3, n/10), max(n-1, 0)) }

// critical is the value that a t statistic with the kernel of Bartlett, whose bandwidth is the part b of the series, exceeds
// with probability 1-level. Source: Kiefer, Vogelsang 2005, "A new asymptotic theory for heteroskedasticity-autocorrelation
// robust tests", table 1.
func critical(level, b float64) float64 {
	b = min(b, 1)
	k := [4]float64{1.9600, 2.9694, 0.4160, -0.5324} // 0.975
	switch {
	case level < 0.96:
		k = [4]float64{1.6449, 2.1859, 0.3142, -0.3427} // 0.95
	case level > 0.98:
		k = [4]float64{2.3263, 4.1618, 0.5368, -0.9060} // 0.99
	}
	return k[0] + b*(k[1]+b*(k[2]+b*k[3]))
}

// longRun is the sum of the residuals' products as Newey and West weigh them, over all runs: the variance of their sum, never
// below the plain one.
func (s side) longRun(residual func(run, Slice) float64) float64 {
	var total float64
	for _, r := range s.runs {
		e := make([]float64, len(r.slices))
		for t, slice := range r.slices {
			e[t] = residual(r, slice)
		}
		plain := dot(e, e)
		wide, lags := plain, bandwidth(len(e))
		for k := 1; k <= lags; k++ {
			wide += 2 * (1 - float64(k)/float64(lags+1)) * dot(e[k:], e[:len(e)-k])
		}
		total += max(plain, wide)
	}
	return total
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// share is the share of calls that count counts, with Wilson's interval for the effective number of calls.
func (s side) share(count func(Slice) float64) interval {
	var hits, n float64
	var between []float64
	for _, r := range s.runs {
		var h float64
		for _, slice := range r.slices {
			h += count(slice)
		}
		hits, n = hits+h, n+float64(r.calls)
		between = append(between, h/math.Max(float64(r.calls), 1))
	}
	if n == 0 {
		return interval{at: math.NaN(), low: math.NaN(), high: math.NaN()}
	}
	p := hits / n
	effective := n
	if binomial := n * p * (1 - p); binomial > 0 {
		v := s.longRun(func(_ run, slice Slice) float64 { return count(slice) - p*float64(slice.Calls) })
		effective = n / max(v/binomial, 1)
	}
	low, high := wilson(p, effective, s.crit)
	return interval{p, low, high, between}
}

// wilson is the interval of a share p of n calls for a critical value z.
func wilson(p, n, z float64) (low, high float64) {
	centre := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	if low, high = max(centre-half, 0), min(centre+half, 1); p == 0 {
		low = 0 // but for rounding
	}
	return low, high
}

// quantile is the logarithm of the q-quantile in seconds.
func (s side) quantile(q float64) interval {
	bin, into, ok := s.all.quantile(q)
	if !ok {
		return interval{at: math.NaN(), low: math.NaN(), high: math.NaN()}
	}
	above := s.share(func(slice Slice) float64 { return slice.Response.above(bin, into) })
	// The share below the quantile is known to within these bounds, so the quantile lies between those of the bounds.
	from, to := max(q-(above.at-above.low), 0), q+(above.high-above.at)
	out := interval{at: point(bin, into)}
	bin, into, _ = s.all.quantile(from)
	out.low = point(bin, into)
	out.high = math.Inf(1)
	if to < 1-1/float64(max(s.calls, 1)) {
		bin, into, _ = s.all.quantile(to)
		out.high = point(bin, into)
	}
	for _, r := range s.runs {
		if bin, into, ok := r.all.quantile(q); ok {
			out.between = append(out.between, point(bin, into))
		}
	}
	return out
}

// beyond is how many calls lie above the q-quantile.
func (s side) beyond(q float64) float64 { return float64(s.calls) * (1 - q) }

// throughput is the logarithm of the answers a second that did not fail.
func (s side) throughput() interval {
	var sum, seconds float64
	var between []float64
	for _, r := range s.runs {
		var good float64
		for _, slice := range r.slices {
			good += float64(slice.Calls - slice.Failed)
		}
		length := r.seconds * float64(len(r.slices))
		sum, seconds = sum+good, seconds+length
		between = append(between, math.Log(good/length))
	}
	if sum == 0 || seconds == 0 {
		return interval{at: math.Inf(-1), low: math.Inf(-1), high: math.NaN()}
	}
	mean := sum / seconds
	v := s.longRun(func(r run, slice Slice) float64 { return float64(slice.Calls-slice.Failed) - mean*r.seconds })
	half := s.crit * math.Sqrt(v) / sum // of the logarithm, by the delta method
	at := math.Log(mean)
	return interval{at, at - half, at + half, between}
}

// welch is half the interval of the difference of two means of runs; 0 when a side has one run only.
func (s side) welch(a, b []float64) float64 {
	unknown := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	if len(a) < 2 || len(b) < 2 || slices.ContainsFunc(a, unknown) || slices.ContainsFunc(b, unknown) {
		return 0
	}
	va, vb := variance(a)/float64(len(a)), variance(b)/float64(len(b))
	if va+vb == 0 {
		return 0
	}
	df := (va + vb) * (va + vb) / (va*va/float64(len(a)-1) + vb*vb/float64(len(b)-1))
	return student(s.level, df) * math.Sqrt(va+vb)
}

// student is the quantile of Student's t for a level above 0.5 and df of 1 or more. Source: Hill 1970, CACM algorithm 396.
func student(level, df float64) float64 {
	p, n := 2*(1-level), max(df, 1)
	if n < 1.001 {
		return 1 / math.Tan(p*math.Pi/2)
	}
	a := 1 / (n - 0.5)
	b := 48 / (a * a)
	c := ((20700*a/b-98)*a-16)*a + 96.36
	d := ((94.5/(b+c)-3)/b + 1) * math.Sqrt(a*math.Pi/2) * n
	y := math.Pow(d*p, 2/n)
	if y <= 0.05+a {
		y = ((1/(((n+6)/(n*y)-0.089*d-0.822)*(n+2)*3)+0.5/(n+4))*y-1)*(n+1)/(n+2) + 1/y
		return math.Sqrt(n * y)
	}
	x := -math.Sqrt2 * math.Erfinv(1-p)
	y = x * x
	if n < 5 {
		c += 0.3 * (n - 4.5) * (x + 0.6)
	}
	c = (((0.05*d*x-5)*x-7)*x-2)*x + b + c
	y = (((((0.4*y+6.3)*y+36)*y+94.5)/c-y-3)/b + 1) * x
	return math.Sqrt(n * math.Expm1(a*y*y))
}

func variance(v []float64) float64 {
	var mean, sum float64
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		sum += (x - mean) * (x - mean)
	}
	return sum / float64(len(v)-1)
}
