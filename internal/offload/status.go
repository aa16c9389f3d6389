package offload

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// State is where a job stands.
type State string

// The states.
const (
	Queued  State = "queued"  // stored; no attempt was made yet
	Running State = "running" // an attempt is under way
	Failed  State = "failed"  // the last attempt failed; another one follows
	Done    State = "done"    // delivered, and answered with success
	Dead    State = "dead"    // given up: it is among the dead letters until it is replayed, deleted or too old
)

// Why a job was buried, or an attempt failed.
const (
	reasonPermanent  = "permanent"
	reasonExhausted  = "exhausted"
	reasonExpired    = "expired"
	reasonUnreadable = "unreadable"
)

// Status is what can be told of a job.
type Status struct {
	ID       string     `json:"id"`
	Queue    string     `json:"queue"`
	State    State      `json:"state"`
	Attempts int        `json:"attempts"`              // deliveries begun
	Status   int        `json:"last_status,omitempty"` // HTTP status of the last answer; 0 = none
	Reason   string     `json:"last_reason,omitempty"` // of the last failure, in one word
	Error    string     `json:"last_error,omitempty"`  // of the last failure; may name endpoints: not for clients
	Accepted time.Time  `json:"accepted"`
	Changed  *time.Time `json:"changed,omitempty"`
	Next     *time.Time `json:"next_attempt,omitempty"` // of a Failed job
}

// Public is s without what is no business of clients.
func (s Status) Public() Status {
	s.Error, s.Queue = "", ""
	return s
}

// record is the newest state of a job, as it is stored.
type record struct {
	Version  int       `json:"v"`
	Seq      uint64    `json:"seq"` // of the job in its stream: a record of another life of the same ID does not count
	State    State     `json:"state"`
	Attempts int       `json:"attempts"`         // begun
	Failures int       `json:"failures"`         // ended, and failed
	Unsent   int       `json:"unsent,omitempty"` // ended before anything was sent
	Status   int       `json:"status,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Error    string    `json:"error,omitempty"`
	Print    string    `json:"print,omitempty"`
	Accepted time.Time `json:"accepted"`
	Changed  time.Time `json:"changed"`
	Next     time.Time `json:"next,omitzero"`
}

var errRecord = errors.New("offload: not a stored state")

func decodeRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	if r.Version != version || r.Attempts < 0 || r.Failures < 0 || r.Unsent < 0 {
		return record{}, errRecord
	}
	switch r.State {
	case Queued, Running, Failed, Done, Dead:
		return r, nil
	}
	return record{}, errRecord
}

func (r *record) encode() []byte {
	r.Version = version
	data, _ := json.Marshal(r) // times, numbers and texts cannot fail
	return data
}

func (r *record) status(queue, id string) Status {
	s := Status{
		ID: id, Queue: queue, State: r.State, Attempts: r.Attempts, Status: r.Status, Reason: r.Reason, Error: r.Error, Accepted: r.Accepted,
	}
	if !r.Changed.IsZero() {
		s.Changed = &r.Changed
	}
	if r.State == Failed && !r.Next.IsZero() {
		s.Next = &r.Next
	}
	return s
}
