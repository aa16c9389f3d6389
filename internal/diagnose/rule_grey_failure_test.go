package diagnose

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

func TestGreyFailure(t *testing.T) {
	on := func(host int, took float64, mark string) string {
		return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms %.3fms kind=client server.address=10.0.0.%d %s\n    price 1.2ms %.3fms service=pricing kind=server %s", took+4, took+1, host, mark, took+0.8, mark)
	}
	checkClass(t, "LP122", "grey_failure", []classCase{
		{name: "one of three endpoints fails, fast", text: func(d dice, i int) string {
			if i%3 == 1 && i%2 == 0 {
				return on(1, 2, "failed http.response.status_code=500")
			}
			return on(i%3, d.near(30), "")
		}, service: "pricing", says: "endpoint 10.0.0.1"},
		{name: "all of it fails, fast", text: func(d dice, i int) string {
			if i%4 == 0 {
				return "page 0ms 20ms service=shop kind=server\n  POST 1ms 2ms kind=client peer.service=rates failed"
			}
			return asks(d.near(30), "")
		}, service: "rates", says: "and fast"},
		{name: "who fails because its callee does is not ill itself", text: func(d dice, i int) string {
			took, mark := d.near(30), ""
			if i%4 == 0 {
				took, mark = 2, "failed http.response.status_code=500"
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms %.3fms kind=client %s\n    cart 1.1ms %.3fms service=cart kind=server %s\n      work 1.2ms %.3fms %s\n"+
				"        GET 1.3ms %.3fms kind=client peer.service=rates %s", took+5, took+4, mark, took+3, mark, took+2.5, mark, took+2, mark)
		}, service: "rates"},
		{name: "nor is a gateway whose attempt is told as fine, and its callee as failed", text: func(d dice, i int) string {
			took, mark := d.near(30), ""
			if i%4 == 0 {
				took, mark = 2, "failed rpc.grpc.status_code=13"
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client %s\n    route 1.1ms %.3fms service=longpole-gateway kind=server longpole.segment=gateway %s\n"+
				"      try 1.2ms %.3fms kind=client\n        rate 1.3ms %.3fms service=tax kind=server %s", took+5, took+4, mark, took+3, mark, took+2.5, took+2, mark)
		}, service: "tax"},
		{name: "one of three says that it is not available, with no more to do than the others", text: func(d dice, i int) string {
			if i%3 == 1 && i%2 == 0 {
				return on(1, 2, "failed http.response.status_code=503")
			}
			return on(i%3, d.near(30), "")
		}, service: "pricing", says: "endpoint 10.0.0.1"},
		{name: "near miss: the one that refuses is slow, too", text: func(d dice, i int) string {
			if i%3 == 1 && i%2 == 0 {
				return on(1, 2, "failed http.response.status_code=503")
			}
			return on(i%3, d.near([]float64{30, 80, 30}[i%3]), "")
		}},
		{name: "near miss: all three refuse", text: func(d dice, i int) string {
			if i%4 == 0 {
				return on(i%3, 2, "failed http.response.status_code=503")
			}
			return on(i%3, d.near(30), "")
		}},
		{
			name: "near miss: it has no processor to spare", text: func(d dice, i int) string {
				if i%3 == 1 && i%2 == 0 {
					return on(1, 2, "failed http.response.status_code=503")
				}
				return on(i%3, d.near(30), "")
			}, facts: ofService("pricing", evidence.RuntimeStats{CPU: new(3.9), Procs: new(4.0)}),
		},
		{name: "near miss: errors as seldom as everywhere", text: func(d dice, i int) string {
			if i%100 == 1 {
				return on(i%3, 2, "failed")
			}
			return on(i%3, d.near(30), "")
		}},
		{name: "near miss: what fails takes as long", text: func(d dice, i int) string {
			if i%3 == 1 {
				return on(1, d.near(30), "failed")
			}
			return on(i%3, d.near(30), "")
		}},
		{name: "near miss: it refuses, as it has too much to do", text: func(d dice, i int) string {
			if i%4 == 1 {
				return on(1, 2, "failed http.response.status_code=503")
			}
			return on(i%3, d.near(30), "")
		}},
	})
}
