package diagnose

import (
	"fmt"
	"testing"
)

func TestTimeoutTooShort(t *testing.T) {
	// The caller gives up after limit ms; the callee goes on.
	impatient := func(limit, need float64) func(d dice, i int) string {
		return func(d dice, _ int) string {
			work := d.near(need)
			took, mark := work+1, ""
			if took > limit {
				took, mark = limit, "failed error.type=timeout"
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  POST 1ms %.3fms kind=client %s\n    price 1.5ms %.3fms service=pricing kind=server", took+4, took+1, mark, work+1.5)
		}
	}
	checkClass(t, "LP119", "timeout_too_short", []classCase{
		{name: "the callee answers after its caller has gone", text: impatient(60, 50), service: "shop", says: "went on and answered well"},
		{name: "the answers press against it", text: func(d dice, _ int) string {
			took, mark := d.near(50), ""
			if took > 60 {
				took, mark = 60, "failed http.status_code=504"
			}
			return asks(took, mark)
		}, service: "shop", says: "press against it"},
		{name: "near miss: a guard against outliers", text: impatient(120, 50)},
		{name: "near miss: the callee hangs", text: func(d dice, i int) string {
			if i%10 == 7 {
				return "page 0ms 504ms service=shop kind=server\n  POST 1ms 501ms kind=client failed error.type=timeout\n    price 1.5ms 20000ms service=pricing kind=server failed"
			}
			return impatient(500, 20)(d, i)
		}},
	})
}
