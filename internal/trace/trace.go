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
	Failed  bool // the status is an error
	// FollowsFrom says that Parent is a FOLLOWS_FROM reference: it did not wait.
	FollowsFrom bool
	Link        *Link // the first of the spans that it is linked to; nil = none. Not to be changed: copies share it
	Service     string
	Name        string // the operation
	Start       int64  // ns since the Unix epoch
	End         int64  // ns since the Unix epoch; before Start = malformed
	// Host identifies the clock that stamped the span: the first present of host.id, host.name, k8s.pod.uid,
	// k8s.pod.name, service.instance.id, hostname, ip. "" = unknown, which never equals another host.
	Host string
	// Attributes is those of the span; then of its resource, where the span has none of that key. Those that it has in common
	// with other spans may be in Shared instead: read them by [Span.Attr], [Span.At] or [Span.All], and call [Span.Unshare]
	// before you change them.
	Attributes []Attribute
	Shared     *Shared // nil = all are in Attributes
}

// Keys is the keys of the attributes of spans, in their order. Spans that share one need to be understood only once. It is not
// changed once it is made.
type Keys struct {
	List []string
	Hash uint64 // tells most Keys apart, those with an equal List too
}

// Fits reports whether k is the keys of these attributes. Texts that share their memory are equal at a glance.
func (k *Keys) Fits(attributes []Attribute) bool {
	if len(k.List) != len(attributes) {
		return false
	}
	for i := range attributes {
		if attributes[i].Key != k.List[i] {
			return false
		}
	}
	return true
}

// Link names a span that has to do with another one and is not its parent, often in a trace of its own: the producer of a
// message that a consumer works on. It is a list, which costs a span without links one pointer.
type Link struct {
	TraceID string
	SpanID  string
	Next    *Link // nil = this is the last
}

// Duration is End - Start; negative for a malformed span.
func (s *Span) Duration() time.Duration { return time.Duration(s.End - s.Start) }

// Attr returns the value of the first of keys that the span carries, or "".
// Name the current semantic convention first and the older spellings after it.
func (s *Span) Attr(keys ...string) string {
	// One walk for all keys; most attributes are ruled out by the length of their own.
	var lengths uint64
	for _, k := range keys {
		lengths |= 1 << (len(k) & 63)
	}
	best, value := len(keys), ""
	for i := range s.Len() {
		a := s.At(i)
		if lengths>>(len(a.Key)&63)&1 == 0 {
			continue
		}
		for k, key := range keys[:best] {
			if a.Key == key {
				best, value = k, a.Value
				break
			}
		}
		if best == 0 {
			break
		}
	}
	return value
}

// Trace is the spans that share a trace ID, in no particular order.
type Trace struct {
	ID    string
	Spans []Span
	// Weight is how many traces this one stands for: 1 over the probability with which it was kept. 0 means 1,
	// which is what a trace has that was never sampled. Never below 0, never NaN.
	Weight float64
	Logs   []Log // what was logged while it ran, in the order of arrival; nil = nothing is known
}

// Log is one log record that was written within a trace.
type Log struct {
	TraceID   string // as the spans spell it
	SpanID    string // "" = of the trace, not of one span
	Time      int64  // ns since the Unix epoch; when it was seen, if not when it was written; 0 = unknown
	Severity  Severity
	Service   string
	Body      string // at most 1 KiB of its text
	Exception string // the type of the exception that it reports (exception.type); "" = none
}

// LogCounts is what became of the log records of an input. Records is the sum of the others.
type LogCounts struct {
	Records int `json:"records"`           // that were read
	Joined  int `json:"joined,omitempty"`  // to a trace
	Minor   int `json:"minor,omitempty"`   // below warn and without an exception: not kept
	Alone   int `json:"alone,omitempty"`   // of no trace, or of one that is not in the input
	Dropped int `json:"dropped,omitempty"` // beyond 64 a trace or beyond the memory for them, or of a trace that was sampled out
	Invalid int `json:"invalid,omitempty"` // with an identifier or a time that is none
}

// Severity is how bad a log record is, as OpenTelemetry numbers it: 1..4 trace, 5..8 debug, 9..12 info, 13..16 warn,
// 17..20 error, 21..24 fatal; 0 = unknown.
type Severity uint8

// The lowest severities of their ranges.
const (
	SeverityTrace Severity = 1
	SeverityDebug Severity = 5
	SeverityInfo  Severity = 9
	SeverityWarn  Severity = 13
	SeverityError Severity = 17
	SeverityFatal Severity = 21
)

// String is the name of the range: "warn" for 13 to 16.
func (s Severity) String() string {
	if s == 0 || s > 24 {
		return "unknown"
	}
	return [...]string{"trace", "debug", "info", "warn", "error", "fatal"}[(s-1)/4]
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
