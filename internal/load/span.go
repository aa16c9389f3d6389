package load

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// service is the name under which the generator's spans appear.
const service = "client"

type spanIDs struct{ high, low, span uint64 }

// newSpanIDs is not seeded: two runs into one receiver must not share trace IDs. Zero is invalid in W3C trace context.
func newSpanIDs() spanIDs {
	return spanIDs{high: rand.Uint64(), low: rand.Uint64() | 1, span: rand.Uint64() | 1}
}

func (s spanIDs) trace() string { return fmt.Sprintf("%016x%016x", s.high, s.low) }
func (s spanIDs) id() string    { return fmt.Sprintf("%016x", s.span) }

// traceparent is version 00 with the sampled flag (W3C Trace Context section 3.2).
func (s spanIDs) traceparent() string { return "00-" + s.trace() + "-" + s.id() + "-01" }

// clientSpan starts at the moment of sending: what the generator did before is lag, not a part of the call.
func clientSpan(ids spanIDs, t Target, host string, r *http.Request, status int, err error, sent, end time.Time) trace.Span {
	span := trace.Span{
		TraceID: ids.trace(), ID: ids.id(), Kind: trace.Client, Service: service, Name: r.Method,
		Start: sent.UnixNano(), End: sent.UnixNano() + int64(end.Sub(sent)),
		Host: host, Failed: err != nil || status >= 400,
		Attributes: []trace.Attribute{
			{Key: "http.request.method", Value: r.Method},
			{Key: "url.full", Value: r.URL.String()},
			{Key: "url.path", Value: r.URL.Path},
			{Key: "server.address", Value: r.URL.Hostname()},
			{Key: "server.port", Value: port(r)},
		},
	}
	add := func(key, value string) {
		if value != "" {
			span.Attributes = append(span.Attributes, trace.Attribute{Key: key, Value: value})
		}
	}
	add("url.query", r.URL.RawQuery)
	add("host.name", host)
	if t.Template != "" {
		span.Name += " " + t.Template
		add("url.template", t.Template)
	}
	switch {
	case err != nil:
		add("error.type", fmt.Sprintf("%T", err))
	case status >= 400:
		add("error.type", strconv.Itoa(status))
	}
	if status != 0 {
		add("http.response.status_code", strconv.Itoa(status))
	}
	return span
}

func port(r *http.Request) string {
	switch p := r.URL.Port(); {
	case p != "":
		return p
	case r.URL.Scheme == "https":
		return "443"
	}
	return "80"
}
