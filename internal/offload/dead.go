package offload

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// MaxPage bounds a page of dead letters.
const MaxPage = 1000

// Letter is a dead letter without its body.
type Letter struct {
	ID     string `json:"id"`
	Queue  string `json:"queue"`
	Place  uint64 `json:"place"` // grows with each; the next page begins after it
	Key    string `json:"idempotency_key"`
	Method string `json:"method"`
	Host   string `json:"host"`
	Target string `json:"target"`
	Bytes  int    `json:"body_bytes"`
	Death
	Accepted time.Time `json:"accepted"`
}

func idOfSubject(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// storeDead stores a dead letter and waits for the acknowledgement; one of the same ID is replaced.
func (q *Queue) storeDead(ctx context.Context, j *Job) error {
	data, err := j.encode()
	if err != nil {
		return err
	}
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	_, err = q.store.js.Publish(ctx, q.deadSubject(j.ID), data, jetstream.WithExpectStream(q.dead))
	if err != nil {
		_, err = refused(err)
	}
	return err
}

func (q *Queue) letter(m *jetstream.RawStreamMsg) (Letter, *Job) {
	l := Letter{ID: idOfSubject(m.Subject), Queue: q.name, Place: m.Sequence, Bytes: len(m.Data), Accepted: m.Time}
	j, err := decode(m.Data)
	if err != nil || j.Death == nil {
		l.Death = Death{At: m.Time, Reason: reasonUnreadable}
		return l, nil
	}
	l.Key, l.Method, l.Host, l.Target, l.Bytes, l.Death, l.Accepted = j.Key, j.Method, j.Host, j.Target, len(j.Body), *j.Death, j.At
	return l, j
}

// Dead lists up to limit (1..MaxPage) dead letters, oldest first, that come after a Place; 0 = from the beginning. more
// reports whether there may be others after them.
func (q *Queue) Dead(ctx context.Context, after uint64, limit int) (letters []Letter, more bool, err error) {
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	in, err := q.reach(ctx)
	if err != nil {
		return nil, false, err
	}
	limit = max(1, min(limit, MaxPage))
	for place := after + 1; ; {
		m, err := in.dead.GetMsg(ctx, place, jetstream.WithGetMsgSubject(q.deadSubject("*")))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return letters, false, nil
		case err != nil:
			return letters, true, unreachable(err)
		case len(letters) == limit:
			return letters, true, nil
		}
		l, _ := q.letter(m)
		letters = append(letters, l)
		place = m.Sequence + 1
	}
}

// reach is ensure for what a person asks.
func (q *Queue) reach(ctx context.Context) (*streams, error) {
	if !q.store.Reachable() {
		return nil, ErrUnreachable
	}
	return q.ensure(ctx)
}

// find reads a dead letter. It returns ErrUnknown and ErrUnreachable.
func (s *Store) find(ctx context.Context, id string) (*Queue, *streams, *jetstream.RawStreamMsg, error) {
	q := s.queueOf(id)
	if q == nil {
		return nil, nil, nil, ErrUnknown
	}
	in, err := q.reach(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := in.dead.GetLastMsgForSubject(ctx, q.deadSubject(id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil, nil, ErrUnknown
	}
	return q, in, m, unreachable(err)
}

// Letter shows a dead letter whole; the Job is nil when it cannot be read. It returns ErrUnknown and ErrUnreachable.
func (s *Store) Letter(ctx context.Context, id string) (Letter, *Job, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	q, _, m, err := s.find(ctx, id)
	if err != nil {
		return Letter{}, nil, err
	}
	l, j := q.letter(m)
	return l, j, nil
}

// Replay gives a dead letter a new life: it is a job again, with the same ID and key and no attempts. A letter that dies
// again replaces itself. It returns ErrUnknown, ErrFull, ErrMalformed and ErrUnreachable; after an error the letter is
// still there.
func (s *Store) Replay(ctx context.Context, id string) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	q, in, m, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	_, j := q.letter(m)
	if j == nil || j.Death.Reason == reasonUnreadable {
		return ErrMalformed
	}
	again := *j
	again.Death, again.At = nil, time.Now().Round(0)
	if _, err := q.publish(ctx, &again, false); err != nil {
		return err
	}
	q.counts.replayed.Add(1)
	return gone(in.dead.DeleteMsg(ctx, m.Sequence))
}

// ReplayAll replays the dead letters that are there when it begins, and returns how many came back. It stops at the first
// error, or when ctx is done.
func (q *Queue) ReplayAll(ctx context.Context) (n int, err error) {
	begun := time.Now()
	for after := uint64(0); ; {
		page, more, err := q.Dead(ctx, after, 100)
		if err != nil {
			return n, err
		}
		for _, l := range page {
			after = l.Place
			if l.At.After(begun) {
				return n, nil
			}
			switch err := q.store.Replay(ctx, l.ID); {
			case errors.Is(err, ErrMalformed), errors.Is(err, ErrUnknown):
				continue
			case err != nil:
				return n, err
			}
			n++
		}
		if !more {
			return n, nil
		}
	}
}

// Delete drops a dead letter for good. It returns ErrUnknown and ErrUnreachable.
func (s *Store) Delete(ctx context.Context, id string) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, in, m, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	return gone(in.dead.SecureDeleteMsg(ctx, m.Sequence))
}

// gone takes what is not there for deleted: a letter that was replaced meanwhile. The server has no code for it.
func gone(err error) error {
	if err == nil || strings.Contains(err.Error(), "no message found") || strings.Contains(err.Error(), "message not found") {
		return nil
	}
	return unreachable(err)
}
