package fault

import (
	"net/http"
	"testing"
	"time"
)

func BenchmarkDecide(b *testing.B) {
	h := http.Header{"X-A": {"1"}}
	c := Call{Method: "GET", Header: h, Trace: "0af7651916cd43dd8448eb211c80319c"}
	for name, share := range map[string]float64{"none": 0, "missed": 1e-9, "hit": 1} {
		b.Run(name, func(b *testing.B) {
			var s Set
			if share > 0 {
				_ = s.Start(t0, Config{Name: "f", Share: share, TTL: time.Hour, Delay: &Delay{Distribution: LogNormal, Median: 1, P99: 2}, Traces: &Traces{0, 1}})
			}
			b.ReportAllocs()
			for range b.N {
				e, _ := s.Decide(t0, AtCall, "", c)
				e.Release()
				s.Observe(t0, false)
			}
		})
	}
}
