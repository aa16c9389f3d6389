package diagnose

import (
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

// When traces are no fair sample of the calls that the servers' own histograms counted. A bound of a bucket may be a few times the
// value in it.
const (
	leastFair  = 100 // traces; the p99 of fewer is a matter of luck
	tooSlow    = 2.0 // times that traces are slower than the upper bound of the histogram's bucket
	tooFast    = 10.0
	mostUnfair = 5 // notes
)

// unfair compares the routes with what the metrics of their services tell of all calls, and says where the traces mislead: head
// sampling that misses the slow, or tail sampling whose weights are lost.
func unfair(routes []Route, f *evidence.Facts) (notes []string) {
	for i := range routes {
		r := &routes[i]
		all := f.Route(r.Service, r.Operation)
		if all == nil || all.P99 <= 0 || r.Traces < leastFair || len(notes) == mostUnfair {
			continue
		}
		told := float64(all.P99) / float64(time.Millisecond)
		switch {
		case r.Latency.P99 > tooSlow*told && !all.Beyond:
			notes = append(notes, fmt.Sprintf("the traces of %s %s are slower than its calls: p99 %.0f ms, where its metrics count %.1f calls/s with a p99 of at most %.0f ms: the slow ones were picked, and their weights are not known",
				r.Service, r.Operation, r.Latency.P99, all.Calls, told))
		case tooFast*r.Latency.P99 < told:
			notes = append(notes, fmt.Sprintf("the traces of %s %s miss its slow calls: p99 %.0f ms, where its metrics count %.1f calls/s with a p99 of about %.0f ms",
				r.Service, r.Operation, r.Latency.P99, all.Calls, told))
		}
	}
	return notes
}
