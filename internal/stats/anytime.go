package stats

import (
	"math"
	"sort"
)

// Lags is how far back LongRunVariance looks for slices that resemble each other.
const Lags = 3

// mixing is g of the mixture over effect sizes: the smaller it is, the larger the effects it is quick to see. 10 suits
// ten minutes of slices of ten seconds.
const mixing = 10

// Series is a sequence of numbers whose mean is judged against 0 while it grows. It may be looked at after every
// number: the probability that LogE ever reaches ln(1/alpha) although the mean is not above 0 stays at alpha.
//
// The zero value is empty. A Series is a value of fixed size: a copy is independent. Not for concurrent use.
//
// Source: Lindon, Ham, Tingley, Bojinov 2022 (arXiv 2210.08589), the anytime-valid t-test, made one-sided; Newey, West 1987 for the
// variance of numbers that depend on those before. It is exact for independent normal numbers and holds well for
// slices of traffic, which is what the simulations of package judge measure.
type Series struct {
	n       int
	sum, sq float64
	product [Lags]float64 // of x[t] and x[t-1-i], summed up
	head    [Lags]float64 // the first numbers
	tail    [Lags]float64 // the last numbers, latest first
}

// Add appends x. What is not a finite number is left out; Add reports whether x was taken.
func (s *Series) Add(x float64) bool {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return false
	}
	for k := range min(s.n, Lags) {
		s.product[k] += x * s.tail[k]
	}
	if s.n < Lags {
		s.head[s.n] = x
	}
	copy(s.tail[1:], s.tail[:Lags-1])
	s.tail[0] = x
	s.n++
	s.sum += x
	s.sq += x * x
	return true
}

// Len is how many numbers there are.
func (s *Series) Len() int { return s.n }

// Mean is 0 when empty.
func (s *Series) Mean() float64 {
	if s.n == 0 {
		return 0
	}
	return s.sum / float64(s.n)
}

// LongRunVariance is the variance of one number, widened for what it has in
// common with the Lags before it; never below the plain variance, 0 for fewer than two.
func (s *Series) LongRunVariance() float64 {
	if s.n < 2 {
		return 0
	}
	n, mean := float64(s.n), s.Mean()
	plain := max(s.sq-n*mean*mean, 0)
	if plain < 1e-12*s.sq { // what is left is rounding
		plain = 0
	}
	wide := plain
	var head, tail float64
	for k := range min(s.n-1, Lags) {
		head += s.head[k]
		tail += s.tail[k]
		common := s.product[k] - mean*(2*s.sum-head-tail) + (n-float64(k+1))*mean*mean
		wide += 2 * (1 - float64(k+1)/(Lags+1)) * common
	}
	return max(plain, wide) / (n - 1)
}

// LogE is the natural logarithm of the evidence that the mean is above 0. 0 or less speaks for nothing; from
// ln(1/alpha) on the mean is above 0 at level alpha. The variance is held to floor at least, which keeps a
// few equal numbers from passing for certainty.
func (s *Series) LogE(floor float64) float64 {
	return logE(s.n, s.Mean(), max(s.LongRunVariance(), floor))
}

// LogEBelow is LogE for a mean below 0.
func (s *Series) LogEBelow(floor float64) float64 {
	return logE(s.n, -s.Mean(), max(s.LongRunVariance(), floor))
}

// Needed is how long the Series would be when LogE reaches goal, should mean and variance stay as they are; 0 when
// that is beyond a million numbers, or when there are fewer than two now.
func (s *Series) Needed(goal, floor float64) int { return s.needed(s.Mean(), goal, floor) }

// NeededBelow is Needed for LogEBelow.
func (s *Series) NeededBelow(goal, floor float64) int { return s.needed(-s.Mean(), goal, floor) }

func (s *Series) needed(mean, goal, floor float64) int {
	const most = 1 << 20
	variance := max(s.LongRunVariance(), floor)
	reaches := func(n int) bool { return logE(n, mean, variance) >= goal }
	if s.n < 2 || !reaches(most) {
		return 0
	}
	return sort.Search(most, reaches)
}

func logE(n int, mean, variance float64) float64 {
	if n < 2 {
		return 0
	}
	// Below 0 the evidence is set to its value at 0, which is its least there and keeps it valid.
	mean = max(mean, 0)
	t, nu := float64(n), float64(n-1)
	r := mixing / (mixing + t)
	ratio := t * mean * mean / variance / nu // T^2/nu; NaN for 0/0
	gain := math.Log1p(ratio) - math.Log1p(r*ratio)
	switch {
	case math.IsNaN(ratio):
		gain = 0
	case math.IsInf(ratio, 1):
		gain = -math.Log(r)
	}
	// The formula mixes over effects of both signs. Only one of them counts here, so that its half of the
	// mixture gets all of the weight: twice the probability of that sign given the numbers.
	z := math.Sqrt(ratio * nu * (1 - r))
	side := math.Erfc(-z / math.Sqrt2)
	if math.IsNaN(ratio) {
		side = 1
	}
	return math.Log(side) + 0.5*math.Log(r) + (nu+1)/2*gain
}

// Interval covers the true mean at all times at once with probability 1-alpha, once there are some ten numbers; it
// is what a chart may show. Everything from -Inf to Inf for fewer than two numbers.
//
// Source: the asymptotic confidence sequence of Waudby-Smith et al. (arXiv 2103.06476).
func (s *Series) Interval(alpha float64) (low, high float64) {
	if s.n < 2 {
		return math.Inf(-1), math.Inf(1)
	}
	t, spread := float64(s.n), float64(s.n)/mixing+1
	half := math.Sqrt(s.LongRunVariance() * 2 * spread * mixing / (t * t) * math.Log(math.Sqrt(spread)/alpha))
	return s.Mean() - half, s.Mean() + half
}

// SampleRatioLogE is the natural logarithm of the evidence that two arms which should get the same number of calls
// do not. It may be looked at any time: above ln(1/alpha) the split is uneven at level alpha.
//
// Source: Lindon, Malek 2022 (arXiv 2011.03567) for two arms, the prior Beta(50, 50).
func SampleRatioLogE(a, b uint64) float64 {
	const prior = 50
	x, y := float64(a)+prior, float64(b)+prior
	return logBeta(x, y) - logBeta(prior, prior) + (float64(a)+float64(b))*math.Ln2
}

func logBeta(x, y float64) float64 {
	a, _ := math.Lgamma(x)
	b, _ := math.Lgamma(y)
	c, _ := math.Lgamma(x + y)
	return a + b - c
}

// SampleRatioP is the p-value of a chi-square test that a and b are an even split of a+b calls. It is meant for one
// look; use SampleRatioLogE when looking again and again. 1 when there are none.
func SampleRatioP(a, b uint64) float64 {
	n := float64(a) + float64(b)
	if n == 0 {
		return 1
	}
	d := float64(a) - float64(b)
	return math.Erfc(math.Sqrt(d * d / n / 2))
}

// DetectableT is the mean of n numbers, in standard errors, at which LogE reaches goal; +Inf when n are too few for it.
func DetectableT(n int, goal float64) float64 {
	const most = 1e6
	reaches := func(t float64) bool { return logE(n, t, float64(n)) >= goal }
	if n < 2 || !reaches(most) {
		return math.Inf(1)
	}
	low, high := 0.0, most
	for range 60 {
		if middle := (low + high) / 2; reaches(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}
