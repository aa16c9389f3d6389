package offload

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longpole/longpole/internal/stats"
)

// lease is how long a job that was handed to a worker is kept from others without a sign of life.
const lease = 30 * time.Second

// maxKeys bounds the keys that the server remembers for the time of QueueConfig.Dedupe, of each queue and gateway.
const maxKeys = 1_000_000

// Queue is the jobs of one route. It is made by Store.Queue and safe for concurrent use.
type Queue struct {
	store      *Store
	name, hash string
	jobs, dead string // names of streams
	cfg        atomic.Pointer[QueueConfig]

	mu   sync.Mutex // one ensure at a time
	made atomic.Pointer[streams]

	running atomic.Int64
	slots   slots
	recent  keyCount
	counts  counters
}

// streams are those of a queue, as they fit its settings. They are immutable.
type streams struct {
	cfg                *QueueConfig
	jobs, dead, states jetstream.Stream
}

// counters only grow.
type counters struct {
	accepted, duplicates, full, unreachable, undeduplicated atomic.Uint64
	delivered, failed, unsent, buried, stuck, replayed      atomic.Uint64
	wait, delivery                                          stats.Histogram
}

// Receipt is what Submit has done.
type Receipt struct {
	ID        string
	Key       string
	Duplicate bool // the job was there already
}

func newQueue(s *Store, name string) *Queue {
	q := &Queue{store: s, name: name, hash: queueHash(name), slots: slots{freed: make(chan struct{}, 1)}}
	q.jobs, q.dead = s.streamNames(q)
	return q
}

// Name is the name of the queue.
func (q *Queue) Name() string { return q.name }

// Config is what is in force, defaults spelt out.
func (q *Queue) Config() QueueConfig { return *q.cfg.Load() }

func (q *Queue) reconfigure(c QueueConfig) {
	c = c.WithDefaults()
	q.cfg.Store(&c)
	q.slots.resize(c.Concurrency)
}

func (q *Queue) jobSubject(id string) string {
	return q.store.cfg.Prefix + ".jobs." + q.hash + "." + id
}

func (q *Queue) deadSubject(id string) string {
	return q.store.cfg.Prefix + ".dead." + q.hash + "." + id
}

// ensure makes the streams fit the settings, once for each change of them.
func (q *Queue) ensure(ctx context.Context) (*streams, error) {
	c := q.cfg.Load()
	if made := q.made.Load(); made != nil && made.cfg == c {
		return made, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if made := q.made.Load(); made != nil && made.cfg == c {
		return made, nil
	}
	s := q.store
	made := &streams{cfg: c}
	var err error
	if made.states, err = s.ensureStates(ctx); err != nil {
		return nil, unreachable(err)
	}
	made.jobs, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: q.jobs, Subjects: []string{q.jobSubject("*")}, Description: "jobs of " + q.name,
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
		Discard: jetstream.DiscardNew, MaxMsgs: int64(c.Jobs), MaxBytes: c.Bytes,
		MaxMsgsPerSubject: 1, DiscardNewPerSubject: true, Duplicates: c.Dedupe, AllowDirect: true,
	})
	if err != nil {
		return nil, unreachable(err)
	}
	made.dead, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: q.dead, Subjects: []string{q.deadSubject("*")}, Description: "dead letters of " + q.name,
		Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
		Discard: jetstream.DiscardNew, MaxMsgs: int64(c.DeadJobs), MaxBytes: c.Bytes, MaxAge: c.DeadFor,
		MaxMsgsPerSubject: 1, Duplicates: min(2*time.Minute, c.DeadFor), AllowDirect: true,
	})
	if err != nil {
		return nil, unreachable(err)
	}
	q.made.Store(made)
	return made, nil
}

// Submit stores j and returns when it is safe; j.ID, Key, At and Print are filled in. A job that the queue has already, by
// its key and scope, is not stored again; Receipt.Duplicate tells. It returns ErrFull, ErrTooLarge, ErrKey, ErrKeyReused,
// ErrUnreachable: after the last, a job may have been stored even so.
func (q *Queue) Submit(ctx context.Context, j *Job) (Receipt, error) {
	keyed := j.Key != ""
	if keyed && !keyOK(j.Key) {
		return Receipt{}, ErrKey
	}
	j.At = time.Now().Round(0)
	j.Print = digest(j.Method, j.Target, string(j.Body))
	if keyed {
		j.ID = idOf(q.name, j.Scope, j.Key)
	} else {
		j.ID = newID(q.name)
		j.Key = `"` + j.ID + `"` // a string of RFC 8941, as the field is defined
	}
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	duplicate, err := q.publish(ctx, j, keyed && q.remember(j.At))
	switch {
	case errors.Is(err, ErrFull):
		q.counts.full.Add(1)
	case errors.Is(err, ErrUnreachable):
		q.counts.unreachable.Add(1)
	case err == nil && duplicate:
		q.counts.duplicates.Add(1)
		err = q.same(ctx, j)
	case err == nil:
		q.counts.accepted.Add(1)
	}
	return Receipt{ID: j.ID, Key: j.Key, Duplicate: duplicate}, err
}

// remember reports whether there is room for another key in the server's memory.
func (q *Queue) remember(now time.Time) bool {
	if q.recent.add(now, q.cfg.Load().Dedupe) <= maxKeys {
		return true
	}
	q.counts.undeduplicated.Add(1)
	return false
}

func keyOK(key string) bool {
	return len(key) <= MaxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

// publish stores j and waits for the acknowledgement.
func (q *Queue) publish(ctx context.Context, j *Job, remember bool) (duplicate bool, err error) {
	data, err := j.encode()
	if err != nil {
		return false, err
	}
	if !q.store.Reachable() {
		return false, ErrUnreachable
	}
	if int64(len(data))+1<<10 > q.store.conn.MaxPayload() {
		return false, ErrTooLarge
	}
	m := &nats.Msg{Subject: q.jobSubject(j.ID), Data: data, Header: nats.Header{}}
	if remember {
		m.Header.Set(nats.MsgIdHdr, j.ID)
	}
	if _, err := q.ensure(ctx); err != nil {
		return false, err
	}
	ack, err := q.store.js.PublishMsg(ctx, m, jetstream.WithExpectStream(q.jobs), jetstream.WithRetryAttempts(1))
	if err == nil {
		return ack.Duplicate, nil
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		q.made.Store(nil) // somebody took the stream away; the next call makes it anew
	}
	return refused(err)
}

// refused reads the server's answer. There is one code for all that a full stream may be.
func refused(err error) (duplicate bool, _ error) {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return false, unreachable(err)
	}
	switch text := api.Description; {
	case strings.Contains(text, "maximum messages per subject"):
		return true, nil // the ID is the subject: the job is there already
	case strings.Contains(text, "maximum messages exceeded"), strings.Contains(text, "maximum bytes exceeded"):
		return false, ErrFull
	case api.ErrorCode == 10054 || strings.Contains(text, "message size exceeds maximum"):
		return false, ErrTooLarge
	}
	return false, unreachable(err)
}

// same compares j with the job of the same key that was there first, as far as the store still knows it.
func (q *Queue) same(ctx context.Context, j *Job) error {
	in, err := q.ensure(ctx)
	if err != nil {
		return err
	}
	first := ""
	if m, err := in.jobs.GetLastMsgForSubject(ctx, q.jobSubject(j.ID)); err == nil {
		if stored, err := decode(m.Data); err == nil {
			first = stored.Print
		}
	} else if r, ok := q.record(ctx, in, j.ID); ok {
		first = r.Print
	}
	if first != "" && first != j.Print {
		return ErrKeyReused
	}
	return nil
}

// record reads the newest state of a job.
func (q *Queue) record(ctx context.Context, in *streams, id string) (record, bool) {
	m, err := in.states.GetLastMsgForSubject(ctx, q.store.stateSubject(id))
	if err != nil {
		return record{}, false
	}
	r, err := decodeRecord(m.Data)
	return r, err == nil
}

// job finds out where a job stands. Its state is written before it leaves its stream, so it is read after that.
func (q *Queue) job(ctx context.Context, id string) (Status, error) {
	if !q.store.Reachable() {
		return Status{}, ErrUnreachable
	}
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	in, err := q.ensure(ctx)
	if err != nil {
		return Status{}, err
	}
	m, err := in.jobs.GetLastMsgForSubject(ctx, q.jobSubject(id))
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return Status{}, unreachable(err)
	}
	r, known := q.record(ctx, in, id)
	switch {
	case m != nil && (!known || r.Seq < m.Sequence):
		return Status{ID: id, Queue: q.name, State: Queued, Accepted: m.Time}, nil
	case known && m == nil && r.State != Done && r.State != Dead:
		r.State = Done // it has left the stream, and the word of it was lost
		fallthrough
	case known:
		return r.status(q.name, id), nil
	}
	return Status{}, ErrUnknown
}

// put stores the newest state of a job.
func (q *Queue) put(ctx context.Context, id string, r *record) error {
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	_, err := q.store.js.Publish(ctx, q.store.stateSubject(id), r.encode(), jetstream.WithExpectStream(q.store.stateStream()))
	return err
}

// tell is put without its assurance, for what is nice to know.
func (q *Queue) tell(id string, r *record) {
	_ = q.store.conn.Publish(q.store.stateSubject(id), r.encode())
}

// keyCount counts keys over this window and the one before: never less than there are.
type keyCount struct {
	mu        sync.Mutex
	slot      int64
	now, last int
}

func (k *keyCount) add(now time.Time, window time.Duration) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := now.UnixNano() / max(int64(window), 1)
	switch slot - k.slot {
	case 0:
	case 1:
		k.last, k.now = k.now, 0
	default:
		k.last, k.now = 0, 0
	}
	k.slot = slot
	k.now++
	return k.last + k.now
}
