package judge

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// turns is the pairs of a switchback under an overload whose queue is long in some of the baseline's turns, and short in others.
type turns struct {
	rng *rand.Rand
}

func (x *turns) tally(scale float64, queue bool) stats.Tally {
	const calls = 150
	wait := 0.0 // of the whole turn
	if queue {
		wait = 1200 * x.rng.Float64()
	}
	var took []time.Duration
	for range calls {
		took = append(took, time.Duration(scale*1e6*(60+100*x.rng.Float64()+wait*(0.5+0.5*x.rng.Float64()))))
	}
	t := stats.Tally{Calls: calls, Attempts: calls, Latency: stats.Of(took...)}
	t.Downstreams = []stats.Downstream{{Name: "orders", Latency: t.Latency, Calls: calls}}
	return t
}

// passed is how many of some comparisons say within pairs that the candidate is no worse on p95, p99 and the downstream's p95.
func (x *turns) passed(runs, pairs int, candidate func() stats.Tally) (n int) {
	for range runs {
		j := New(Config{Blocks: true})
		base := x.tally(1, true).Merge(x.tally(1, true))
		j.Freeze(base)
		for range pairs {
			b := x.tally(1, true)
			j.Add(b, candidate())
			base = base.Merge(b)
			j.Freeze(base)
		}
		row, _ := j.downstream("orders")
		if j.passed(p95) && j.passed(p99) && j.passed(row+downLatency) {
			n++
		}
	}
	return n
}

func TestABigImprovementShowsAlthoughTheBaselineIsSlowInBursts(t *testing.T) {
	x := &turns{rand.New(rand.NewPCG(4, 4))}
	const runs = 40
	if n := x.passed(runs, 20, func() stats.Tally { return x.tally(1, false) }); n < runs*9/10 {
		t.Errorf("%d of %d runs show within 20 pairs that answers without a queue are no slower", n, runs)
	}
}

func TestBurstsOfBothArmsAreNoImprovement(t *testing.T) {
	x := &turns{rand.New(rand.NewPCG(5, 5))}
	const runs = 200
	if n := x.passed(runs, 25, func() stats.Tally { return x.tally(1.3, true) }); n > runs/20 {
		t.Errorf("%d of %d runs pass a candidate that takes 1.3 times as long", n, runs)
	}
}
