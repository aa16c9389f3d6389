package offload

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	version  = 1
	maxBody  = 32 << 20
	maxHead  = 1 << 20 // of a stored job, its header fields included
	idPrefix = 8       // hex digits of the queue in an ID
	idLength = idPrefix + 32

	// MaxKey bounds an Idempotency-Key, in bytes.
	MaxKey = 255
)

// ErrMalformed says that what the store holds is no job.
var ErrMalformed = errors.New("offload: not a stored job")

// Job is one request that waits for its delivery. It is not changed after Submit.
type Job struct {
	ID     string      // hex; made by Submit
	Key    string      // the Idempotency-Key of every delivery; "" = Submit makes one
	Scope  string      // whose the key is: equal keys of different scopes are different jobs; not stored
	Method string      // of the request
	Scheme string      // http or https, as the client used it
	Host   string      // as the client asked for it
	Target string      // path and query as the client wrote them; starts with /
	Header http.Header // as every delivery sends it
	Body   []byte
	At     time.Time // when it was accepted, or replayed
	Trace  string    // traceparent of the span that stored it; "" = none

	Print string // of method, target and body: tells one use of a key from another
	Death *Death // nil = alive
}

// Death is why a job became a dead letter.
type Death struct {
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"` // one word: permanent, exhausted, expired, unreadable
	Error    string    `json:"error"`  // of the last attempt
	Status   int       `json:"status"` // HTTP status of the last answer; 0 = none
	Attempts int       `json:"attempts"`
}

// head is the first line of a stored job. The body follows as it came, so that the whole can be read with NATS's own tools.
type head struct {
	Version int         `json:"v"`
	ID      string      `json:"id"`
	Key     string      `json:"key"`
	Method  string      `json:"method"`
	Scheme  string      `json:"scheme"`
	Host    string      `json:"host"`
	Target  string      `json:"target"`
	Header  http.Header `json:"header"`
	At      time.Time   `json:"at"`
	Trace   string      `json:"trace,omitempty"`
	Print   string      `json:"print"`
	Death   *Death      `json:"death,omitempty"`
	Length  int         `json:"length"` // of the body
}

// encode is j as it is stored. It returns ErrTooLarge.
func (j *Job) encode() ([]byte, error) {
	line, err := json.Marshal(head{
		version, j.ID, j.Key, j.Method, j.Scheme, j.Host, j.Target, j.Header, j.At.UTC(), j.Trace, j.Print, j.Death, len(j.Body),
	})
	if err != nil {
		return nil, fmt.Errorf("offload: encoding a job: %w", err)
	}
	if len(line) > maxHead || len(j.Body) > maxBody {
		return nil, ErrTooLarge
	}
	out := make([]byte, 0, len(line)+1+len(j.Body))
	out = append(out, line...)
	out = append(out, '\n')
	return append(out, j.Body...), nil
}

// decode reads a stored job; j.Body is part of data. The error is ErrMalformed.
func decode(data []byte) (*Job, error) {
	line, body, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || len(line) > maxHead {
		return nil, ErrMalformed
	}
	var h head
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case h.Version != version:
		return nil, fmt.Errorf("%w: version %d, want %d", ErrMalformed, h.Version, version)
	case h.Length != len(body):
		return nil, fmt.Errorf("%w: %d bytes of body, want %d", ErrMalformed, len(body), h.Length)
	case !validID(h.ID):
		return nil, fmt.Errorf("%w: ID %q", ErrMalformed, h.ID)
	case h.Key == "" || len(h.Key) > MaxKey || h.Method == "" || !strings.HasPrefix(h.Target, "/"):
		return nil, fmt.Errorf("%w: key, method or target is missing", ErrMalformed)
	}
	if h.Header == nil {
		h.Header = http.Header{}
	}
	return &Job{
		ID: h.ID, Key: h.Key, Method: h.Method, Scheme: h.Scheme, Host: h.Host, Target: h.Target, Header: h.Header, Body: body,
		At: h.At, Trace: h.Trace, Print: h.Print, Death: h.Death,
	}, nil
}

// validID reports whether s can be an ID.
func validID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// queueHash is the part of an ID that names its queue.
func queueHash(queue string) string {
	sum := sha256.Sum256([]byte(queue))
	return hex.EncodeToString(sum[:idPrefix/2])
}

// newID is 128 bits that nobody can guess, behind the queue's prefix.
func newID(queue string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return queueHash(queue) + hex.EncodeToString(b[:])
}

// idOf is the ID of all jobs of one key. Who does not know the key and the scope cannot tell it.
func idOf(queue, scope, key string) string {
	return queueHash(queue) + digest(queue, scope, key)
}

// digest tells lists of texts apart, and its 128 bits tell nothing of them.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
