package judge

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// A downstream that restarts now and then fails attempts of both arms, all of which are made again.
func TestADownstreamThatFailsInBothArmsIsNoWorse(t *testing.T) {
	const calls, failing, runs, slices = 35, 0.04, 60, 150 // 5000 calls of each arm
	r := rand.New(rand.NewPCG(7, 7))
	tally := func(rate float64) stats.Tally {
		x := stats.Tally{Calls: calls, Attempts: calls}
		d := stats.Downstream{Name: "orders", Calls: calls}
		var took []time.Duration
		for range calls {
			took = append(took, time.Duration(20e6*(0.8+0.4*r.Float64())))
			if r.Float64() < rate {
				d.Failed++
			}
		}
		x.Latency = stats.Of(took...)
		d.Latency = x.Latency
		x.Downstreams = []stats.Downstream{d}
		return x
	}
	passed := func(rate float64) (n int) {
		for range runs {
			j := New(Config{})
			j.Freeze(tally(failing).Merge(tally(failing)).Merge(tally(failing)))
			for range slices {
				j.Add(tally(failing), tally(rate))
			}
			row, _ := j.downstream("orders")
			if j.passed(row + downErrors) {
				n++
			}
		}
		return n
	}
	if n := passed(failing); n < runs/2 {
		t.Errorf("%d of %d runs with equal arms show no harm", n, runs)
	}
	if n := passed(1.5 * failing); n > runs/20 {
		t.Errorf("%d of %d runs in which half as many again fail show no harm", n, runs)
	}
}
