package gateway

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/trace"
)

// service is how the gateway names itself in spans.
const service = "longpole-gateway"

// maxAttribute bounds what a client's URL adds to a span.
const maxAttribute = 512

// parentage is the trace that a call belongs to (W3C Trace Context level 1).
type parentage struct {
	trace  string // 32 hex digits
	parent string // 16 hex digits; "" = the call begins the trace
	flags  string // two hex digits
	quiet  bool   // its spans are not wanted here
}

// parentOf reads traceparent. What is not valid is as good as absent, and then its tracestate is of no use either.
func parentOf(h http.Header) (p parentage, ok bool) {
	lines := h["Traceparent"]
	if len(lines) == 1 {
		p, ok = parseTraceparent(lines[0])
	}
	if !ok {
		p = parentage{trace: newID(2), flags: "01"}
	}
	return p, ok
}

func parseTraceparent(s string) (p parentage, ok bool) {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' || !lowerHex(s[:2]) || s[:2] == "ff" {
		return p, false
	}
	if s[:2] == "00" && len(s) != length || len(s) > length && s[length] != '-' {
		return p, false
	}
	p = parentage{trace: s[3:35], parent: s[36:52], flags: s[53:55]}
	ok = lowerHex(p.trace) && lowerHex(p.parent) && lowerHex(p.flags) &&
		strings.Trim(p.trace, "0") != "" && strings.Trim(p.parent, "0") != ""
	return p, ok
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// newID is a random identifier of words times 64 bits, 1 or 2, never all zero.
func newID(words int) string {
	var b [32]byte
	for i := range words {
		randomHex(b[16*i:][:16])
	}
	return string(b[:16*words])
}

// randomHex fills to, 16 bytes, with 64 random bits that are not all zero.
func randomHex(to []byte) {
	const digits = "0123456789abcdef"
	n := rand.Uint64() | 1
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = digits[n&15]
		n >>= 4
	}
}

// spans collects those of one call. Attempts may end after the call: the loser of a hedge, a refresh behind a stale
// answer. Theirs are sent one by one.
type spans struct {
	sink   func([]trace.Span)
	origin parentage
	server string // ID of the SERVER span
	host   string

	mu      sync.Mutex
	list    []trace.Span // ended before the call did
	flushed bool
}

// within is the parentage of what is done for the call beside its attempts.
func (s *spans) within() parentage {
	p := s.origin
	p.parent = s.server
	return p
}

// begin opens the span of one attempt at an endpoint of an upstream. When nobody wants spans it only gives the attempt its ID.
func (a *attemptSpan) begin(s *spans, number int, hedge bool, upstream string, to *endpoint, method string) {
	a.spans = s
	randomHex(a.id[:])
	if s.sink == nil {
		return
	}
	a.span = trace.Span{
		TraceID: s.origin.trace, ID: string(a.id[:]), Parent: s.server, Kind: trace.Client,
		Service: service, Name: method, Start: time.Now().UnixNano(), Host: s.host,
		Attributes: []trace.Attribute{
			{Key: "http.request.method", Value: method},
			{Key: "service.peer.name", Value: upstream}, // who is called, where no span of theirs tells
			{Key: "server.address", Value: to.host},
			{Key: "server.port", Value: to.port},
			{Key: "longpole.endpoint", Value: to.name},
		},
	}
	if number > 1 {
		a.add("http.request.resend_count", strconv.Itoa(number-1))
	}
	if hedge {
		a.add("longpole.hedge", "true")
	}
}

// add keeps a span until the call ends, or sends it when the call has ended.
func (s *spans) add(span trace.Span) {
	if s.sink == nil {
		return
	}
	s.mu.Lock()
	late := s.flushed
	if !late {
		s.list = append(s.list, span)
	}
	s.mu.Unlock()
	if late {
		s.sink([]trace.Span{span})
	}
}

// flush sends the call's own span and those of its attempts.
func (s *spans) flush(server trace.Span) {
	if s.sink == nil {
		return
	}
	s.mu.Lock()
	s.flushed = true
	list := append(s.list, server)
	s.mu.Unlock()
	s.sink(list)
}

// attemptSpan is the CLIENT span of one attempt. It ends once, with the body of the answer or with the error.
type attemptSpan struct {
	spans *spans
	id    [16]byte  // in hex
	value [1]string // of the traceparent field
	once  sync.Once
	span  trace.Span
}

func (a *attemptSpan) add(key, value string) {
	a.span.Attributes = append(a.span.Attributes, trace.Attribute{Key: key, Value: value})
}

// traceparent names the attempt as the parent of what the upstream does for it.
func (a *attemptSpan) traceparent() string {
	b := make([]byte, 0, 2+1+32+1+16+1+2)
	b = append(append(append(b, "00-"...), a.spans.origin.trace...), '-')
	b = append(append(append(b, a.id[:]...), '-'), a.spans.origin.flags...)
	return string(b)
}

// answered notes the head of an answer.
func (a *attemptSpan) answered(status int) {
	if a.spans.sink == nil {
		return
	}
	a.add("http.response.status_code", strconv.Itoa(status))
	if status >= 500 {
		a.span.Failed = true
		a.add("error.type", strconv.Itoa(status))
	}
}

// end closes the span; class says why when the attempt was no success.
func (a *attemptSpan) end(class call.Class) {
	if a.spans.sink == nil {
		return
	}
	a.once.Do(func() {
		a.span.End = time.Now().UnixNano()
		if class != call.OK && !a.span.Failed {
			a.span.Failed = class.Failed()
			a.add("error.type", class.String())
		}
		a.spans.add(a.span)
	})
}

// clipped bounds an attribute.
func clipped(s string) string { return s[:min(len(s), maxAttribute)] }
