package advise

import (
	"fmt"

	"github.com/longpole/longpole/internal/trace"
)

var investigateEntry = entry{
	kind: KindInvestigate, step: StepLook, answers: []string{"LP105", "LP108", "LP124", "unknown"}, cure: investigate, plain: true,
	needs: []string{"somebody who may read the systems behind the spans"},
	watch: []string{"CPU of the service while a profile is taken"},
}

// investigate names the evidence to get next where the traces show which part is slow, but not why. It makes no
// forecast: nothing is changed.
func investigate(s *situation) (Action, string) {
	f := s.finding
	next := "a CPU and a blocking profile of the service while it is slow, its CPU throttling, and spans around its own steps"
	switch f.Segment {
	case trace.SegDatabase:
		next = "the plan of the statement with its real parameters (EXPLAIN ANALYZE), the rows it reads, lock waits and their holders, and the wait for a connection"
	case trace.SegDownstream:
		next = "spans of the callee itself: it sends none, or they do not reach this collector; then its timeouts, retries and saturation"
	case trace.SegNetwork:
		next = "how far apart the two are (zone, region), connection reuse and set-up times, payload sizes, retransmissions, and the queue in front of the callee's first span"
	case trace.SegQueue:
		next = "the arrival rate, the number of workers and how busy they are: a wait is cured by more workers only while they are the bottleneck"
	case trace.SegCache:
		next = "the hit ratio, the size of the values, and slow commands of the cache"
	case trace.SegGateway:
		next = "the gateway's own waits: retries, connection limits, and TLS and body times"
	}
	return Action{
		Kind:    KindInvestigate,
		Summary: fmt.Sprintf("find out why %s %s is slow before anything is changed: look at %s", f.Service, f.Operation, next),
		Benefit: "a cause in place of a place",
		Cost:    "an hour of somebody's time",
		Risk:    "none to the traffic; profiles and plans cost a little CPU while they are taken",
	}, ""
}
