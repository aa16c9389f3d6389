package diagnose

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

// wire is a call whose callee works 10 ms, and that takes the caller way ms more.
func wire(d dice, way float64) string {
	work := d.near(10)
	return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client\n    price %.3fms %.3fms service=pricing kind=server", work+way+3, work+way+2, 1+way/2, 1+way/2+work)
}

func TestNetwork(t *testing.T) {
	loss := func(d dice, i int) string {
		if i%20 == 7 {
			return wire(d, d.near(1)+205)
		}
		return wire(d, d.near(1))
	}
	delay := func(d dice, _ int) string { return wire(d, d.near(80)) }
	checkClass(t, "LP108", "network", []classCase{
		{name: "packets are lost", text: loss, service: "pricing", verdict: Likely, says: "TCP sends again"},
		{name: "a long way", text: delay, service: "pricing", says: "always long"},
		{
			name: "the callee had time", text: loss, service: "pricing", says: "processors to spare",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.3), Procs: new(4.0)}),
		},
		{
			name: "doubted: the callee was busy", text: delay, service: "pricing", verdict: Suspected, says: "late to take the call",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(3.9), Procs: new(4.0)}),
		},
		{name: "near miss: a little longer at times, as between busy machines", text: func(d dice, i int) string {
			if i%20 == 7 {
				return wire(d, d.near(12))
			}
			return wire(d, d.near(1))
		}},
		{name: "near miss: a short way", text: func(d dice, _ int) string { return wire(d, d.near(2)) }},
		{name: "near miss: the callee works", text: slowNow(300)},
	})
}
