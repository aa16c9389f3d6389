package httpcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Answer is a kept answer with status, header and whole body. It is immutable, so any number of calls may read it.
type Answer struct {
	Status     int
	Header     http.Header // without the fields of one connection; Date and Content-Length are there
	Body       []byte
	Received   time.Time     // by our clock
	Age        time.Duration // when it was received
	Fresh      time.Duration // from Received on
	Explicit   bool          // it says itself how long it is fresh
	Authorized bool          // may be given to a request with Authorization
	size       int64
}

// NewAnswer makes one of the head of an answer, what was decided about it, and its body. header is copied, without what
// v omits; it gets a Date if it has none (RFC 9110 section 6.6.1).
func NewAnswer(status int, header http.Header, body []byte, received time.Time, v Verdict) *Answer {
	a := &Answer{
		Status: status, Header: make(http.Header, len(header)+2), Body: body, Received: received, Age: v.Age, Fresh: v.Fresh,
		Explicit: v.Explicit, Authorized: v.Authorized,
	}
	for name, lines := range header {
		if !slices.Contains(v.Omit, name) {
			a.Header[name] = lines
		}
	}
	if _, ok := dateOf(a.Header, "Date", received); !ok && len(a.Header["Date"]) == 0 {
		a.Header["Date"] = []string{httpDate(received)}
	}
	if status != http.StatusNoContent {
		a.Header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	a.size = HeadSize(a.Header) + int64(len(body))
	return a
}

// HeadSize is what a header costs a store, in bytes.
func HeadSize(h http.Header) (n int64) {
	for name, lines := range h {
		n += int64(len(name)) + 64
		for _, line := range lines {
			n += int64(len(line)) + 16
		}
	}
	return n
}

// Size is what a costs a store, in bytes.
func (a *Answer) Size() int64 { return a.size }

// Negative reports whether a says that there is nothing: a client error.
func (a *Answer) Negative() bool { return a.Status >= 400 }

// AgeAt is how old a is at now (RFC 9111 section 4.2.3).
func (a *Answer) AgeAt(now time.Time) time.Duration { return a.Age + max(0, now.Sub(a.Received)) }

// Left is for how long a is fresh after now; negative = stale for so long.
func (a *Answer) Left(now time.Time) time.Duration { return a.Fresh - now.Sub(a.Received) }

// Suits reports whether a may answer a request with the header h, as far as its credentials go.
func (a *Answer) Suits(h http.Header) bool {
	return (!Authenticated(h) || a.Authorized) && (len(h["Cookie"]) == 0 || a.Explicit || a.Authorized)
}

// FieldIdentity is the request field in which a gateway tells who showed a verified client certificate.
const FieldIdentity = "X-Client-Identity"

// Credentials are the request fields, in canonical form, that say who asks: Authorization (RFC 9111 section 3.5), and what
// stands in for it.
var Credentials = [...]string{
	"Authorization", FieldIdentity, "X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "X-Session-Token", "X-Session-Id",
	"X-Amz-Security-Token", "X-Goog-Iap-Jwt-Assertion", "X-Vault-Token", "Private-Token",
}

// Authenticated reports whether a request has one of Credentials, all of which count as much as Authorization.
func Authenticated(h http.Header) bool {
	for i := range Credentials {
		if len(h[Credentials[i]]) > 0 {
			return true
		}
	}
	return false
}

// The form in which kept answers travel: version, kind, then fields of fixed order; numbers big-endian, texts behind
// their length.
const (
	version      = 1
	kindAnswer   = 1
	kindVariance = 2

	flagExplicit   = 1
	flagAuthorized = 2

	maxFields = 4096 // of a header that is read
)

// ErrForm says that bytes are no kept answer of this version.
var ErrForm = errors.New("httpcache: not a kept answer of this version")

// AppendTo appends a to b in a form that Decode reads, in another process too.
func (a *Answer) AppendTo(b []byte) []byte {
	var flags byte
	if a.Explicit {
		flags |= flagExplicit
	}
	if a.Authorized {
		flags |= flagAuthorized
	}
	b = append(b, version, kindAnswer, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(a.Status))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Received.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Age.Milliseconds()))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Fresh.Milliseconds()))
	n := 0
	for _, lines := range a.Header {
		n += len(lines)
	}
	b = binary.AppendUvarint(b, uint64(n))
	for name, lines := range a.Header {
		for _, line := range lines {
			b = appendText(appendText(b, name), line)
		}
	}
	return append(b, a.Body...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode reads what AppendTo of an Answer or of a Variance wrote; the other one is nil. The body is a part of b. Whatever
// else b may be, it is an error.
func Decode(b []byte) (*Answer, *Variance, error) {
	if len(b) < 2 || b[0] != version {
		return nil, nil, ErrForm
	}
	switch r := (reader{b: b[2:]}); b[1] {
	case kindAnswer:
		a, err := decodeAnswer(r)
		return a, nil, err
	case kindVariance:
		v, err := decodeVariance(r)
		return nil, v, err
	}
	return nil, nil, ErrForm
}

func decodeAnswer(r reader) (*Answer, error) {
	flags := r.byte()
	a := &Answer{Status: int(r.uint16()), Explicit: flags&flagExplicit != 0, Authorized: flags&flagAuthorized != 0}
	a.Received = time.UnixMilli(int64(r.uint64()))
	a.Age, a.Fresh = r.duration(), r.duration()
	n := r.uvarint()
	if r.bad || flags&^(flagExplicit|flagAuthorized) != 0 || n > maxFields || a.Status < 200 || a.Status > 599 {
		return nil, fmt.Errorf("%w: head", ErrForm)
	}
	a.Header = make(http.Header, min(n, 64))
	for range n {
		name, line := r.text(), r.text()
		if r.bad || name == "" || !isText(name) || !isText(line) {
			return nil, fmt.Errorf("%w: field", ErrForm)
		}
		a.Header[name] = append(a.Header[name], line)
	}
	a.Body = r.b
	a.size = HeadSize(a.Header) + int64(len(a.Body))
	return a, nil
}

// isText keeps what would break a message out of it, whoever wrote it there.
func isText(s string) bool {
	for i := range len(s) {
		if s[i] == '\r' || s[i] == '\n' || s[i] == 0 {
			return false
		}
	}
	return true
}

// reader takes values off the front of b; bad once there were too few bytes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, min(n, 8))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// duration reads milliseconds.
func (r *reader) duration() time.Duration {
	ms := int64(r.uint64())
	if ms > math.MaxInt64/int64(time.Millisecond) || ms < math.MinInt64/int64(time.Millisecond) {
		r.bad = true
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	return string(r.take(int(n)))
}
