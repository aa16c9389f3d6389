package diagnose

import (
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// Report is what a set of traces says about where time goes. Its JSON form is a contract: times are in
// milliseconds, shares are 0..1, and lists are never null.
type Report struct {
	Input    Input     `json:"input"`
	Routes   []Route   `json:"routes"`            // by total time lost, most first
	Culprits []Culprit `json:"culprits,omitzero"` // nil = there was nothing to compare with; empty = no service stands out
	Notes    []string  `json:"notes,omitempty"`   // what a reader must know, in plain words
}

// Input counts what was read, and what of it was fit for use.
type Input struct {
	Files              int `json:"files"`
	Traces             int `json:"traces"`
	Spans              int `json:"spans"`
	IncompleteTraces   int `json:"incomplete_traces"`    // a parent is missing
	DuplicateSpans     int `json:"duplicate_spans"`      // dropped: the ID was there before
	InvalidSpans       int `json:"invalid_spans"`        // dropped: no ID, or the end lies before the start
	SkewCorrectedSpans int `json:"skew_corrected_spans"` // moved because their host's clock was off
}

// Route is the traces whose root span has one service and operation.
type Route struct {
	Service   string    `json:"service"`
	Operation string    `json:"operation"`
	Traces    int       `json:"traces"`
	Errors    int       `json:"errors"` // traces whose root span failed
	Latency   Latency   `json:"latency_ms"`
	Segments  []Segment `json:"segments"` // by share of the p99 band, largest first
	Findings  []Finding `json:"findings"` // by share of the p99 band, largest first
}

// Latency is exact quantiles (nearest rank) of root durations in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Segment is one piece of a system and what it takes of the critical path of a route.
type Segment struct {
	Segment    trace.Segment `json:"segment"`
	Service    string        `json:"service"` // of a network segment: the callee, to whom the edge belongs
	Operation  string        `json:"operation"`
	Share      Bands         `json:"share"`       // of the band's time, 0..1
	CriticalMS Bands         `json:"critical_ms"` // mean of the band's traces, milliseconds
}

// Bands is one figure for the typical and for the slow traces. See [bandsOf] for what belongs to them.
type Bands struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Verdict says how sure a finding is.
type Verdict string

// The verdicts. Traces alone seldom confirm a cause.
const (
	Confirmed Verdict = "confirmed" // the traces leave no other reading
	Likely    Verdict = "likely"    // the evidence fits, and what speaks against it is weak
	Suspected Verdict = "suspected" // one of several readings
)

// Finding is one cause of slowness with what speaks for it and against it.
type Finding struct {
	Code            string        `json:"code"`
	Class           string        `json:"class"`
	Segment         trace.Segment `json:"segment"`
	Service         string        `json:"service"`
	Operation       string        `json:"operation"`
	Verdict         Verdict       `json:"verdict"`
	Confidence      float64       `json:"confidence"` // 0..1
	ShareP99        float64       `json:"share_p99"`  // of the p99 band's critical path that the cause takes, 0..1
	Summary         string        `json:"summary"`
	Evidence        []string      `json:"evidence"`
	CounterEvidence []string      `json:"counter_evidence"`
	Detail          Detail        `json:"-"`
}

// Detail carries the figures of a finding to whoever proposes a cure. Fields that a finding does not know are zero.
type Detail struct {
	Calls    float64       // calls of this kind per trace (LP101, LP102, LP104)
	Callees  []string      // services called (LP101, LP102)
	Endpoint string        // the slow endpoint (LP103)
	Others   []string      // its healthy siblings, sorted (LP103)
	Latency  time.Duration // p99 of the healthy siblings (LP103), mean of one call (LP101, LP102, LP104)
	TTL      time.Duration // shortest lifetime that gives nearly the best hit ratio (LP104)
	HitRatio float64       // with that TTL, 0..1 (LP104)
	Keys     int           // distinct keys seen (LP104)
	Saved    time.Duration // mean critical time a trace of the p99 band would save if the cause were gone; an upper bound
}

// Culprit is a service that makes suspect traffic slower than healthy traffic.
type Culprit struct {
	Service   string        `json:"service"`
	Operation string        `json:"operation"` // where most of the excess lies
	Segment   trace.Segment `json:"segment"`
	Class     string        `json:"class"`     // "cpu", "database", "network", "dependency", "queueing" or "unknown"
	ExcessMS  float64       `json:"excess_ms"` // mean per suspect trace, lower confidence bound, milliseconds
	Share     float64       `json:"share"`     // of all excess that was found, 0..1
}

// Options of a run. The zero value is ready to use.
type Options struct {
	Clock     ClockOptions
	Files     int           // how many files the traces came from; for Report.Input
	MaxRoutes int           // routes reported one by one, the rest together as "other"; default 200
	Baseline  []trace.Trace // healthy traffic to compare with; nil = none
}

func (o Options) withDefaults() Options {
	if o.MaxRoutes <= 0 {
		o.MaxRoutes = 200
	}
	return o
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

// ratio is a/b, or 0 where b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
