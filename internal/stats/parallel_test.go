package stats

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkRecordParallel records latencies as they occur, log-normal around 20 ms, from all cores at once.
func BenchmarkRecordParallel(b *testing.B) {
	var h Histogram
	var seed atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(seed.Add(1), 2))
		latencies := make([]time.Duration, 1024)
		for i := range latencies {
			latencies[i] = time.Duration(20e6 * math.Exp(0.5*rng.NormFloat64()))
		}
		for i := 0; pb.Next(); i++ {
			h.Record(latencies[i%len(latencies)])
		}
	})
}
