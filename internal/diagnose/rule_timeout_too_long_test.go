package diagnose

import (
	"fmt"
	"testing"
)

// asks is a request whose call takes took ms.
func asks(took float64, attributes string) string {
	return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  POST 1ms %.3fms kind=client peer.service=rates %s", took+4, took+1, attributes)
}

func TestTimeoutTooLong(t *testing.T) {
	hangs := func(mark string) func(d dice, i int) string {
		return func(d dice, i int) string {
			if i%20 == 7 {
				return asks(30_000, mark)
			}
			return asks(d.near(40), "")
		}
	}
	checkClass(t, "LP118", "timeout_too_long", []classCase{
		{name: "30 seconds for what takes 40 ms", text: hangs("failed error.type=timeout"), service: "shop", says: "waits 30s for rates"},
		{name: "told by the status of gRPC", text: hangs("failed rpc.grpc.status_code=4"), service: "shop"},
		{name: "told by the old status of HTTP", text: hangs("http.status_code=504"), service: "shop"},
		{name: "behind a gateway, which is not what it waits for", text: func(d dice, i int) string {
			took, mark, answer := d.near(40), "", ""
			if i%20 == 7 {
				took, mark = 30_000, "failed error.type=timeout"
			} else {
				answer = fmt.Sprintf("\n        \"GET /rates\" 1.3ms %.3fms service=rates kind=server", took)
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms %.3fms kind=client %s\n    route 1.1ms %.3fms service=longpole-gateway kind=server longpole.segment=gateway\n      try 1.2ms %.3fms kind=client service.peer.name=rates%s",
				took+4, took+2, mark, took+1.5, took+1, answer)
		}, service: "shop", says: "waits 30s for rates"},
		{name: "near miss: it fits what is called", text: func(d dice, i int) string {
			if i%20 == 7 {
				return asks(200, "failed error.type=timeout")
			}
			return asks(d.near(40), "")
		}},
		{name: "near miss: failures that are no time-outs", text: hangs("failed error.type=refused")},
		{name: "near miss: two in 200 are too few", text: func(d dice, i int) string {
			if i%100 == 7 {
				return asks(30_000, "failed error.type=timeout")
			}
			return asks(d.near(40), "")
		}},
	})
}
