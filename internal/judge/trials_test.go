package judge

import (
	"math"
	"testing"
)

// binomial is the probability of k events in n calls.
func binomial(k, n int, p float64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return math.Exp(a - b - c + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

// The evidence of a slice must be 1 on average at the rate that it is held against: that is what makes it safe to look
// after every slice. Shared among bursts it may be less.
func TestTrialsAreAMartingale(t *testing.T) {
	for _, c := range []struct {
		rate    float64
		factors [ratesTried]float64
	}{{.01, fewer}, {.01, more}, {.005, fewer}, {.97, fewer}} {
		for _, n := range []int{1, 33, 500} {
			for _, burst := range []float64{1, 7} {
				var sum float64
				for k := range n + 1 {
					var now trials
					now.add(float64(k), float64(n), c.rate, &c.factors)
					sum += binomial(k, n, c.rate) * math.Exp(now.logE(burst))
				}
				if sum > 1+1e-6 || burst == 1 && sum < 1-1e-6 {
					t.Errorf("%v of %d calls, bursts of %v: %v on average", c.rate, n, burst, sum)
				}
			}
		}
	}
}

func TestBurstsAreSeen(t *testing.T) {
	for _, c := range []struct {
		counts   []float64
		from, to float64
	}{
		{nil, 1, 1},
		{[]float64{0, 0, 0, 0}, 1, 1},
		{[]float64{5, 5, 5, 5}, 1, 1},
		{[]float64{0, 1, 0, 0, 1, 0, 2, 0}, 1, 1.3},
		{[]float64{0, 10, 0, 0, 10, 0, 0, 0, 0, 10, 0, 0}, 7, 11},
	} {
		var s scatter
		for _, k := range c.counts {
			s.add(k)
		}
		if got := s.burst(); got < c.from || got > c.to {
			t.Errorf("%v come %v at a time; want %v to %v", c.counts, got, c.from, c.to)
		}
	}
}

// A candidate that is far better but for a few calls must not pass by what the many others say.
func TestAFarBetterBulkProvesNothingOfTheTail(t *testing.T) {
	for _, middle := range [][2]float64{
		{250, 5}, // 1 % of the candidate's calls are slower than the baseline's p50, too
		{5, 0},   // none is, and hardly one of the baseline's own, which has become faster since
	} {
		farBetter(t, middle[0], middle[1])
	}
}

// farBetter judges so many calls of each arm's 500 beyond the baseline's p50.
func farBetter(t *testing.T, base, cand float64) {
	t.Helper()
	j := New(Config{})
	j.referred = 1
	for range 200 {
		b, c := counts{calls: 500, timed: 500}, counts{calls: 500, timed: 500}
		b.rows[p50] = event{of: 500, plain: base, fail: base, pass: base}
		c.rows[p50] = event{of: 500, plain: cand, fail: cand, pass: cand}
		b.rows[p95] = event{of: 500, plain: 25, fail: 20, pass: 18}
		c.rows[p95] = event{of: 500, plain: 5, fail: 5, pass: 5} // 1 %
		b.rows[p99] = event{of: 500, plain: 5, fail: 4, pass: 3}
		c.rows[p99] = event{of: 500, plain: 5, fail: 5, pass: 5}
		j.add(&b, &c)
	}
	if j.passed(p99) || j.improved(p99) >= math.Log(1/AlphaImproved) {
		t.Errorf("%v and %v calls beyond p50: no worse %v, improved %v", base, cand, j.noWorse(p99), j.improved(p99))
	}
}
