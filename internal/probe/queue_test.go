package probe

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/systemtest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// embedded is a client of a real JetStream.
func embedded(t *testing.T) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(listening(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestAQueueTellsItsBacklogAndItsRates on a real JetStream: 100 arrive, 60 are done, 10 are in work, one of them again.
func TestAQueueTellsItsBacklogAndItsRates(t *testing.T) {
	js := embedded(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "jobs", Subjects: []string{"jobs.>"}, MaxMsgs: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "mail", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour, MaxAckPending: 50})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(n int, pending uint64) {
		for i := range n {
			if _, err := js.Publish(t.Context(), fmt.Sprintf("jobs.%d", i%3), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		systemtest.Eventually(t, "the stream tells its consumers of what is new, after it has told the publisher", func() bool {
			info, err := c.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return info.NumPending == pending
		})
	}
	fetch := func(n int, each func(i int, m jetstream.Msg) error) {
		batch, err := c.Fetch(n, jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for m := range batch.Messages() {
			if err := each(i, m); err != nil {
				t.Fatal(err)
			}
			i++
		}
		if i != n {
			t.Fatalf("%d messages, want %d: %v", i, n, batch.Error())
		}
	}
	q, err := NewQueue(QueueConfig{Timeout: time.Minute}, js)
	if err != nil {
		t.Fatal(err)
	}
	q.guard.budget.MinInterval = 0
	publish(30, 30)
	before, err := q.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	publish(100, 130)
	fetch(60, func(_ int, m jetstream.Msg) error { return m.DoubleAck(t.Context()) })
	fetch(10, func(i int, m jetstream.Msg) error {
		if i > 0 {
			return nil
		}
		_, err := js.Conn().RequestWithContext(t.Context(), m.Reply(), []byte("-NAK")) // Nak does not wait for the server, which would hand out a new one first
		return err
	})
	fetch(1, func(int, jetstream.Msg) error { return nil }) // the one that came back
	after, err := q.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after.At = before.At.Add(10 * time.Second)
	list := evidence.QueueBetween(before, after)
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	s := list[0]
	if s.Stream != "jobs" || s.Consumer != "mail" || s.Pending != 60 || s.AckPending != 10 || s.Redelivered != 1 || s.InWork != 0.2 {
		t.Errorf("%+v", s)
	}
	if s.Arrival != 10 || !s.ArrivalExact || s.Service != 6 || s.Delivery != 7.1 || !s.Known || s.Utilisation < 1.66 || s.Utilisation > 1.67 || s.Drain != 0 {
		t.Errorf("arrival %v, service %v, delivery %v, utilisation %v", s.Arrival, s.Service, s.Delivery, s.Utilisation)
	}
	if s.StreamFull != 0.13 || s.NoWorkers {
		t.Errorf("%+v", s)
	}
	if first := evidence.QueueBetween(evidence.QueueLook{}, before)[0]; first.Pending != 30 || first.Span != 0 || !said(first.Gaps, "no earlier look") {
		t.Errorf("first look %+v", first)
	}
}

func TestAQueueLookIsBounded(t *testing.T) {
	js := embedded(t)
	for i := range 5 {
		s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: fmt.Sprint("s", i), Subjects: []string{fmt.Sprint("s.", i)}, Storage: jetstream.MemoryStorage})
		if err != nil {
			t.Fatal(err)
		}
		for k := range 3 {
			if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: fmt.Sprint("c", k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	q, err := NewQueue(QueueConfig{Timeout: time.Minute, Streams: 3, Consumers: 4}, js)
	if err != nil {
		t.Fatal(err)
	}
	out, err := q.Look(t.Context())
	n := 0
	for _, s := range out.Streams {
		n += len(s.Consumers)
	}
	if err != nil || len(out.Streams) != 3 || n != 4 || !said(out.Gaps, "more than 3") || !said(out.Gaps, "more than 4") {
		t.Errorf("%d streams, %d consumers, gaps %v, %v", len(out.Streams), n, out.Gaps, err)
	}
}
