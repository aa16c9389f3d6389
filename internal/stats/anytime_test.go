package stats

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func series(xs ...float64) (s Series) {
	for _, x := range xs {
		s.Add(x)
	}
	return s
}

// naiveVariance follows the textbook, with all numbers at hand.
func naiveVariance(xs []float64) (plain, wide float64) {
	n := float64(len(xs))
	var mean float64
	for _, x := range xs {
		mean += x / n
	}
	for _, x := range xs {
		plain += (x - mean) * (x - mean)
	}
	wide = plain
	for k := 1; k <= Lags; k++ {
		for t := k; t < len(xs); t++ {
			wide += 2 * (1 - float64(k)/(Lags+1)) * (xs[t] - mean) * (xs[t-k] - mean)
		}
	}
	return plain / (n - 1), wide / (n - 1)
}

func TestLongRunVarianceIsTheTextbooks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, carry := range []float64{-.7, 0, .8} {
		var xs []float64
		var s Series
		x := 3.0
		for i := range 50 {
			x = 3 + carry*(x-3) + rng.NormFloat64()
			xs = append(xs, x)
			s.Add(x)
			if i == 0 {
				continue
			}
			plain, wide := naiveVariance(xs)
			if got, want := s.LongRunVariance(), max(plain, wide); math.Abs(got-want) > 1e-9*want {
				t.Fatalf("carry %v, %d numbers: %v, want %v (plain %v)", carry, i+1, got, want, plain)
			}
		}
	}
}

func TestLogEIsTheFormula(t *testing.T) {
	s := series(1, 2, 0, 3, 1, -1, 2, 1, 0, 2, 1, 3)
	n, v := float64(s.Len()), s.LongRunVariance()
	r := 10 / (10 + n)
	t2 := n * s.Mean() * s.Mean() / v
	onSide := 1 + math.Erf(math.Sqrt(t2*(1-r)/2))
	want := math.Log(onSide * math.Sqrt(r) * math.Pow((1+t2/(n-1))/(1+r*t2/(n-1)), n/2))
	if got := s.LogE(0); math.Abs(got-want) > 1e-12 {
		t.Errorf("LogE = %v, want %v", got, want)
	}
	if got := s.LogEBelow(0); got != 0.5*math.Log(r) {
		t.Errorf("evidence for the other side = %v", got)
	}
	mirrored := series(-1, -2, 0, -3, -1, 1, -2, -1, 0, -2, -1, -3)
	if got := mirrored.LogEBelow(0); math.Abs(got-want) > 1e-12 {
		t.Errorf("mirrored = %v, want %v", got, want)
	}
}

func TestLogEIsFiniteAtTheEdges(t *testing.T) {
	same := make([]float64, 1000)
	for i := range same {
		same[i] = 1e300
	}
	for name, s := range map[string]Series{
		"empty": {}, "one": series(1), "zeros": series(0, 0, 0), "equal": series(.1, .1, .1, .1),
		"huge": series(same...), "tiny": series(5e-324, 5e-324), "mixed": series(1e150, -1e150, 1e-150),
	} {
		for _, floor := range []float64{0, .01} {
			if e := s.LogE(floor); math.IsNaN(e) || math.IsInf(e, 0) {
				t.Errorf("%s: LogE(%v) = %v", name, floor, e)
			}
		}
	}
	var s Series
	if s.Add(math.NaN()) || s.Add(math.Inf(1)) || s.Len() != 0 {
		t.Error("what is no number was taken")
	}
}

// However clear the effect, a few slices never suffice for level 1 %, and the floor keeps equal numbers from it.
func TestEvidenceNeedsSlices(t *testing.T) {
	var s Series
	for s.LogE(0) < math.Log(100) {
		s.Add(1)
	}
	if s.Len() != 12 {
		t.Errorf("certain after %d slices, want 12", s.Len())
	}
	if e := s.LogE(100); e > 0 {
		t.Errorf("with a variance of 100, a mean of 1 in 13 slices is evidence of %v", e)
	}
}

// Looked at after each of 200 numbers, at level 5 %, in 2000 series without an effect.
func TestFalseAlarmsStayBelowAlphaAtAllTimes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	const runs, alpha = 2000, .05
	alarms, misses := 0, 0
	for range runs {
		var s Series
		alarm, missed := false, false
		for range 200 {
			s.Add(rng.NormFloat64())
			alarm = alarm || s.LogE(0) >= math.Log(1/alpha)
			if low, high := s.Interval(alpha); s.Len() >= 10 && (low > 0 || high < 0) {
				missed = true
			}
		}
		if alarm {
			alarms++
		}
		if missed {
			misses++
		}
	}
	t.Logf("false alarms %.2f %%, interval left the mean out in %.2f %%", 100*float64(alarms)/runs, 100*float64(misses)/runs)
	if alarms > alpha*runs || misses > alpha*runs {
		t.Errorf("%d false alarms and %d misses in %d runs", alarms, misses, runs)
	}
}

func TestIntervalNarrows(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var s Series
	if low, high := s.Interval(.05); !math.IsInf(low, -1) || !math.IsInf(high, 1) {
		t.Error("nothing known, and yet an interval")
	}
	width := math.Inf(1)
	for range 4 {
		for range 100 {
			s.Add(5 + rng.NormFloat64())
		}
		low, high := s.Interval(.05)
		if low > 5 || high < 5 || high-low > width {
			t.Errorf("after %d: %v..%v", s.Len(), low, high)
		}
		width = high - low
	}
}

func TestSampleRatio(t *testing.T) {
	for _, c := range []struct {
		a, b   uint64
		p      float64
		uneven bool
	}{
		{0, 0, 1, false},
		{1600, 1600, 1, false},
		{10, 0, 0.0015654, false},
		{1660, 1540, 0.0338948, false},
		{1760, 1440, 1.54e-8, true}, // 55 to 45
		{0, 1000, 0, true},
		{5_000_000, 5_002_000, 0.52714, false},
	} {
		if got := SampleRatioP(c.a, c.b); math.Abs(got-c.p) > 1e-4 {
			t.Errorf("SampleRatioP(%d, %d) = %v, want %v", c.a, c.b, got, c.p)
		}
		if got := SampleRatioLogE(c.a, c.b); got > math.Log(1000) != c.uneven {
			t.Errorf("SampleRatioLogE(%d, %d) = %v, want uneven = %v", c.a, c.b, got, c.uneven)
		}
	}
}

func TestSampleRatioSurvivesManyLooks(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const runs = 2000
	alarms := 0
	for range runs {
		var a, b uint64
		for range 60 {
			n := uint64(0)
			for range 16 {
				n += uint64(bits.OnesCount64(rng.Uint64()))
			}
			a, b = a+n, b+1024-n
			if SampleRatioLogE(a, b) > math.Log(1000) {
				alarms++
				break
			}
		}
	}
	if alarms > 5 {
		t.Errorf("%d of %d even splits were called uneven at level 0.1 %%", alarms, runs)
	}
}
