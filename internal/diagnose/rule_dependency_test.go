package diagnose

import (
	"fmt"
	"testing"
)

func TestDependency(t *testing.T) {
	pay := func(took float64, more string) string {
		return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  POST 2ms %.3fms kind=client server.address=api.bank.example %s", took+5, took+2, more)
	}
	checkClass(t, "LP120", "dependency", []classCase{
		{name: "a brown-out", text: func(d dice, i int) string {
			if i >= 100 && i < 120 {
				return pay(d.near(900), "")
			}
			return pay(d.near(40), "")
		}, service: "api.bank.example", verdict: Likely, says: "ill for a while"},
		{name: "always slow", text: func(d dice, _ int) string { return pay(d.near(700), "") }, service: "api.bank.example", says: "always long"},
		{name: "slow and failing, old names", text: func(d dice, i int) string {
			took, more := d.near(40), ""
			if i%10 == 0 {
				took, more = d.near(900), "failed"
			}
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  POST 2ms %.3fms kind=client net.peer.name=bank %s", took+5, took+2, more)
		}, service: "bank", says: "10 % of the calls fail"},
		{name: "near miss: as fast as ever", text: func(d dice, _ int) string { return pay(d.near(60), "") }},
		{name: "near miss: the far side is recorded", text: slowNow(300)},
	})
}
