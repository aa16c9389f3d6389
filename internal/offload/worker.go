package offload

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// worker is the name of the durable consumer of each queue, which all gateways share.
const worker = "workers"

// maxError bounds the text of an error in a state.
const maxError = 1 << 10

// Verdict is how an attempt to deliver ended.
type Verdict uint8

// The verdicts.
const (
	Delivered Verdict = iota // the job is done
	Retry                    // it failed, and may succeed later
	Permanent                // it failed, and will again
	Unsent                   // nothing was sent, because a policy held it back: it comes again, and no attempt is counted
)

// Outcome is what a Deliver reports.
type Outcome struct {
	Verdict Verdict
	Status  int           // HTTP status of the answer; 0 = none
	Reason  string        // of a failure, in one word
	Error   string        // of a failure
	After   time.Duration // not before this time (Retry-After); 0 = no wish
}

// Delivery is one attempt.
type Delivery struct {
	Job     *Job
	Attempt int           // counted from 1
	Waited  time.Duration // since the job was accepted
}

// Deliver makes one attempt. It must return soon after ctx is done, and is called from up to Concurrency goroutines.
type Deliver func(ctx context.Context, d Delivery) Outcome

// slots bound what is under way. The bound may change at any time.
type slots struct {
	mu          sync.Mutex
	limit, used int
	freed       chan struct{} // of capacity 1: look again
}

func (s *slots) resize(n int) {
	s.mu.Lock()
	s.limit = n
	s.mu.Unlock()
	s.signal()
}

func (s *slots) signal() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// take waits for room, and takes all there is; 0 when ctx is done.
func (s *slots) take(ctx context.Context) int {
	for {
		s.mu.Lock()
		n := max(s.limit-s.used, 0)
		s.used += n
		s.mu.Unlock()
		if n > 0 {
			return n
		}
		select {
		case <-s.freed:
		case <-ctx.Done():
			return 0
		}
	}
}

func (s *slots) give(n int) {
	s.mu.Lock()
	s.used -= n
	s.mu.Unlock()
	s.signal()
}

// Run delivers the jobs of the queue until ctx is done. Then it takes no more, gives those that are under way up to drain,
// cancels the rest, which will come again, and returns. Only one Run of a queue may be under way in a process.
func (q *Queue) Run(ctx context.Context, drain time.Duration, deliver Deliver) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var run sync.WaitGroup
	failures := 0
	for ctx.Err() == nil {
		err := q.consume(ctx, func(m jetstream.Msg) {
			run.Go(func() {
				defer q.slots.give(1)
				q.handle(work, m, deliver)
			})
		})
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		if failures++; failures == 1 {
			q.store.log.Warn("jobs are not delivered for now", "queue", q.name, "error", err)
		}
		wait(ctx, rand.N(min(100*time.Millisecond<<min(failures, 6), 5*time.Second)))
	}
	impatient := time.AfterFunc(drain, cancel)
	defer impatient.Stop()
	run.Wait()
}

// wait is a pause that ends with ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// consume hands jobs to start for as long as the store gives some; start owns a slot for each.
func (q *Queue) consume(ctx context.Context, start func(jetstream.Msg)) error {
	jobs, err := q.consumer(ctx)
	if err != nil {
		return err
	}
	made := q.made.Load()
	for ctx.Err() == nil && q.made.Load() == made {
		n := q.slots.take(ctx)
		if n == 0 {
			return nil
		}
		batch, err := jobs.Fetch(n, jetstream.FetchContext(ctx))
		if err != nil {
			q.slots.give(n)
			return unreachable(err)
		}
		for m := range batch.Messages() {
			if ctx.Err() != nil {
				_ = m.Nak()
				continue
			}
			n--
			start(m)
		}
		q.slots.give(n)
		if err := batch.Error(); err != nil && ctx.Err() == nil {
			return unreachable(err)
		}
	}
	return nil
}

// consumer makes the queue's consumer. What it knows of leases and pauses is only kept in the memory of the embedded
// server: nobody else can hold a job there, and what an earlier process was working on shall come at once.
func (q *Queue) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	in, err := q.reach(ctx)
	if err != nil {
		return nil, err
	}
	c, err := in.jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: worker, AckPolicy: jetstream.AckExplicitPolicy, AckWait: lease, MaxAckPending: in.cfg.Jobs,
		MaxDeliver: -1, MaxWaiting: 512, MemoryStorage: q.store.Embedded(),
	})
	return c, unreachable(err)
}

// attempt is the state of one handling of a job.
type attempt struct {
	q   *Queue
	m   jetstream.Msg
	job *Job
	rec record
}

// handle does for one job what is due.
func (q *Queue) handle(ctx context.Context, m jetstream.Msg, deliver Deliver) {
	meta, err := m.Metadata()
	if err != nil {
		return // not from a stream; it cannot be
	}
	alive := q.heartbeat(m)
	defer alive()
	a := &attempt{q: q, m: m}
	if a.job, err = decode(m.Data()); err != nil {
		a.job = &Job{ID: idOfSubject(m.Subject()), Body: m.Data(), At: meta.Timestamp}
		a.rec = record{Seq: meta.Sequence.Stream, Accepted: meta.Timestamp, Error: err.Error()}
		a.bury(ctx, reasonUnreadable)
		return
	}
	a.load(ctx, meta)
	c := q.cfg.Load()
	switch next, reason := c.decide(time.Now(), a.job, &a.rec); next {
	case nextFinish:
		_ = m.Ack()
	case nextWait:
		_ = m.NakWithDelay(max(time.Until(a.rec.Next), time.Millisecond))
	case nextBury:
		a.bury(ctx, reason)
	case nextDeliver:
		a.deliver(ctx, deliver)
	}
}

// heartbeat renews the lease until the returned function is called.
func (q *Queue) heartbeat(m jetstream.Msg) (stop func()) {
	var t *time.Timer
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(lease/3, func() {
		mu.Lock()
		defer mu.Unlock()
		if t != nil {
			_ = m.InProgress()
			t.Reset(lease / 3)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		t.Stop()
		t = nil
	}
}

// load finds out what became of the job so far. Where no state is left, the count of the server is the best there is.
func (a *attempt) load(ctx context.Context, meta *jetstream.MsgMetadata) {
	fresh := record{Seq: meta.Sequence.Stream, State: Queued, Accepted: a.job.At, Print: a.job.Print, Attempts: int(meta.NumDelivered) - 1}
	fresh.Failures = fresh.Attempts
	a.rec = fresh
	ctx, cancel := a.q.store.bounded(ctx)
	defer cancel()
	in, err := a.q.ensure(ctx)
	if err != nil {
		return
	}
	if r, ok := a.q.record(ctx, in, a.job.ID); ok && r.Seq == fresh.Seq {
		a.rec = r
	}
}

// deliver makes one attempt and stores what came of it before the job is settled.
func (a *attempt) deliver(ctx context.Context, deliver Deliver) {
	q, r, now := a.q, &a.rec, time.Now()
	if r.Attempts == 0 {
		q.counts.wait.Record(now.Sub(a.job.At))
	}
	r.Attempts++
	r.State, r.Changed, r.Next = Running, now.UTC(), time.Time{}
	q.tell(a.job.ID, r)
	q.running.Add(1)
	out := deliver(ctx, Delivery{Job: a.job, Attempt: r.Attempts, Waited: now.Sub(a.job.At)})
	q.running.Add(-1)
	if ctx.Err() != nil && out.Verdict != Delivered {
		_ = a.m.Nak() // the gateway stops: this says nothing of the job
		return
	}
	q.counts.delivery.Record(time.Since(now))
	r.Status, r.Reason, r.Error = out.Status, out.Reason, out.Error[:min(len(out.Error), maxError)]
	switch out.Verdict {
	case Delivered:
		r.State, r.Reason, r.Error = Done, "", ""
		q.counts.delivered.Add(1)
		if a.store(ctx) {
			_ = a.m.Ack()
		}
		return
	case Unsent:
		r.Unsent++
		q.counts.unsent.Add(1)
	default:
		r.Failures++
		q.counts.failed.Add(1)
	}
	c := q.cfg.Load()
	switch {
	case out.Verdict == Permanent:
		a.bury(ctx, reasonPermanent)
	case r.Failures >= c.MaxAttempts:
		a.bury(ctx, reasonExhausted)
	default:
		a.postpone(ctx, c.pause(r.Failures+r.Unsent, out.After))
	}
}

// postpone lets the job come again after d.
func (a *attempt) postpone(ctx context.Context, d time.Duration) {
	a.rec.State, a.rec.Next = Failed, time.Now().Add(d).UTC()
	a.store(ctx)
	_ = a.m.NakWithDelay(max(d, time.Millisecond))
}

// bury makes the job a dead letter. When there is no room for it, the job stays where it is.
func (a *attempt) bury(ctx context.Context, reason string) {
	q, r := a.q, &a.rec
	r.Reason = reason
	now := time.Now().UTC()
	letter := *a.job
	letter.Death = &Death{At: now, Reason: reason, Error: r.Error, Status: r.Status, Attempts: r.Attempts}
	if reason == reasonUnreadable {
		letter.Method, letter.Target, letter.Key = "UNREADABLE", "/", "unreadable"
	}
	if err := q.storeDead(ctx, &letter); err != nil {
		q.counts.stuck.Add(1)
		r.Error = "no room for a dead letter: " + err.Error()
		a.postpone(ctx, q.cfg.Load().MaxDelay)
		return
	}
	q.counts.buried.Add(1)
	r.State = Dead
	if a.store(ctx) {
		_ = a.m.Ack()
	}
}

// store writes the state until it succeeds or the store has been away for long; then the job will come again.
func (a *attempt) store(ctx context.Context) bool {
	a.rec.Changed = time.Now().UTC()
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		// What is done is done, also when the gateway is about to end: without a word of it the job would be done twice.
		err := a.q.put(context.WithoutCancel(ctx), a.job.ID, &a.rec)
		if err == nil {
			return true
		}
		if pause > 3*time.Second || ctx.Err() != nil {
			a.q.store.log.Warn("the state of a job is lost; it will come again", "queue", a.q.name, "job", a.job.ID, "error", err)
			return false
		}
		wait(ctx, pause)
	}
}
