package lab

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// opened is a queue at work until the test ends.
func opened(t *testing.T, spec scenario.Queue, h handler) *queue {
	t.Helper()
	q := newQueue(spec, h)
	if err := q.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.attend(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := q.close(); err != nil {
			t.Error(err)
		}
	})
	if err := q.reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	return q
}

// until waits for the server's figures to be as they should.
func until(t *testing.T, q *queue, want func(evidence.QueueStats) bool) evidence.QueueStats {
	t.Helper()
	tick := time.NewTicker(150 * time.Millisecond) // the probe asks no more often
	defer tick.Stop()
	var f evidence.QueueStats
	for range 400 {
		<-tick.C
		if f = told(t, q.facts); want(f) {
			return f
		}
	}
	t.Fatalf("the server tells %+v", f)
	return f
}

func TestQueueShowsItsBacklogAndItsStaff(t *testing.T) {
	release := make(chan struct{})
	done := make(chan trace.SpanContext, 100)
	q := opened(t, scenario.Queue{Name: "mail", Service: "mailer", Workers: 2, Deliveries: 3}, func(ctx context.Context, _ message, worker int) error {
		if worker < 1 || worker > 4 {
			t.Errorf("worker %d of 4", worker)
		}
		<-release
		done <- trace.SpanContextFromContext(ctx)
		return nil
	})
	from := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	for range 10 {
		if err := q.publish(trace.ContextWithSpanContext(t.Context(), from), message{}); err != nil {
			t.Fatal(err)
		}
	}
	f := until(t, q, func(f evidence.QueueStats) bool { return f.AckPending == 2 })
	if f.Pending != 8 || f.InWork != 1 || f.Arrival == 0 || f.Stream != "mail" || f.Consumer != "mailer" {
		t.Errorf("with two workers at work: %+v", f)
	}
	if err := q.staff(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	until(t, q, func(f evidence.QueueStats) bool { // what is at work is ended, and nothing begun
		if f.AckPending > 0 {
			select {
			case release <- struct{}{}:
			default:
			}
		}
		return f.AckPending == 0 && f.Pending > 0
	})
	close(release)
	if err := q.staff(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if f := until(t, q, func(f evidence.QueueStats) bool { return f.Pending == 0 }); f.MaxAckPending != 4 {
		t.Errorf("with four workers at most %d messages are in work", f.MaxAckPending)
	}
	for range 10 {
		if got := <-done; got.TraceID() != from.TraceID() || got.SpanID() != from.SpanID() {
			t.Fatalf("a message came with the span %s of %s", got.SpanID(), got.TraceID())
		}
	}
}

func TestPoisonComesAgainAndThenGoes(t *testing.T) {
	var tries, others atomic.Int64
	q := opened(t, scenario.Queue{Name: "mail", Service: "mailer", Workers: 1, Deliveries: 3}, func(_ context.Context, m message, _ int) error {
		if m.Poison {
			tries.Add(1)
			return errPoison
		}
		others.Add(1)
		return nil
	})
	for i := range 3 {
		if err := q.publish(t.Context(), message{Poison: i == 0}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, q, func(f evidence.QueueStats) bool { return f.Pending == 0 && f.AckPending == 0 && others.Load() == 2 })
	if got := tries.Load(); got != 3 {
		t.Errorf("a message that fails was delivered %d times; want 3", got)
	}
}
