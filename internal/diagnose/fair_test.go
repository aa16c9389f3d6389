package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

func TestTracesThatAreNoFairSampleAreSaidToBe(t *testing.T) {
	traces := many(t, 200, same("GET/x 0ms 100ms kind=server"))
	for i := range traces {
		traces[i].Spans[0].Name = "GET /x"
	}
	for _, c := range []struct {
		name string
		n    int
		p99  time.Duration
		far  bool
		says string
	}{
		{"as slow as the metrics say", 200, 250 * time.Millisecond, false, ""},
		{"slower", 200, 40 * time.Millisecond, false, "are slower than its calls"},
		{"faster by far", 200, 2500 * time.Millisecond, false, "miss its slow calls"},
		{"slower than the last bound, above which the metrics are, too", 200, 40 * time.Millisecond, true, ""},
		{"too few to tell", 50, 2500 * time.Millisecond, false, ""},
		{"nothing was told", 200, 0, false, ""},
	} {
		facts := evidence.Facts{Routes: []evidence.RouteStats{{Service: "svc", Route: "GET /x", Calls: 10, P99: c.p99, Beyond: c.far}}}
		notes := strings.Join(Run(traces[:c.n], Options{Facts: facts}).Notes, "\n")
		if c.says == "" && notes != "" || !strings.Contains(notes, c.says) {
			t.Errorf("%s: %q, want %q", c.name, notes, c.says)
		}
	}
}
