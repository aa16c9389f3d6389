package lab

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// identity is what crosses the wire of a span: W3C trace context, version 00.
type identity struct{ trace, span string }

// parseTraceparent reads the header; anything malformed starts a new trace, as W3C Trace Context section 3.2 asks.
// Later versions may append fields, which are ignored.
func parseTraceparent(header string) (identity, bool) {
	part := strings.SplitN(header, "-", 5)
	if len(part) < 4 || !lowerHex(part[0], 2) || part[0] == "ff" || (part[0] == "00" && len(part) != 4) {
		return identity{}, false
	}
	if !lowerHex(part[1], 32) || !lowerHex(part[2], 16) || !lowerHex(part[3], 2) ||
		strings.Trim(part[1], "0") == "" || strings.Trim(part[2], "0") == "" {
		return identity{}, false
	}
	return identity{trace: part[1], span: part[2]}, true
}

func lowerHex(s string, length int) bool {
	if len(s) != length || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

func (i identity) traceparent() string { return "00-" + i.trace + "-" + i.span + "-01" }

// span is one that is still open. It belongs to one goroutine.
type span struct {
	trace.Span
	began  time.Time // carries the monotonic clock
	export func(trace.Span)
}

// begin opens a span of s under parent; a zero parent starts a trace.
func (s *service) begin(parent identity, kind trace.Kind, name string) *span {
	now := time.Now()
	x := &span{began: now, export: s.spans.add, Span: trace.Span{
		TraceID: parent.trace, ID: fmt.Sprintf("%016x", rand.Uint64()|1), Parent: parent.span,
		Kind: kind, Service: s.name, Name: name, Start: now.UnixNano(), Host: s.host,
	}}
	if x.TraceID == "" {
		x.TraceID = fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()|1)
	}
	return x.set("service.instance.id", s.instance).set("host.name", s.host)
}

func (x *span) identity() identity { return identity{trace: x.TraceID, span: x.ID} }

func (x *span) set(key, value string) *span {
	x.Attributes = append(x.Attributes, trace.Attribute{Key: key, Value: value})
	return x
}

// fail marks the span as failed for a reason of low cardinality.
func (x *span) fail(reason string) { x.set("error.type", reason).Failed = true }

// end closes the span and hands it on. Its length is taken from the monotonic clock.
func (x *span) end() {
	x.End = x.Start + int64(time.Since(x.began))
	x.export(x.Span)
}
