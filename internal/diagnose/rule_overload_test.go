package diagnose

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

func TestOverload(t *testing.T) {
	at, wait := bursts(4, 30)
	shed := func(mark string) func(d dice, i int) string {
		return func(d dice, i int) string {
			took, mark := d.near(30), mark
			if wait(d, i) == 0 {
				mark = ""
			} else {
				took = 1
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms %.3fms kind=client %s\n    price 1.2ms %.3fms service=pricing kind=server %s", took+4, took+1, mark, took+0.8, mark)
		}
	}
	front := func(d dice, i int) string {
		if wait(d, i) == 0 {
			return "GET/a 0ms " + ms3(d.near(30)) + " service=shop kind=server"
		}
		return "GET/a 0ms 1ms service=shop kind=server http.status_code=429"
	}
	checkClass(t, "LP123", "overload", []classCase{
		{name: "it answers 503 when much is in work", text: shed("failed http.response.status_code=503"), at: at, service: "pricing", verdict: Likely, says: "when it refused"},
		{name: "gRPC's RESOURCE_EXHAUSTED", text: shed("failed rpc.grpc.status_code=8"), at: at, service: "pricing"},
		{name: "the front door refuses", text: front, at: at, service: "shop", says: "refuses 15 %"},
		{
			name: "confirmed: no processor is left", text: shed("failed http.response.status_code=503"), at: at, service: "pricing", verdict: Confirmed, says: "98 % of its processors",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(3.9), Procs: new(4.0)}),
		},
		{
			name: "doubted: it had processors to spare", text: shed("failed http.response.status_code=503"), at: at, service: "pricing", says: "its limit is too low",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.4), Procs: new(4.0)}),
		},
		{name: "who passes on a refusal refuses nothing itself", text: func(d dice, i int) string {
			took, mark := d.near(30), ""
			if wait(d, i) > 0 {
				took, mark = 1, "failed http.response.status_code=503"
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server %s\n  GET 1ms %.3fms kind=client %s\n    cart 1.1ms %.3fms service=cart kind=server %s\n"+
				"      GET 1.2ms %.3fms kind=client %s\n        price 1.3ms %.3fms service=pricing kind=server %s",
				took+5, mark, took+4, mark, took+3, mark, took+2, mark, took+1.5, mark)
		}, at: at, service: "pricing"},
		{name: "near miss: other errors", text: shed("failed http.response.status_code=500"), at: at},
		{name: "near miss: one in a hundred", text: func(d dice, i int) string {
			if i%100 == 3 {
				return asks(1, "failed http.response.status_code=503")
			}
			return asks(d.near(30), "")
		}},
	})
}
