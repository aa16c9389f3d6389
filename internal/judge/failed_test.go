package judge

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// TestLatenciesOfFailedCalls has arms of 200 calls a slice: a share of them fail after so long, the others are answered as
// cohort's are, with a p50 of 20 ms and a p99 of 64 ms.
func TestLatenciesOfFailedCalls(t *testing.T) {
	type arm struct {
		failing  float64
		after    time.Duration // the failures
		answered time.Duration // so many more are answered after this; 0 = as the others
	}
	const calls = 200
	for name, c := range map[string]struct {
		baseline, candidate arm
		slow, worse         bool // a latency, the whole
	}{
		"a quick failure is no quick answer":       {arm{failing: 0.8, after: time.Millisecond}, arm{}, false, false},
		"nor is it where everything fails":         {arm{failing: 1, after: time.Millisecond}, arm{}, false, false},
		"a slow failure is no quicker than a mend": {arm{failing: 0.1, after: time.Second}, arm{failing: 0.1, answered: time.Second}, false, false},
		"failures that become slow are slow":       {arm{failing: 0.1, after: time.Millisecond}, arm{failing: 0.1, after: time.Second}, true, true},
		"more quick failures are errors alone":     {arm{}, arm{failing: 0.1, after: time.Millisecond}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 7))
			did := func(a arm) stats.Tally {
				n := int(a.failing * calls)
				t := cohort(rng, calls-n, 1)
				t.Calls, t.Attempts = calls, calls
				for range n {
					if a.answered > 0 {
						t.Latency = t.Latency.Merge(stats.Of(a.answered))
						continue
					}
					t.Failed++
					t.FailedLatency = t.FailedLatency.Merge(stats.Of(a.after))
				}
				t.Downstreams = []stats.Downstream{{Name: "orders", Calls: calls, Failed: t.Failed, Latency: t.Latency, FailedLatency: t.FailedLatency}}
				return t
			}
			j := New(Config{})
			var base, tried stats.Tally
			for range 10 {
				base = base.Merge(did(c.baseline))
			}
			j.Freeze(base)
			for range 120 {
				b, x := did(c.baseline), did(c.candidate)
				j.Watch(b, x)
				j.Add(b, x)
				base, tried = base.Merge(b), tried.Merge(x)
			}
			g := j.Judgement(base, tried)
			slow := false
			for _, m := range g.Metrics {
				slow = slow || m.Verdict == Worse && (m.Metric == "p50" || m.Metric == "p95" || m.Metric == "p99" || m.Metric == "orders p95")
			}
			if slow != c.slow || (g.Verdict == Worse) != c.worse {
				t.Errorf("%v, slow %v: %s", g.Verdict, slow, g.Sentence)
			}
			if !c.worse && g.Verdict != Improved && g.Verdict != NoWorse {
				t.Errorf("%v: %s", g.Verdict, g.Sentence)
			}
		})
	}
}
