// Package trace is the model of what was observed: spans, and the traces they form.
//
// Identifiers are kept as the input spells them. Times are integers in
// nanoseconds since the Unix epoch (all wire formats carry them so, and a
// time.Time is three times as big), durations are time.Duration.
package trace

import "time"

// Kind is the role of a span in a remote call or message.
type Kind uint8

// The kinds of OpenTelemetry. Unspecified is common in old or thin instrumentation.
const (
	Unspecified Kind = iota
	Internal
	Server
	Client
	Producer
	Consumer
)

// String is the lower-case name.
func (k Kind) String() string {
	if k > Consumer {
		return "unspecified"
	}
	return [...]string{"unspecified", "internal", "server", "client", "producer", "consumer"}[k]
}

// ParseKind reads the lower-case name of a kind; anything else is Unspecified.
func ParseKind(s string) Kind {
	for k := Internal; k <= Consumer; k++ {
		if k.String() == s {
			return k
		}
	}
	return Unspecified
}

// Attribute is one key and its value as text.
type Attribute struct{ Key, Value string }

// Span is one timed operation.
type Span struct {
	TraceID string
	ID      string
	Parent  string // ID of the parent; "" = none was named
	Kind    Kind
	Service string
	Name    string // the operation
	Start   int64  // ns since the Unix epoch
	End     int64  // ns since the Unix epoch; before Start = malformed
	// Host identifies the clock that stamped the span: the first present of host.id, host.name, k8s.pod.uid,
	// k8s.pod.name, service.instance.id, hostname, ip. "" = unknown, which never equals another host.
	Host        string
	Failed      bool        // the status is an error
	FollowsFrom bool        // Parent is a FOLLOWS_FROM reference: it did not wait
	Attributes  []Attribute // of the span; then of its resource, where the span has none of that key
}

// Duration is End - Start; negative for a malformed span.
func (s *Span) Duration() time.Duration { return time.Duration(s.End - s.Start) }

// Attr returns the value of the first of keys that the span carries, or "".
// Name the current semantic convention first and the older spellings after it.
func (s *Span) Attr(keys ...string) string {
	for _, k := range keys {
		for i := range s.Attributes {
			if s.Attributes[i].Key == k {
				return s.Attributes[i].Value
			}
		}
	}
	return ""
}

// Trace is the spans that share a trace ID, in no particular order.
type Trace struct {
	ID    string
	Spans []Span
}

// Segment is the part of a distributed system that a piece of time belongs to.
type Segment string

// The segments of mission row M2.
const (
	SegClient     Segment = "client"
	SegGateway    Segment = "gateway"
	SegService    Segment = "service"
	SegDownstream Segment = "downstream"
	SegCache      Segment = "cache"
	SegDatabase   Segment = "database"
	SegQueue      Segment = "queue"
	SegNetwork    Segment = "network"
)

// Group sorts spans into traces, keeping the order in which the traces first appear.
func Group(spans []Span) []Trace {
	index := make(map[string]int)
	var traces []Trace
	for _, s := range spans {
		i, ok := index[s.TraceID]
		if !ok {
			i = len(traces)
			index[s.TraceID] = i
			traces = append(traces, Trace{ID: s.TraceID})
		}
		traces[i].Spans = append(traces[i].Spans, s)
	}
	return traces
}
