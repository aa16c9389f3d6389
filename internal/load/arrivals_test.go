package load

import (
	"math"
	"testing"
	"time"
)

// counts is how many of p's calls are due in each width, over n of them.
func counts(p *pacer, width time.Duration, n int) []float64 {
	out := make([]float64, n)
	for {
		i := int(p.next() / width)
		if i >= n {
			return out
		}
		out[i]++
	}
}

func meanAndDispersion(v []float64) (mean, dispersion float64) {
	var sum, squares float64
	for _, x := range v {
		sum, squares = sum+x, squares+x*x
	}
	n := float64(len(v))
	mean = sum / n
	return mean, (squares/n - mean*mean) / mean
}

// The counts of a Poisson process in windows of equal length are Poisson: chi-square over 0..11 and more, and an index of
// dispersion of 1.
func TestPoissonCountsAreThoseOfPoisson(t *testing.T) {
	const n, mean = 50_000, 5.0
	got := counts(newPacer(Poisson, 50, nil, Burst{}, 7, 0), 100*time.Millisecond, n)
	if m, d := meanAndDispersion(got); math.Abs(m-mean) > 0.04 || math.Abs(d-1) > 0.03 {
		t.Errorf("mean %.3f, dispersion %.3f; want 5 and 1", m, d)
	}
	var seen [13]float64
	for _, c := range got {
		seen[min(int(c), 12)]++
	}
	chi, p, rest := 0.0, math.Exp(-mean), 1.0
	for k := range 12 {
		want := n * p
		chi += (seen[k] - want) * (seen[k] - want) / want
		rest -= p
		p *= mean / float64(k+1)
	}
	chi += (seen[12] - n*rest) * (seen[12] - n*rest) / (n * rest)
	if chi > 32.9 { // the 0.1 % point for 12 degrees of freedom
		t.Errorf("chi-square is %.1f", chi)
	}
}

func TestBurstsKeepTheMeanRateAndSpreadTheCounts(t *testing.T) {
	for _, idle := range []float64{0, 0.3} {
		b := Burst{On: time.Second, Off: 4 * time.Second, Idle: idle}
		got := counts(newPacer(Bursty, 100, nil, b, 3, 0), time.Second, 40_000)
		m, d := meanAndDispersion(got)
		if math.Abs(m-100) > 3 || d < 50 {
			t.Errorf("idle %g: mean %.1f a second, dispersion %.1f; want 100 and far above 1", idle, m, d)
		}
	}
}

func TestStagesInvertTheRateExactly(t *testing.T) {
	// 100/s, to 300/s within 10 s, down to 0 within 5 s, a jump to 50/s: 2000 and 750 calls, then 50 a second.
	stages := []Stage{{300, 10 * time.Second}, {0, 5 * time.Second}, {50, 0}}
	p := newPacer(Uniform, 100, stages, Burst{}, 1, 0)
	got := counts(p, 5*time.Second, 6)
	for i, want := range []float64{750, 1250, 750, 250, 250, 250} {
		if math.Abs(got[i]-want) > 1 {
			t.Errorf("%g calls from %d s on; want %g", got[i], 5*i, want)
		}
	}
	p = newPacer(Uniform, 100, stages, Burst{}, 1, 0)
	for k := range 2000 {
		at := p.next().Seconds()
		if area := 100*at + 10*at*at; math.Abs(area-float64(k)) > 1e-4 {
			t.Fatalf("call %d is due at %g s, where the integral of the rate is %g", k, at, area)
		}
	}
}

func TestPoissonStagesFollowTheRate(t *testing.T) {
	got := counts(newPacer(Poisson, 0, []Stage{{1000, 100 * time.Second}}, Burst{}, 5, 0), 10*time.Second, 12)
	for i := range 10 {
		if want := 500 * float64(2*i+1); math.Abs(got[i]-want) > 4*math.Sqrt(want) {
			t.Errorf("%g calls from %d s on; want about %g", got[i], 10*i, want)
		}
	}
	if math.Abs(got[11]-10_000) > 400 {
		t.Errorf("%g calls after the last stage; want about 10000", got[11])
	}
}

func TestRateOfNothingNeverSends(t *testing.T) {
	p := newPacer(Poisson, 10, []Stage{{0, 0}}, Burst{}, 1, 0)
	if got := p.next(); got != never {
		t.Errorf("a call is due at %s", got)
	}
	p = newPacer(Poisson, 10, []Stage{{0, time.Second}}, Burst{}, 1, 0)
	var last time.Duration
	for range 1000 {
		got := p.next()
		if got < last {
			t.Fatalf("%s after %s", got, last)
		}
		last = got
	}
	if last != never {
		t.Errorf("the 1000th call is due at %s, though the rate went to 0 after a second", last)
	}
}

func TestArrivalsNeverRunBackwards(t *testing.T) {
	p := newPacer(Bursty, 500, []Stage{{1000, 2 * time.Second}, {10, time.Second}, {700, 3 * time.Second}}, Burst{On: 50 * time.Millisecond, Off: 30 * time.Millisecond, Idle: 0.1}, 9, 0)
	var last time.Duration
	for range 20_000 {
		got := p.next()
		if got < last {
			t.Fatalf("%s after %s", got, last)
		}
		last = got
	}
}
