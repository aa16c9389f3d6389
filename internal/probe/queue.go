package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// QueueConfig bounds what is asked of a JetStream server. The zero value means the defaults given at each field.
type QueueConfig struct {
	URL       string        `yaml:"url"`       // nats://user:password@host:port; several, separated by commas, are one cluster
	Subject   string        `yaml:"subject"`   // only streams that take this subject; "" = all
	Timeout   time.Duration `yaml:"timeout"`   // of one look; 10ms..1m; default 5s
	Streams   int           `yaml:"streams"`   // read at most; 1..1000; default 100
	Consumers int           `yaml:"consumers"` // read at most, of all streams together; 1..10000; default 500
	Budget    Budget        `yaml:"budget"`    // of its looks
}

// WithDefaults fills what is zero.
func (c QueueConfig) WithDefaults() QueueConfig {
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.Streams, 100)
	setDefault(&c.Consumers, 500)
	c.Budget = c.Budget.WithDefaults()
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c QueueConfig) Validate() error {
	var f setting.Faults
	within(&f, "timeout", c.Timeout, 10*time.Millisecond, time.Minute, "10ms..1m")
	within(&f, "streams", c.Streams, 1, 1000, "1..1000")
	within(&f, "consumers", c.Consumers, 1, 10000, "1..10000")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

// Queue reads the streams and consumers of a JetStream server or account. Safe for concurrent use.
type Queue struct {
	cfg   QueueConfig
	js    jetstream.JetStream
	guard *guard
}

// NewQueue makes a collector on js, which stays the caller's.
func NewQueue(c QueueConfig, js jetstream.JetStream) (*Queue, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Queue{cfg: c, js: js, guard: newGuard(c.Budget)}, nil
}

// Spent is what the collector has done.
func (q *Queue) Spent() Spent { return q.guard.report(time.Now()) }

// Look reads all streams and their consumers, up to the bounds. Nothing is consumed. Two looks make rates: evidence.QueueBetween.
func (q *Queue) Look(ctx context.Context) (out evidence.QueueLook, err error) {
	err = q.guard.look(ctx, "queue", q.cfg.Timeout, func(ctx context.Context) error {
		out.At = time.Now()
		var opts []jetstream.StreamListOpt
		if q.cfg.Subject != "" {
			opts = append(opts, jetstream.WithStreamListSubject(q.cfg.Subject))
		}
		listing, enough := context.WithCancel(ctx)
		defer enough()
		streams := q.js.ListStreams(listing, opts...)
		var list []*jetstream.StreamInfo
		cut := false
		for info := range streams.Info() {
			if len(list) >= q.cfg.Streams {
				out.Gaps = append(out.Gaps, evidence.Gap{What: "some streams", Why: fmt.Sprintf("there are more than %d", q.cfg.Streams)})
				cut = true
				enough()
				drain(streams.Info())
				break
			}
			list = append(list, info)
		}
		if err := streams.Err(); err != nil && !cut {
			return queueError(err)
		}
		left := q.cfg.Consumers
		for _, info := range list {
			s := stream(info)
			if err := q.consumers(ctx, &s, &left, &out); err != nil {
				return err
			}
			out.Streams = append(out.Streams, s)
		}
		return nil
	})
	return out, err
}

// drain lets the client's lister end: it waits for whoever reads the page it has, and fetches no other when its context is done.
func drain[T any](rest <-chan T) {
	for range rest {
	}
}

func queueError(err error) error {
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) {
		err = fmt.Errorf("%w: %w", errOverload, err)
	}
	return fmt.Errorf("probe: JetStream: %w", err)
}

func stream(info *jetstream.StreamInfo) evidence.Stream {
	s := evidence.Stream{
		Name: info.Config.Name, Created: info.Created, Messages: info.State.Msgs, Bytes: info.State.Bytes, LastSeq: info.State.LastSeq,
		MaxMsgs: info.Config.MaxMsgs, MaxBytes: info.Config.MaxBytes, Discard: "old", WorkQueue: info.Config.Retention == jetstream.WorkQueuePolicy,
	}
	if info.Config.Discard == jetstream.DiscardNew {
		s.Discard = "new"
	}
	return s
}

func (q *Queue) consumers(ctx context.Context, s *evidence.Stream, left *int, out *evidence.QueueLook) error {
	handle, err := q.js.Stream(ctx, s.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // it was deleted just now
		return nil
	} else if err != nil {
		return queueError(err)
	}
	listing, enough := context.WithCancel(ctx)
	defer enough()
	list := handle.ListConsumers(listing)
	for info := range list.Info() {
		if *left--; *left < 0 {
			out.Gaps = append(out.Gaps, evidence.Gap{What: "some consumers of " + s.Name, Why: fmt.Sprintf("there are more than %d", q.cfg.Consumers)})
			enough()
			drain(list.Info())
			return nil
		}
		s.Consumers = append(s.Consumers, consumer(info))
	}
	if err := list.Err(); err != nil {
		return queueError(err)
	}
	return nil
}

func consumer(info *jetstream.ConsumerInfo) evidence.Consumer {
	c := info.Config
	return evidence.Consumer{
		Name: info.Name, Created: info.Created, Filtered: c.FilterSubject != "" || len(c.FilterSubjects) > 0,
		Delivered: info.Delivered.Consumer, AckFloor: info.AckFloor.Consumer, Pending: info.NumPending, AckPending: info.NumAckPending,
		MaxAckPending: c.MaxAckPending, Redelivered: info.NumRedelivered, Waiting: info.NumWaiting, AckWait: c.AckWait,
		Push: c.DeliverSubject != "", Bound: info.PushBound,
	}
}
