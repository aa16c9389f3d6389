package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/scenario"
)

// The bounds of a real queue.
const (
	fetchTime  = time.Second      // that one request for a message waits
	ackTime    = 30 * time.Second // after which a message whose worker is gone is delivered again; more where its work may take as long
	brokerTime = 5 * time.Second  // of a request to the server

	reconnectTime = 200 * time.Millisecond // between two tries to reach a server that is away
)

// role is what a process does with a queue.
type role int

const (
	sends role = 0 // it only publishes
	works role = 1 // its workers take the messages
	owns  role = 2 // it makes the stream and reads the evidence; the workers are elsewhere, unless it works too
)

// stream is a queue in a real NATS server: a JetStream stream of its own, and one consumer for all workers. The server
// delivers a message that failed again at once, before the others.
type stream struct {
	spec   scenario.Queue
	server string // URL
	name   string // of the stream, and its subject
	role   role
	kept   jetstream.StorageType                  // where its messages are
	handle handler                                // nil unless it works
	tell   func(ctx context.Context, n int) error // sets how many workers there are elsewhere; nil unless it owns

	options []nats.Option // of the connection, besides its own
	conn    *nats.Conn
	js      jetstream.JetStream
	made    bool // the stream
	reader  *probe.Queue

	mu      sync.Mutex
	before  evidence.QueueLook
	workers int
	changed chan struct{} // closed when workers changes
}

// newStream describes a queue at a URL. mark tells this lab's streams from those of others; "" = there are no others.
func newStream(spec scenario.Queue, server, mark string, as role) *stream {
	name := spec.Name
	if mark != "" {
		name = marked("longpole-lab", mark, name, "-")
	}
	return &stream{spec: spec, server: server, name: name, role: as, kept: jetstream.MemoryStorage, workers: spec.Workers, changed: make(chan struct{})}
}

func (q *stream) open(ctx context.Context) (err error) {
	if q.conn, err = nats.Connect(q.server, append(q.options, nats.Name("longpole-lab"), nats.Timeout(brokerTime), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectTime))...); err != nil {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	if q.js, err = jetstream.New(q.conn, jetstream.WithDefaultTimeout(brokerTime)); err != nil {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	if q.role&owns == 0 {
		return nil
	}
	_, err = q.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: q.name, Subjects: []string{q.name}, Retention: jetstream.WorkQueuePolicy, Storage: q.kept, MaxMsgs: maxMessages, Discard: jetstream.DiscardNew,
	})
	if err == nil {
		q.made = true
		_, err = q.js.CreateConsumer(ctx, q.name, q.consumer(q.spec.Workers))
	}
	if err == nil {
		q.reader, err = probe.NewQueue(probe.QueueConfig{Subject: q.name, Budget: probe.Budget{MinInterval: 100 * time.Millisecond, PerHour: time.Hour}}, q.js)
	}
	if err != nil {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	return nil
}

// consumer is what so many workers have in common.
func (q *stream) consumer(workers int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: q.spec.Service, AckPolicy: jetstream.AckExplicitPolicy, AckWait: max(ackTime, 3*q.spec.Work.Long()), MaxDeliver: q.spec.Deliveries, MaxAckPending: max(workers, 1),
	}
}

func (q *stream) address() (host, port string) {
	for _, text := range []string{q.conn.ConnectedUrl(), q.server} { // the first is empty while there is no connection
		if u, err := url.Parse(text); err == nil && u.Host != "" {
			return u.Hostname(), cmp.Or(u.Port(), "4222")
		}
	}
	return q.name, "4222" // not the text itself, which may hold a password
}

func (q *stream) publish(ctx context.Context, m message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	out := nats.NewMsg(q.name)
	out.Data = body
	wire.Inject(ctx, propagation.HeaderCarrier(out.Header))
	if _, err = q.js.PublishMsg(ctx, out); err != nil {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	return nil
}

// attend has as many workers as staff asks for take messages, until ctx ends.
func (q *stream) attend(ctx context.Context) error {
	if q.role&works == 0 {
		<-ctx.Done()
		return nil
	}
	group, gone := &sync.WaitGroup{}, map[int]context.CancelFunc{}
	defer group.Wait()
	for {
		want, changed := q.staffed()
		for number, most := 1, max(want, len(gone)); number <= most; number++ {
			stop, there := gone[number]
			switch {
			case number <= want && !there:
				on, stop := context.WithCancel(ctx)
				gone[number] = stop
				group.Go(func() { q.work(ctx, on, number) })
			case number > want && there:
				stop()
				delete(gone, number)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (q *stream) staffed() (workers int, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.workers, q.changed
}

// work takes one message after the other while on lasts. What it has begun it ends, until ctx does.
func (q *stream) work(ctx, on context.Context, number int) {
	var from jetstream.Consumer
	for on.Err() == nil {
		var err error
		if from == nil {
			from, err = q.js.Consumer(on, q.name, q.spec.Service)
		}
		if err == nil {
			var batch jetstream.MessageBatch
			if batch, err = from.Fetch(1, jetstream.FetchMaxWait(fetchTime)); err == nil {
				for m := range batch.Messages() {
					q.deliver(ctx, m, number)
				}
				err = batch.Error()
			}
		}
		if err != nil && !errors.Is(err, nats.ErrTimeout) {
			from = nil
			_ = pause(on, fetchTime) // the server is away; it ends early with on, and so does the loop
		}
	}
}

// deliver works on one delivery, and tells the server what became of it. An answer that is lost means another delivery.
func (q *stream) deliver(ctx context.Context, m jetstream.Msg, number int) {
	var body message
	if err := json.Unmarshal(m.Data(), &body); err != nil {
		_ = m.Term() // not one of ours
		return
	}
	header := propagation.HeaderCarrier(m.Headers())
	if q.handle(wire.Extract(ctx, header), body, number) != nil {
		_ = m.Nak()
		return
	}
	_ = m.Ack()
}

func (q *stream) staff(ctx context.Context, workers int) error {
	q.mu.Lock()
	q.workers = workers
	close(q.changed)
	q.changed = make(chan struct{})
	q.mu.Unlock()
	if q.role&owns != 0 {
		if _, err := q.js.UpdateConsumer(ctx, q.name, q.consumer(workers)); err != nil { // as many messages in work as there are workers
			return fmt.Errorf("lab: NATS: %w", err)
		}
	}
	if q.tell != nil {
		return q.tell(ctx, workers)
	}
	return nil
}

func (q *stream) reset(ctx context.Context) error {
	if q.reader == nil {
		return nil
	}
	look, err := q.reader.Look(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.before = look
	return err
}

// facts is what the server told since the phase began, under the queue's own name, which spans have.
func (q *stream) facts(ctx context.Context) (evidence.QueueStats, error) {
	if q.reader == nil {
		return evidence.QueueStats{}, fmt.Errorf("lab: NATS: the stream %s is not open", q.name)
	}
	after, err := q.reader.Look(ctx)
	if err != nil {
		return evidence.QueueStats{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	all := evidence.QueueBetween(q.before, after)
	i := slices.IndexFunc(all, func(s evidence.QueueStats) bool { return s.Stream == q.name })
	if i < 0 {
		return evidence.QueueStats{}, fmt.Errorf("lab: NATS: the stream %s is gone", q.name)
	}
	all[i].Stream = q.spec.Name
	return all[i], nil
}

func (q *stream) close() error {
	if q.conn == nil {
		return nil
	}
	defer q.conn.Close()
	if !q.made {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), brokerTime)
	defer cancel()
	if err := q.js.DeleteStream(ctx, q.name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("lab: NATS: %w", err)
	}
	return nil
}
