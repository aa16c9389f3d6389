package diagnose

import (
	"fmt"
	"testing"
)

func TestSyncWork(t *testing.T) {
	// after is the time from the end of the call to the answer.
	last := func(callee, name string, after float64, mark string) func(d dice, i int) string {
		return func(d dice, i int) string {
			took, mark := d.near(30), mark
			if i%10 > 0 {
				mark = ""
			}
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  save 1ms 20ms kind=client db.system.name=postgresql\n  call 24ms %.3fms kind=client %s\n    \"%s\" 24.5ms %.3fms service=%s kind=server", 24+took+after, 24+took, mark, name, 23.5+took, callee)
		}
	}
	checkClass(t, "LP125", "sync_work", []classCase{
		{name: "an email before the answer", text: last("emailservice", "SendOrderConfirmation", 0.5, ""), service: "shop", says: "its name tells"},
		{name: "an audit that may fail", text: last("backend", "AuditTrail/Write", 0.5, "failed"), service: "shop", says: "failed and the answer did not"},
		{name: "a message is published", text: func(d dice, _ int) string {
			took := d.near(30)
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  save 1ms 20ms kind=client db.system.name=postgresql\n  \"orders publish\" 24ms %.3fms kind=producer messaging.system=kafka messaging.destination.name=order-events", 24.5+took, 24+took)
		}, service: "shop"},
		{name: "near miss: as a rule it takes no time", text: func(d dice, i int) string {
			took := d.near(2)
			if i%10 == 3 {
				took = 80
			}
			return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n  save 1ms 20ms kind=client db.system.name=postgresql\n  call 24ms %.3fms kind=client peer.service=email", 24.5+took, 24+took)
		}},
		{name: "near miss: the result is used", text: last("emailservice", "Validate", 20, "")},
		{name: "near miss: work that the answer needs", text: last("pricing", "Quote", 0.5, "")},
		{name: "near miss: a gateway in front of a service for mail", text: func(d dice, _ int) string {
			took := d.near(30)
			return fmt.Sprintf("inbox.mail 0ms %.3fms service=gateway kind=server longpole.segment=gateway\n  attempt 0.1ms %.3fms kind=client\n    \"GET /inbox/mail\" 0.2ms %.3fms service=inbox kind=server", took+0.3, took+0.2, took+0.1)
		}},
		{name: "near miss: it takes no time", text: func(d dice, _ int) string {
			return "buy 0ms 100ms service=shop kind=server\n  save 1ms 90ms kind=client db.system.name=postgresql\n  call 98ms 99ms kind=client peer.service=email"
		}},
	})
}
