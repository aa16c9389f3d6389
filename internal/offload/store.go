package offload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Why a job was not stored, or not found.
var (
	ErrUnreachable = errors.New("offload: the job store cannot be reached")
	ErrFull        = errors.New("offload: the queue is full")
	ErrTooLarge    = errors.New("offload: the job is too large for the store")
	ErrKey         = errors.New("offload: the idempotency key is too long or not printable")
	ErrKeyReused   = errors.New("offload: the idempotency key was used for another request")
	ErrUnknown     = errors.New("offload: no such job")
	ErrNoQueue     = errors.New("offload: no such queue")
)

// The newest states are kept in one stream, of bounded size: the oldest go first, those of jobs that wait included, which
// then look as if the store had only just got them.
const (
	stateCount = 200_000
	stateBytes = 256 << 20
	stateAge   = 72 * time.Hour
)

// Store is where the queues live. It is made by Open and safe for concurrent use.
type Store struct {
	cfg    StoreConfig
	log    *slog.Logger
	server *server.Server // nil = by URL
	unlock func()
	conn   *nats.Conn
	js     jetstream.JetStream
	states atomic.Value // jetstream.Stream, once it is known to be there

	mu     sync.Mutex
	queues map[string]*Queue // by their hash
}

// Open starts the embedded server, or begins to connect to that of c.URL, which need not be there yet. c must be valid.
// The error is of the folder, the credentials or the CA file, never of the network. log may be nil.
func Open(c StoreConfig, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: c.WithDefaults(), log: log, unlock: func() {}, queues: make(map[string]*Queue)}
	options := []nats.Option{
		nats.Name("longpole"),
		nats.ReconnectBufSize(-1), // what cannot be sent now fails now: it must not be stored after the client was refused
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(s.cfg.Timeout),
		nats.NoCallbacksAfterClientClose(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("the job store is gone", "error", err) }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("the job store is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Debug("job store", "error", err) }),
	}
	if s.cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(s.cfg.Credentials))
	}
	if s.cfg.CA != "" {
		options = append(options, nats.RootCAs(s.cfg.CA))
	}
	if s.cfg.URL == "" {
		var err error
		if s.server, s.unlock, err = embed(s.cfg, log); err != nil {
			return nil, err
		}
		options = append(options, nats.InProcessServer(s.server))
	}
	err := s.connect(options)
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) connect(options []nats.Option) (err error) {
	if s.conn, err = nats.Connect(s.cfg.URL, options...); err != nil {
		return fmt.Errorf("offload: connecting to the job store: %w", err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return fmt.Errorf("offload: connecting to the job store: %w", err)
	}
	return nil
}

// Close ends the connection and the embedded server. Run of every queue must have returned.
func (s *Store) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	s.unlock()
}

// Reachable reports whether the store answers, as far as the connection tells.
func (s *Store) Reachable() bool { return s.conn.IsConnected() }

// Embedded reports whether the store is of this process alone.
func (s *Store) Embedded() bool { return s.server != nil }

// Queue returns the queue of a name with new settings, which must be valid. It need not have been there before; what
// it holds in the store stays through changes of its settings, and when it is left alone for a while.
func (s *Store) Queue(name string, c QueueConfig) *Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[queueHash(name)]
	if q == nil {
		q = newQueue(s, name)
		s.queues[q.hash] = q
	}
	q.reconfigure(c)
	return q
}

// Find returns a queue that Queue has returned before, or ErrNoQueue.
func (s *Store) Find(name string) (*Queue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[queueHash(name)]; q != nil {
		return q, nil
	}
	return nil, ErrNoQueue
}

// Queues are all of them, by name.
func (s *Store) Queues() []*Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Queue, 0, len(s.queues))
	for _, q := range s.queues {
		all = append(all, q)
	}
	slices.SortFunc(all, func(a, b *Queue) int { return strings.Compare(a.name, b.name) })
	return all
}

// queueOf is the queue of a job; nil when there is none.
func (s *Store) queueOf(id string) *Queue {
	if !validID(id) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[id[:idPrefix]]
}

// Job tells where a job stands. It returns ErrUnknown, also for one that has been done or dead for long, and ErrUnreachable.
func (s *Store) Job(ctx context.Context, id string) (Status, error) {
	q := s.queueOf(id)
	if q == nil {
		return Status{}, ErrUnknown
	}
	return q.job(ctx, id)
}

// bounded is ctx with the store's own timeout.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.Timeout)
}

func (s *Store) streamNames(q *Queue) (jobs, dead string) {
	name := plain(q.name)
	name = name[:min(len(name), 64)]
	return fmt.Sprintf("%s-jobs-%s-%s", s.cfg.Prefix, name, q.hash), fmt.Sprintf("%s-dead-%s-%s", s.cfg.Prefix, name, q.hash)
}

func (s *Store) stateStream() string           { return s.cfg.Prefix + "-state" }
func (s *Store) stateSubject(id string) string { return s.cfg.Prefix + ".state." + id }

// ensureStates makes the stream of states, once.
func (s *Store) ensureStates(ctx context.Context) (jetstream.Stream, error) {
	if made, ok := s.states.Load().(jetstream.Stream); ok {
		return made, nil
	}
	made, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: s.stateStream(), Subjects: []string{s.stateSubject("*")}, Description: "newest state of each job",
		Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas, Discard: jetstream.DiscardOld,
		MaxMsgs: stateCount, MaxBytes: stateBytes, MaxAge: stateAge, MaxMsgsPerSubject: 1, AllowDirect: true,
	})
	if err == nil {
		s.states.Store(made)
	}
	return made, err
}

// unreachable names the failures of the way to the store.
func unreachable(err error) error {
	if err == nil || errors.Is(err, ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
