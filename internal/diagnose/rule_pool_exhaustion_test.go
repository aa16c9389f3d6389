package diagnose

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

func TestPoolExhaustion(t *testing.T) {
	// A request of 25 ms holds one of two connections for 20 ms.
	at, wait := bursts(2, 20)
	full := func(d dice, i int) string {
		w := wait(d, i)
		return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  orders %.3fms %.3fms kind=client db.system.name=postgresql", w+25, w+2, w+22)
	}
	wrapped := func(name, more string) func(d dice, i int) string {
		return func(d dice, i int) string {
			w := d.near(0.5)
			if i%20 == 7 {
				w = d.near(300)
			}
			return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  \"%s\" 1ms %.3fms %s\n    orders %.3fms %.3fms kind=client db.system.name=postgresql", w+20, name, w+15, more, w+2, w+14)
		}
	}
	named := func(d dice, i int) string {
		w := d.near(0.5)
		if i%20 == 7 {
			w = d.near(300)
		}
		return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  HikariPool.getConnection 1ms %.3fms\n  orders %.3fms %.3fms kind=client db.system.name=postgresql", w+20, w+1, w+2, w+14)
	}
	pools := func(p evidence.PoolStats) evidence.Facts {
		return evidence.Facts{Services: []evidence.ServiceFacts{{Service: "shop", Pools: []evidence.PoolStats{p}}}}
	}
	busy := func(d dice, _ int) string {
		w := d.near(40)
		return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  orders %.3fms %.3fms kind=client db.system.name=postgresql", w+12, w+2, w+10)
	}
	checkClass(t, "LP111", "pool_exhaustion", []classCase{
		{name: "waits before the query while the pool is full", text: full, at: at, service: "shop", verdict: Likely, says: "never do more run at once"},
		{name: "the wait has a span", text: named, service: "shop", verdict: Likely, says: "named after the wait"},
		{name: "waits in a span around the query", text: wrapped("orders.find", ""), service: "shop", verdict: Suspected, says: "in a span that does nothing else"},
		{name: "calls fail for want of a connection", text: func(d dice, i int) string {
			if i%20 == 7 {
				return "list 0ms 510ms service=shop kind=server\n  find 1ms 501ms failed exception.type=QueuePoolTimeout exception.message=\"QueuePool limit of size 5 reached\""
			}
			return wrapped("find", "")(d, 0)
		}, service: "shop", verdict: Likely, says: "want of a connection"},
		{
			name: "confirmed: the pool tells", text: wrapped("orders.find", ""), service: "shop", verdict: Confirmed, says: "5 of 5 connections in use, 7 requests wait",
			facts: pools(evidence.PoolStats{Name: "orders", Max: 5, Used: 5, Pending: 7, WaitP99: 300 * time.Millisecond}),
		},
		{
			name: "refuted: the pool never ran out", text: wrapped("orders.find", ""),
			facts: pools(evidence.PoolStats{Name: "orders", Max: 5, Used: 3, Known: true}),
		},
		{
			name: "doubted: the span says so, the pool does not", text: named, service: "shop", verdict: Suspected, says: "never ran out",
			facts: pools(evidence.PoolStats{Name: "orders", Max: 5, Used: 3, Known: true}),
		},
		{
			name: "confirmed: slow for nobody, but the pool tells", text: busy, service: "shop", verdict: Confirmed, says: "2 of 2 connections in use",
			facts: pools(evidence.PoolStats{Name: "orders", Max: 2, Used: 2, Pending: 4, WaitMean: 25 * time.Millisecond, WaitP99: 90 * time.Millisecond}),
		},
		{
			name: "near miss: the pool ran out for a moment, which explains nothing", text: busy,
			facts: pools(evidence.PoolStats{Name: "orders", Max: 2, Used: 2, Pending: 1, WaitMean: 100 * time.Microsecond, WaitP99: 3 * time.Millisecond}),
		},
		{
			name: "near miss: it is workers that ran out", text: busy, says: "LP107",
			facts: pools(evidence.PoolStats{Name: "http-worker-threads", Max: 5, Used: 5, Pending: 7, WaitP99: 90 * time.Millisecond}),
		},
		{name: "near miss: work before a query, and the pool not full", text: func(d dice, i int) string {
			w := d.near(2)
			if i%20 == 7 {
				w = d.near(300)
			}
			return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  orders %.3fms %.3fms kind=client db.system.name=postgresql", w+25, w+2, w+22)
		}},
		{name: "near miss: the query is slow", text: slowQuery(300)},
	})
}
