package load_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/load"
)

// BenchmarkSendLag is how late the generator is at a rate, over loopback, to a server in the same process that does
// nothing. Run it with -benchtime 1x; a run takes 4 s.
func BenchmarkSendLag(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	for _, rate := range []float64{200, 2000, 10_000, 20_000} {
		b.Run(fmt.Sprintf("%g per second", rate), func(b *testing.B) {
			for b.Loop() {
				s := load.Scenario{Targets: []load.Call{{URL: server.URL}}, Rate: rate, Warmup: time.Second, Duration: 4 * time.Second, Connections: 64}
				r, err := load.Run(b.Context(), s, load.RunOptions{Precise: true})
				if err != nil {
					b.Fatal(err)
				}
				valid := 0.0
				if r.Valid {
					valid = 1
				}
				b.ReportMetric(r.Total.Lag.P50, "lag_p50_ms")
				b.ReportMetric(r.Total.Lag.P99, "lag_p99_ms")
				b.ReportMetric(r.Total.Achieved, "calls/s")
				b.ReportMetric(100*r.CPU.Machine, "machine_%")
				b.ReportMetric(valid, "valid")
			}
		})
	}
}

// BenchmarkCall is what one call costs the generator, beside a bare transport: the difference is its overhead.
func BenchmarkCall(b *testing.B) {
	answer := answerer{}
	b.Run("generator", func(b *testing.B) {
		b.ReportAllocs()
		p := plan(100_000)
		p.Length = time.Duration(b.N) * 10 * time.Microsecond
		p.MaxInFlight = 1 << 20
		g, err := load.New(p, load.Options{Transport: answer})
		if err != nil {
			b.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := g.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N), "B/call")
	})
}

// answerer answers at once.
type answerer struct{}

func (answerer) RoundTrip(*http.Request) (*http.Response, error) { return answer(http.StatusOK), nil }
