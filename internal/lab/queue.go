package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// maxMessages bounds a queue; what is more is dropped and counted, as by a stream with a bound.
const maxMessages = 100_000

// message is one that waits for a worker.
type message struct {
	from   identity
	poison bool
	tries  int
}

// queue is one queue of messages in this process, and its workers. A message whose work failed comes again at once, before
// the others, up to Deliveries times: as with an acknowledgement that says no.
type queue struct {
	sys    *System
	spec   scenario.Queue
	random *dice
	wake   chan struct{}

	mu      sync.Mutex
	waiting []message
	workers int // that may work
	busy    int
	in      int // since the phase began
	tried   int
	done    int
	again   int
	dropped int
	since   time.Time
}

func newQueue(s *System, spec scenario.Queue, seed uint64) *queue {
	q := &queue{sys: s, spec: spec, random: newDice(seed, spec.Name), wake: make(chan struct{}, 1), workers: spec.Workers}
	q.reset()
	return q
}

func (q *queue) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.in, q.tried, q.done, q.again, q.dropped, q.since = 0, 0, 0, 0, 0, time.Now()
}

// staff sets how many workers there are; those at work end what they began.
func (q *queue) staff(n int) {
	q.mu.Lock()
	q.workers = n
	q.mu.Unlock()
	q.rouse()
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) put(from identity) {
	m := message{from: from, poison: q.random.chance(q.spec.Poison)}
	q.mu.Lock()
	if q.in++; len(q.waiting) < maxMessages {
		q.waiting = append(q.waiting, m)
	} else {
		q.dropped++
	}
	q.mu.Unlock()
	q.rouse()
}

// take gives the next message, if there is one and a worker is free for it.
func (q *queue) take() (m message, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 || q.busy >= q.workers {
		return message{}, false
	}
	m, q.waiting = q.waiting[0], q.waiting[1:]
	q.busy++
	return m, true
}

// run hands messages to workers until ctx ends.
func (q *queue) run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	for number := 0; ; {
		if m, ok := q.take(); ok {
			number++
			workers.Go(func() { q.work(ctx, m, number%max(q.spec.Workers, 1)) })
			continue
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// work is one delivery, in its CONSUMER span.
func (q *queue) work(ctx context.Context, m message, worker int) {
	now := time.Now()
	host := instanceName(q.spec.Service, worker+1)
	x := &span{began: now, export: q.sys.spans.add, Span: trace.Span{
		TraceID: m.from.trace, ID: fmt.Sprintf("%016x", rand.Uint64()|1), Parent: m.from.span, Kind: trace.Consumer,
		Service: q.spec.Service, Name: "process " + q.spec.Name, Start: now.UnixNano(), Host: host,
	}}
	x.set("messaging.system", "nats").set("messaging.destination.name", q.spec.Name).set("messaging.operation.type", "process").
		set("service.instance.id", host).set("host.name", host)
	_ = pause(ctx, q.random.draw(q.spec.Work)) // at the end of the run the work ends early
	if m.poison {
		x.set("exception.type", "MalformedMessage").fail("MalformedMessage")
	}
	x.end()
	q.ended(m)
}

func (q *queue) ended(m message) {
	q.mu.Lock()
	q.busy--
	q.tried++
	if m.tries++; m.poison && m.tries < q.spec.Deliveries {
		q.again++
		q.waiting = append([]message{m}, q.waiting...)
	} else {
		q.done++
	}
	q.mu.Unlock()
	q.rouse()
}

// facts is what the broker tells of the time since the phase began.
func (q *queue) facts() evidence.QueueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	took := time.Since(q.since)
	s := evidence.QueueStats{
		Stream: q.spec.Name, Consumer: q.spec.Service, Span: took, Pending: uint64(len(q.waiting)), AckPending: q.busy, MaxAckPending: q.workers,
		Waiting: max(q.workers-q.busy, 0), Arrival: float64(q.in) / took.Seconds(), ArrivalExact: true, Delivery: float64(q.tried) / took.Seconds(),
		Service: float64(q.done) / took.Seconds(), NoWorkers: q.workers == 0 && len(q.waiting) > 0, Redelivered: q.again,
	}
	if s.Pending > 0 && s.Service > 0 {
		s.Known, s.Utilisation, s.Wait = true, s.Arrival/s.Service, time.Duration(float64(s.Pending)/s.Service*1e9)
		if s.Service > s.Arrival {
			s.Drain = time.Duration(float64(s.Pending) / (s.Service - s.Arrival) * 1e9)
		}
	}
	if q.workers > 0 {
		s.InWork = float64(q.busy) / float64(q.workers)
	}
	return s
}
