package load

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestUniformArrivalsNeverDrift(t *testing.T) {
	p := newPacer(Uniform, 3, nil, Burst{}, 1, 0)
	for i := range 30_001 {
		got := p.next()
		if want := time.Duration(float64(i) / 3 * 1e9); got != want {
			t.Fatalf("arrival %d is due at %s; want %s", i, got, want)
		}
	}
}

func TestPoissonGapsAreExponential(t *testing.T) {
	const n, perSecond = 100_000, 250.0
	p := newPacer(Poisson, perSecond, nil, Burst{}, 42, 0)
	var last time.Duration
	var sum, squares float64
	var short int
	for range n {
		due := p.next()
		gap := (due - last).Seconds()
		if last = due; gap < 0 {
			t.Fatal("arrivals ran backwards")
		}
		sum, squares = sum+gap, squares+gap*gap
		if gap < math.Ln2/perSecond {
			short++
		}
	}
	mean := sum / n
	if rate := 1 / mean; math.Abs(rate/perSecond-1) > 0.01 {
		t.Errorf("rate is %.1f/s; want 250/s", rate)
	}
	if cv := math.Sqrt(squares/n-mean*mean) / mean; math.Abs(cv-1) > 0.02 {
		t.Errorf("coefficient of variation is %.3f; want 1, that of an exponential", cv)
	}
	if half := float64(short) / n; math.Abs(half-0.5) > 0.01 {
		t.Errorf("%.3f of the gaps lie below ln 2 / rate; want half", half)
	}
}

func TestStreamsDrawFromSourcesOfTheirOwn(t *testing.T) {
	a, b := newPacer(Poisson, 10, nil, Burst{}, 1, 0), newPacer(Poisson, 10, nil, Burst{}, 1, 1)
	if a.next() == b.next() {
		t.Error("two targets of one plan arrive together")
	}
}

func TestWeightedDrawsInProportion(t *testing.T) {
	draw := Weighted(Choice{"a", 1}, Choice{"never", 0}, Choice{"b", 3}, Choice{"nor", -2})
	r := rand.New(rand.NewPCG(1, 2))
	count := make(map[string]int)
	for range 10_000 {
		count[draw(r)]++
	}
	if len(count) != 2 || count["a"] < 2300 || count["a"] > 2700 {
		t.Errorf("drew %v; want about 2500 a and 7500 b", count)
	}
	if got := Weighted()(r); got != "" {
		t.Errorf("drew %q from nothing", got)
	}
}
