package diagnose

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

// bursts sends 10 requests at once every second 20, else one a 100 ms. Workers take them in turn, work ms each.
func bursts(workers int, work float64) (at func(d dice, i int) time.Duration, wait func(d dice, i int) float64) {
	at = func(_ dice, i int) time.Duration {
		round, k := i/40, i%40
		if k < 30 {
			return time.Duration(round)*10*time.Second + time.Duration(k)*100*time.Millisecond
		}
		return time.Duration(round)*10*time.Second + 5*time.Second + time.Duration(k-30)*time.Millisecond
	}
	wait = func(_ dice, i int) float64 {
		if k := i % 40; k >= 30 {
			return float64((k-30)/workers) * work
		}
		return 0
	}
	return at, wait
}

func TestQueueing(t *testing.T) {
	at, wait := bursts(1, 40)
	busy := func(d dice, i int) string { return page(wait(d, i)+d.near(20), "") }
	door := func(d dice, i int) string { // the wait is before the server's span begins
		way := wait(d, i)
		return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client\n    price %.3fms %.3fms service=pricing kind=server", way+24, way+23, way+1.5, way+22)
	}
	mail := func(wait func(i int) float64) func(d dice, i int) string {
		return func(d dice, i int) string {
			w := wait(i)
			return fmt.Sprintf("buy 0ms 30ms service=shop kind=server\n  \"mails publish\" 10ms 12ms kind=producer messaging.destination.name=mails\n    \"mails process\" %.3fms %.3fms service=mailer kind=consumer", w+12, w+12+d.near(50))
		}
	}
	grows := func(i int) float64 { return float64(i) * 100 }
	sent := func(d dice, _ int) string {
		return fmt.Sprintf("buy 0ms 30ms service=shop kind=server\n  \"mails publish\" 10ms %.3fms kind=producer messaging.destination.name=mails", 10+d.near(2))
	}
	queue := func(q evidence.QueueStats) evidence.Facts {
		q.Stream, q.Consumer = "mails", "CONVERTER"
		return evidence.Facts{Queues: []evidence.QueueStats{q}}
	}
	behind := evidence.QueueStats{Span: 12 * time.Second, Arrival: 12, Service: 1.2, Utilisation: 10, Known: true, Pending: 140, AckPending: 3, Wait: 119 * time.Second, InWork: 1}
	workers := func(p evidence.PoolStats) evidence.Facts {
		return evidence.Facts{Services: []evidence.ServiceFacts{{Service: "pricing", Pools: []evidence.PoolStats{p}}}}
	}
	often := func(_ dice, i int) time.Duration { return time.Duration(i) * 10 * time.Millisecond }
	// Two workers take 20 ms for each call, and as many come in as they can do, each after a queue of so many.
	steady := func(_ dice, i, queue int) string {
		from := float64(10 * queue)
		return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client\n    price %.3fms %.3fms service=pricing kind=server", from+24, from+23, from+2, from+21.9)
	}
	checkClass(t, "LP107", "queueing", []classCase{
		{name: "bursts wait inside the service", text: busy, at: at, service: "pricing", variant: "arrival", says: "requests were in work there"},
		{name: "bursts wait at its door", text: door, at: at, service: "pricing", variant: "arrival"},
		{
			name: "confirmed: ready work waits for a processor", text: busy, at: at, service: "pricing", verdict: Confirmed, says: "50 ms for a processor",
			facts: ofService("pricing", evidence.RuntimeStats{SchedP99: new(0.05)}),
		},
		{
			name: "doubted: the processors were idle", text: busy, at: at, service: "pricing", verdict: Likely, says: "a worker, a lock or a connection",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.2), Procs: new(4.0)}),
		},
		{
			name: "confirmed: all workers are taken, and every call waits alike", text: func(d dice, _ int) string { return wire(d, d.near(60)) }, service: "pricing", variant: "arrival", verdict: Confirmed,
			says: "4 of 4 workers in use, 9 requests wait", facts: workers(evidence.PoolStats{Name: "workers", Max: 4, Used: 4, Pending: 9, WaitMean: 50 * time.Millisecond}),
		},
		{name: "every call waits at the door, while the two that are let in are in work", text: func(d dice, i int) string { return steady(d, i, 8) }, at: often, service: "pricing", says: "never are there more"},
		{name: "near miss: as many calls on a long way", text: func(d dice, _ int) string { return wire(d, d.near(160)) }, at: often},
		{
			name: "near miss: a long way, and workers to spare", text: func(d dice, _ int) string { return wire(d, d.near(80)) },
			facts: workers(evidence.PoolStats{Name: "workers", Max: 4, Used: 2, Known: true}),
		},
		{name: "a backlog of messages", text: mail(grows), service: "mailer", variant: "message", says: "more comes in than is worked off"},
		{
			name: "confirmed: the broker's backlog grows", text: mail(grows), service: "mailer", verdict: Confirmed, says: "10.0 messages a second come in and 5.0",
			facts: evidence.Facts{Queues: []evidence.QueueStats{{Stream: "MAILS", Arrival: 10, Service: 5, Utilisation: 2, Known: true, Pending: 900}}},
		},
		{
			name: "confirmed: nobody works", text: mail(grows), service: "mailer", verdict: Confirmed, says: "nobody works on mails",
			facts: evidence.Facts{Queues: []evidence.QueueStats{{Stream: "mails", NoWorkers: true, Pending: 10}}},
		},
		{
			name: "refuted: workers are idle", text: mail(func(int) float64 { return 2000 }), service: "mailer", verdict: Suspected, says: "held back elsewhere",
			facts: evidence.Facts{Queues: []evidence.QueueStats{{Stream: "mails", Waiting: 3}}},
		},
		{name: "the wait of messages has long been growing", text: mail(func(i int) float64 { return 20000 + float64(i)*150 }), service: "mailer", variant: "message", says: "more comes in than is worked off"},
		{name: "near miss: it has grown, and goes on alike", text: mail(func(i int) float64 { return 20000 + float64(i%7)*30 }), service: "mailer", variant: "message", says: "does not grow"},
		{
			name: "confirmed: nothing that was sent is worked on yet, as three workers have ten times as much", text: sent, service: "CONVERTER", variant: "message", verdict: Confirmed,
			says: "12.0 messages a second come in and 1.2", facts: queue(behind),
		},
		{
			name: "confirmed: none of it is ever finished", text: sent, service: "CONVERTER", variant: "message", verdict: Confirmed, says: "finished none in 12",
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 12, Pending: 140, AckPending: 3, InWork: 1}),
		},
		{name: "confirmed: nobody is there to work on it", text: sent, service: "CONVERTER", verdict: Confirmed, says: "nobody works on mails", facts: queue(evidence.QueueStats{NoWorkers: true, Pending: 40})},
		{
			name: "confirmed: the workers are gone since a while", text: sent, service: "CONVERTER", verdict: Confirmed, says: "no worker holds one or asks for one",
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 25, Service: 2.5, Pending: 278, Wait: 111 * time.Second}),
		},
		{
			name: "near miss: nothing is held at this moment, and the workers keep up", text: sent,
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 25, Service: 23, Pending: 24, Wait: 1043 * time.Millisecond}),
		},
		{name: "near miss: the broker tells of another queue", text: sent, facts: evidence.Facts{Queues: []evidence.QueueStats{{Stream: "orders", Arrival: 12, NoWorkers: true, Pending: 140}}}},
		{
			name: "near miss: a burst that is worked off within a second", text: sent,
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 40, Service: 39, Utilisation: 1.03, Known: true, Pending: 20, AckPending: 3, Wait: 590 * time.Millisecond, InWork: 1}),
		},
		{
			name: "near miss: long work, and no more waits than is in work", text: sent,
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 1.2, Service: 1.2, Utilisation: 1, Known: true, Pending: 6, AckPending: 4, Wait: 8 * time.Second, InWork: 1}),
		},
		{
			name: "near miss: a backlog that workers come down from", text: sent,
			facts: queue(evidence.QueueStats{Span: 12 * time.Second, Arrival: 3, Service: 12, Utilisation: 0.25, Known: true, Pending: 140, AckPending: 3, Wait: 12 * time.Second, InWork: 1}),
		},
		{name: "near miss: slow at times, but not when more is in work", text: func(d dice, i int) string {
			if i%40 == 3 {
				return page(400, "")
			}
			return page(d.near(20), "")
		}, at: at},
		{name: "near miss: bursts, and workers for all", text: func(d dice, i int) string { return page(d.near(20), "") }, at: at},
		{name: "near miss: messages wait no longer than usual", text: mail(func(i int) float64 { return float64(i % 50) })},
	})
}
