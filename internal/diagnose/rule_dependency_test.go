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
		{name: "a third is slow, and what fails fails at once", text: func(d dice, i int) string {
			switch {
			case i%3 == 0:
				return pay(d.near(700), "")
			case i%10 == 1:
				return pay(0.1, "failed")
			}
			return pay(d.near(30), "")
		}, service: "api.bank.example"},
		{name: "a local proxy is not whom it calls", text: func(d dice, _ int) string {
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  POST 2ms %.3fms kind=client server.address=127.0.0.1 server.port=15001", 705.0, 700+d.near(1))
		}, service: "shop", says: "something that shop calls"},
		{name: "calls of a service that is recorded get lost", text: func(d dice, i int) string {
			if i%12 == 0 {
				return "buy 0ms 905ms service=shop kind=server\n  POST 2ms 902ms kind=client service.peer.name=bank failed error.type=refused"
			}
			took := d.near(20)
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  POST 2ms %.3fms kind=client service.peer.name=bank\n    pay 3ms %.3fms service=bank kind=server", took+5, took+3, took+2)
		}, n: 400, service: "bank", says: "calls of bank were not answered"},
		{name: "near miss: calls whose callee has lost its span", text: func(d dice, i int) string {
			if i%12 == 0 {
				return "buy 0ms 905ms service=shop kind=server\n  POST 2ms 902ms kind=client service.peer.name=bank\n  look 10ms 20ms service=stock kind=server parent=gone"
			}
			took := d.near(20)
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  POST 2ms %.3fms kind=client service.peer.name=bank\n    pay 3ms %.3fms service=bank kind=server", took+5, took+3, took+2)
		}, n: 400},
		{name: "near miss: as fast as ever", text: func(d dice, _ int) string { return pay(d.near(60), "") }},
		{name: "near miss: the far side is recorded", text: slowNow(300)},
	})
}
