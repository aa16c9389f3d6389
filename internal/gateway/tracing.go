package gateway

import (
	"encoding/hex"
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

// newID is a random identifier of words times 64 bits, never all zero.
func newID(words int) string {
	b := make([]byte, 0, 16)
	for range words {
		n := rand.Uint64() | 1
		for shift := 56; shift >= 0; shift -= 8 {
			b = append(b, byte(n>>shift))
		}
	}
	return hex.EncodeToString(b)
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

// begin opens the span of one attempt.
func (s *spans) begin(number int, hedge bool, to location, name string, method string) *attemptSpan {
	a := &attemptSpan{spans: s}
	a.span = trace.Span{
		TraceID: s.origin.trace, ID: newID(1), Parent: s.server, Kind: trace.Client,
		Service: service, Name: method, Start: time.Now().UnixNano(), Host: s.host,
		Attributes: []trace.Attribute{
			{Key: "longpole.segment", Value: string(trace.SegGateway)},
			{Key: "http.request.method", Value: method},
			{Key: "server.address", Value: to.host},
			{Key: "server.port", Value: to.port},
			{Key: "longpole.endpoint", Value: name},
		},
	}
	if number > 1 {
		a.add("http.request.resend_count", strconv.Itoa(number-1))
	}
	if hedge {
		a.add("longpole.hedge", "true")
	}
	return a
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
	once  sync.Once
	span  trace.Span
}

func (a *attemptSpan) add(key, value string) {
	a.span.Attributes = append(a.span.Attributes, trace.Attribute{Key: key, Value: value})
}

// traceparent names the attempt as the parent of what the upstream does for it.
func (a *attemptSpan) traceparent() string {
	return "00-" + a.span.TraceID + "-" + a.span.ID + "-" + a.spans.origin.flags
}

// answered notes the head of an answer.
func (a *attemptSpan) answered(status int) {
	a.add("http.response.status_code", strconv.Itoa(status))
	if status >= 500 {
		a.span.Failed = true
		a.add("error.type", strconv.Itoa(status))
	}
}

// end closes the span; class says why when the attempt was no success.
func (a *attemptSpan) end(class call.Class) {
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
