package offload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience bounds every wait of these tests; only a failure takes so long.
const patience = time.Minute

func open(t *testing.T, c StoreConfig) *Store {
	t.Helper()
	if c.URL == "" && c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// work runs the workers of q until the returned function, or the test's end, stops them.
func work(t *testing.T, q *Queue, deliver Deliver) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { q.Run(ctx, patience, deliver) })
	stop = func() { cancel(); run.Wait() }
	t.Cleanup(stop)
	return stop
}

func job(n int) *Job {
	return &Job{
		Method: "POST", Scheme: "http", Host: "shop", Target: fmt.Sprintf("/orders/%d?x=1", n),
		Header: http.Header{"Content-Type": {"text/plain"}, "X-N": {fmt.Sprint(n), "more"}}, Body: fmt.Appendf(nil, "body %d\nline", n),
	}
}

func submit(t *testing.T, q *Queue, j *Job) Receipt {
	t.Helper()
	r, err := q.Submit(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for cond, which others bring about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("this did not happen: ", what)
		}
	}
}

func state(t *testing.T, s *Store, id string) Status {
	t.Helper()
	st, err := s.Job(t.Context(), id)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return st
}

func TestAJobIsDeliveredAsItCame(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("orders", QueueConfig{})
	j := job(7)
	j.Trace, j.Key = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "k 1"
	r := submit(t, q, j)
	if st := state(t, s, r.ID); st.State != Queued || st.Attempts != 0 || r.Duplicate || r.Key != "k 1" {
		t.Errorf("before: %+v, %+v", st, r)
	}
	got := make(chan Delivery, 1)
	work(t, q, func(_ context.Context, d Delivery) Outcome {
		if st := state(t, s, r.ID); st.State != Running && st.State != Queued {
			t.Errorf("meanwhile: %+v", st)
		}
		got <- d
		return Outcome{Status: 201}
	})
	d := <-got
	want := job(7)
	if d.Attempt != 1 || d.Job.ID != r.ID || d.Job.Key != "k 1" || d.Job.Method != want.Method || d.Job.Scheme != "http" || d.Job.Host != want.Host ||
		d.Job.Target != want.Target || d.Job.Header.Values("X-N")[1] != "more" || string(d.Job.Body) != string(want.Body) || d.Job.Trace != j.Trace {
		t.Errorf("delivered %+v, job %+v", d, d.Job)
	}
	until(t, "done", func() bool { return state(t, s, r.ID).State == Done })
	if st := state(t, s, r.ID); st.Attempts != 1 || st.Status != 201 || st.Reason != "" {
		t.Errorf("after: %+v", st)
	}
	until(t, "nothing left", func() bool { return q.Status(t.Context()).Queued == 0 })
	if st := q.Status(t.Context()); !st.Reachable || st.Delivered != 1 || st.Accepted != 1 || st.Bytes != 0 || st.OldestMS != 0 || st.Dead != 0 {
		t.Errorf("queue: %+v", st)
	}
	if _, err := s.Job(t.Context(), newID("orders")); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := s.Job(t.Context(), "*"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestAFailureComesAgainWithTheSameKey(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{BaseDelay: time.Millisecond, MaxDelay: 4 * time.Millisecond, MaxAttempts: 5})
	r := submit(t, q, job(1))
	var keys []string
	work(t, q, func(_ context.Context, d Delivery) Outcome {
		keys = append(keys, d.Job.Key)
		if d.Attempt != len(keys) {
			t.Errorf("attempt %d is said to be %d", len(keys), d.Attempt)
		}
		if len(keys) < 4 {
			return Outcome{Verdict: Retry, Status: 503, Reason: "server", Error: "down"}
		}
		return Outcome{Status: 200}
	})
	until(t, "done", func() bool { return state(t, s, r.ID).State == Done })
	if st := state(t, s, r.ID); st.Attempts != 4 || len(keys) != 4 {
		t.Errorf("%+v after %d attempts", st, len(keys))
	}
	for _, k := range keys {
		if k != r.Key || k == "" {
			t.Errorf("keys are %q, want %q", keys, r.Key)
		}
	}
	if st := q.Status(t.Context()); st.Retried != 3 || st.Delivered != 1 {
		t.Errorf("%+v", st)
	}
}

func TestWhatWasNotSentIsNoAttemptOfTheReceiver(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, MaxAttempts: 2})
	r := submit(t, q, job(1))
	n := 0
	work(t, q, func(context.Context, Delivery) Outcome {
		if n++; n <= 6 {
			return Outcome{Verdict: Unsent, Reason: "breaker_open"}
		}
		return Outcome{}
	})
	until(t, "done", func() bool { return state(t, s, r.ID).State == Done })
}

func TestDeadLettersAreListedShownReplayedAndDeleted(t *testing.T) {
	ctx := t.Context()
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond, MaxAttempts: 2, Concurrency: 1})
	var good atomic.Bool
	work(t, q, func(_ context.Context, d Delivery) Outcome {
		switch {
		case good.Load():
			return Outcome{}
		case d.Job.Target == job(0).Target:
			return Outcome{Verdict: Permanent, Status: 422, Reason: "client", Error: "bad order"}
		}
		return Outcome{Verdict: Retry, Status: 500, Reason: "server", Error: "down"}
	})
	var ids []string
	for n := range 3 {
		ids = append(ids, submit(t, q, job(n)).ID)
		until(t, "dead", func() bool { return state(t, s, ids[n]).State == Dead })
	}
	page, more, err := q.Dead(ctx, 0, 2)
	if err != nil || len(page) != 2 || !more || page[0].ID != ids[0] || page[1].ID != ids[1] {
		t.Fatal(page, more, err)
	}
	if l := page[0]; l.Reason != "permanent" || l.Attempts != 1 || l.Status != 422 || l.Error != "bad order" || l.Target != job(0).Target {
		t.Errorf("%+v", l)
	}
	if l := page[1]; l.Reason != "exhausted" || l.Attempts != 2 || l.Status != 500 {
		t.Errorf("%+v", l)
	}
	if page, more, err = q.Dead(ctx, page[1].Place, 2); err != nil || len(page) != 1 || more || page[0].ID != ids[2] {
		t.Fatal(page, more, err)
	}
	l, j, err := s.Letter(ctx, ids[1])
	if err != nil || string(j.Body) != string(job(1).Body) || l.ID != ids[1] {
		t.Fatal(l, j, err)
	}
	if err := s.Delete(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, ids[0]); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	// Dies again, and stays one letter.
	if err := s.Replay(ctx, ids[1]); err != nil {
		t.Fatal(err)
	}
	until(t, "dead again", func() bool { return state(t, s, ids[1]).State == Dead && q.Status(ctx).Dead == 2 })
	good.Store(true)
	if n, err := q.ReplayAll(ctx); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	until(t, "done", func() bool { return state(t, s, ids[1]).State == Done && state(t, s, ids[2]).State == Done })
	if st := q.Status(ctx); st.Dead != 0 || st.Replayed != 3 {
		t.Errorf("%+v", st)
	}
	if err := s.Replay(ctx, ids[1]); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestAnOldJobIsNotDelivered(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{MaxAge: time.Nanosecond})
	r := submit(t, q, job(1))
	work(t, q, func(context.Context, Delivery) Outcome {
		t.Error("delivered")
		return Outcome{}
	})
	until(t, "dead", func() bool { return state(t, s, r.ID).State == Dead })
	if l, _, err := s.Letter(t.Context(), r.ID); err != nil || l.Reason != "expired" || l.Attempts != 0 {
		t.Error(l, err)
	}
}

func TestAKeyIsOneJob(t *testing.T) {
	ctx := t.Context()
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{})
	keyed := func(scope, key string, n int) *Job {
		j := job(n)
		j.Key, j.Scope = key, scope
		return j
	}
	first := submit(t, q, keyed("anna", "k", 1))
	if again := submit(t, q, keyed("anna", "k", 1)); !again.Duplicate || again.ID != first.ID {
		t.Errorf("%+v after %+v", again, first)
	}
	if other := submit(t, q, keyed("bert", "k", 2)); other.Duplicate || other.ID == first.ID {
		t.Error("the key of another caller is taken for the same")
	}
	if _, err := q.Submit(ctx, keyed("anna", "k", 3)); !errors.Is(err, ErrKeyReused) {
		t.Error(err)
	}
	if _, err := q.Submit(ctx, keyed("anna", "k\n", 3)); !errors.Is(err, ErrKey) {
		t.Error(err)
	}
	if elsewhere := submit(t, s.Queue("other", QueueConfig{}), keyed("anna", "k", 3)); elsewhere.Duplicate {
		t.Error("queues share keys")
	}
	var calls atomic.Int32
	work(t, q, func(context.Context, Delivery) Outcome { calls.Add(1); return Outcome{} })
	until(t, "done", func() bool { return q.Status(ctx).Delivered == 2 && q.Status(ctx).Queued == 0 })
	if again := submit(t, q, keyed("anna", "k", 1)); !again.Duplicate || state(t, s, again.ID).State != Done {
		t.Error("done, and forgotten at once")
	}
	if _, err := q.Submit(ctx, keyed("anna", "k", 3)); !errors.Is(err, ErrKeyReused) {
		t.Error(err)
	}
	if calls.Load() != 2 {
		t.Error(calls.Load(), "deliveries")
	}
}

func TestAFullQueueRefuses(t *testing.T) {
	ctx := t.Context()
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{Jobs: 3})
	for n := range 3 {
		submit(t, q, job(n))
	}
	if _, err := q.Submit(ctx, job(9)); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	big := s.Queue("big", QueueConfig{Bytes: 1 << 20})
	j := job(1)
	j.Body = make([]byte, 600<<10)
	submit(t, big, j)
	k := job(2)
	k.Body = j.Body
	if _, err := big.Submit(ctx, k); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	k.Body = make([]byte, maxBody+1)
	if _, err := big.Submit(ctx, k); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if st := q.Status(ctx); st.Full != 1 || st.Queued != 3 || st.OldestMS <= 0 {
		t.Errorf("%+v", st)
	}
	// Fewer may wait from now on; those that do stay.
	q = s.Queue("q", QueueConfig{Jobs: 1})
	if _, err := q.Submit(ctx, job(9)); !errors.Is(err, ErrFull) || q.Status(ctx).Queued != 3 {
		t.Error(err, q.Status(ctx))
	}
	work(t, q, func(context.Context, Delivery) Outcome { return Outcome{} })
	until(t, "delivered", func() bool { return q.Status(ctx).Delivered == 3 })
}

func TestAJobStaysWhereThereIsNoRoomForItsLetter(t *testing.T) {
	ctx := t.Context()
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{DeadJobs: 1, Concurrency: 1, BaseDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond})
	one, two := submit(t, q, job(1)), submit(t, q, job(2))
	work(t, q, func(context.Context, Delivery) Outcome { return Outcome{Verdict: Permanent, Reason: "client"} })
	until(t, "stuck", func() bool { return q.Status(ctx).Stuck > 0 })
	if st := q.Status(ctx); st.Dead != 1 || st.Queued+st.Running != 1 {
		t.Errorf("%+v", st)
	}
	dead := one.ID
	if state(t, s, one.ID).State != Dead {
		dead = two.ID
	}
	if err := s.Delete(ctx, dead); err != nil {
		t.Fatal(err)
	}
	until(t, "buried", func() bool { return q.Status(ctx).Buried == 2 })
}

func TestWorkersKeepToTheirNumber(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{Concurrency: 3})
	var now, most atomic.Int32
	gate := make(chan struct{})
	work(t, q, func(context.Context, Delivery) Outcome {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-gate
		return Outcome{}
	})
	for n := range 20 {
		submit(t, q, job(n))
	}
	until(t, "three at once", func() bool { return now.Load() == 3 })
	s.Queue("q", QueueConfig{Concurrency: 5})
	until(t, "five at once", func() bool { return now.Load() == 5 })
	close(gate)
	until(t, "all", func() bool { return q.Status(t.Context()).Delivered == 20 })
	if most.Load() != 5 {
		t.Error(most.Load(), "at once")
	}
}

// external runs a server of its own at a port of its own.
func external(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	// The room is not that of the disk: what is reserved for two streams may be more than is free.
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, JetStreamMaxStore: 64 << 30, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("no server")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func TestAServerByURLIsSharedAndMayGoAndComeBack(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	ns := external(t, dir, -1)
	port := ns.Addr().(*net.TCPAddr).Port
	c := StoreConfig{URL: ns.ClientURL(), Timeout: patience, Prefix: "fleet"}
	one, two := open(t, c), open(t, c)
	a, b := one.Queue("q", QueueConfig{Concurrency: 2, BaseDelay: time.Millisecond}), two.Queue("q", QueueConfig{Concurrency: 2, BaseDelay: time.Millisecond})
	gate := make(chan struct{})
	var delivered sync.Map
	for _, q := range []*Queue{a, b} {
		work(t, q, func(_ context.Context, d Delivery) Outcome {
			<-gate
			delivered.Store(d.Job.ID, q)
			return Outcome{}
		})
	}
	var ids []string
	for n := range 8 {
		ids = append(ids, submit(t, a, job(n)).ID)
	}
	until(t, "both at work", func() bool { return a.Status(ctx).Running == 2 && b.Status(ctx).Running == 2 })
	if st := state(t, two, ids[7]); st.State != Queued {
		t.Errorf("one gateway's job is to the other %+v", st)
	}
	ns.Shutdown()
	ns.WaitForShutdown()
	until(t, "gone", func() bool { return !one.Reachable() && !two.Reachable() })
	if _, err := a.Submit(ctx, job(9)); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	if _, err := one.Job(ctx, ids[0]); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	if st := a.Status(ctx); st.Reachable || st.Unreachable != 1 {
		t.Errorf("%+v", st)
	}
	close(gate)
	external(t, dir, port)
	for _, id := range ids {
		until(t, "done", func() bool { st, err := two.Job(ctx, id); return err == nil && st.State == Done })
		if _, ok := delivered.Load(id); !ok {
			t.Error(id, "is done, and nobody has seen it")
		}
	}
}

func TestOpenNeedsNoNetworkButAFolderOfItsOwn(t *testing.T) {
	s := open(t, StoreConfig{URL: "nats://127.0.0.1:1"})
	if _, err := s.Queue("q", QueueConfig{}).Submit(t.Context(), job(1)); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	dir := t.TempDir()
	open(t, StoreConfig{Dir: dir})
	if _, err := Open(StoreConfig{Dir: dir}, nil); err == nil {
		t.Error("two servers on one folder")
	}
}

func TestWhatIsStoredSurvivesARestart(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, StoreConfig{Dir: dir})
	q := s.Queue("q", QueueConfig{BaseDelay: time.Hour})
	r := submit(t, q, job(1))
	stop := work(t, q, func(context.Context, Delivery) Outcome { return Outcome{Verdict: Retry, Reason: "server"} })
	until(t, "failed", func() bool { return state(t, s, r.ID).State == Failed })
	before := state(t, s, r.ID)
	stop()
	s.Close()
	s = open(t, StoreConfig{Dir: dir})
	q = s.Queue("q", QueueConfig{})
	if st := state(t, s, r.ID); st.State != Failed || st.Attempts != 1 || !st.Next.Equal(*before.Next) {
		t.Errorf("%+v after a restart, %+v before", st, before)
	}
	// Its pause is not over: a restart is no reason to hurry.
	ready := submit(t, q, job(2))
	work(t, q, func(_ context.Context, d Delivery) Outcome {
		if d.Job.ID == r.ID {
			t.Error("delivered within its pause")
		}
		return Outcome{}
	})
	until(t, "done", func() bool { return state(t, s, ready.ID).State == Done && q.Status(ctx).Queued == 1 })
}

// A replayed job may die again before the letter of its first life is deleted; its new letter must stay.
func TestALetterThatWasReplacedIsNotMissed(t *testing.T) {
	ctx := t.Context()
	s := open(t, StoreConfig{})
	q := s.Queue("q", QueueConfig{})
	in, err := q.ensure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	j := job(1)
	j.ID, j.Key, j.Death = newID("q"), "k", &Death{Reason: "permanent"}
	for range 2 {
		if err := q.storeDead(ctx, j); err != nil {
			t.Fatal(err)
		}
	}
	if err := gone(in.dead.DeleteMsg(ctx, 1)); err != nil {
		t.Error(err)
	}
	if l, _, err := s.Letter(ctx, j.ID); err != nil || l.Place != 2 {
		t.Error(l, err)
	}
}

// TestWhatEndsWithTheGatewayIsNotDeliveredAgain has a receiver answer in the moment in which the drain is over: the job is
// done, and somebody must have been told.
func TestWhatEndsWithTheGatewayIsNotDeliveredAgain(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("orders", QueueConfig{})
	r := submit(t, q, job(1))
	ctx, cancel := context.WithCancel(t.Context())
	q.Run(ctx, 0, func(work context.Context, _ Delivery) Outcome {
		cancel()
		<-work.Done()
		return Outcome{Status: 200}
	})
	if st := state(t, s, r.ID); st.State != Done || st.Attempts != 1 {
		t.Errorf("%+v", st)
	}
	var again atomic.Int64
	other := submit(t, q, job(2))
	work(t, q, func(_ context.Context, d Delivery) Outcome {
		if d.Job.ID == r.ID {
			again.Add(1)
		}
		return Outcome{Status: 200}
	})
	until(t, "the next is done", func() bool { return state(t, s, other.ID).State == Done })
	if again.Load() > 0 {
		t.Error("what was delivered was delivered again")
	}
}
