package diagnose

import (
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// Report is what a set of traces says about where time goes. Its JSON form is a contract: times are in
// milliseconds, shares are 0..1, and lists are never null.
type Report struct {
	Input    Input     `json:"input"`
	Routes   []Route   `json:"routes"`            // by total time lost, most first
	Culprits []Culprit `json:"culprits,omitzero"` // nil = there was nothing to compare with; empty = no service stands out
	Notes    []string  `json:"notes,omitempty"`   // what a reader must know, in plain words

	Clocks    []ClockModel `json:"clocks,omitempty"`     // pairs of hosts, those farthest apart first; then single clocks, coarsest first
	ClocksCut int          `json:"clocks_cut,omitempty"` // clocks and pairs that Clocks leaves out
	Orders    Orders       `json:"orders"`
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

	OrphanSpans    int     `json:"orphan_spans,omitempty"`    // whose parent is missing
	SyntheticRoots int     `json:"synthetic_roots,omitempty"` // traces without a root, which was made up for the spans that miss it
	Coverage       float64 `json:"coverage"`                  // share of the spans that stand below the root of their trace, 0..1; the others are in no figure
	Represented    float64 `json:"represented,omitempty"`     // traces that those of the input stand for, if they were sampled

	Logs trace.LogCounts `json:"logs,omitzero"`
}

// Orders is what many traces tell about siblings: whether one waits for another. See [Trees].
type Orders struct {
	Dropped int `json:"dropped"`           // orders of two siblings that a trace falsified: neither is on the path because of the other
	Skipped int `json:"skipped,omitempty"` // spans with children about whose order nothing was learnt because they are too many
}

// Route is the traces whose root span has one service and operation.
type Route struct {
	Service   string    `json:"service"`
	Operation string    `json:"operation"`
	Traces    int       `json:"traces"`
	Errors    int       `json:"errors"` // traces whose root span failed
	Latency   Latency   `json:"latency_ms"`
	Segments  []Segment `json:"segments"` // by share of the p99 band, largest first
	Findings  []Finding `json:"findings"` // by what they cost: share of the p99 band, or of the requests, messages or load that they spoil; but causes before their consequences

	Represented float64      `json:"represented,omitempty"` // traces that these stand for, if they were sampled; all figures but Traces and Errors are about those
	Incomplete  int          `json:"incomplete,omitempty"`  // traces in which a span is missing: its time counts as its parent's
	Coverage    float64      `json:"coverage"`              // share of the spans that stand below the root of their trace, 0..1
	Differences []Difference `json:"differences,omitempty"` // what slow traces have and others do not, surest first
	Queues      []Queue      `json:"queues,omitempty"`      // by p99 of the wait, longest first
	Logged      []Logged     `json:"logged,omitempty"`      // messages that go with slow or failed traces, clearest first
	Async       []AsyncPath  `json:"async,omitempty"`       // work that nobody waited for, most time first
	Against     *Against     `json:"against,omitempty"`     // the same route in the baseline; nil = there is none, or it has too few traces
	// Cut counts the values of attributes, the messages and the pieces of work that are in neither list because there are
	// too many of them.
	Cut int `json:"cut,omitempty"`
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
	// DragMS is how much of CriticalMS a trace would be shorter by if the segment took no time; the rest would be spent
	// waiting for what runs beside it. SlackMS is how much longer each of the segment's spans could have taken for free,
	// on average; 0 = they are all on the critical path. See [Float]. Milliseconds, from at most 100 traces of a band.
	DragMS  Bands `json:"drag_ms"`
	SlackMS Bands `json:"slack_ms"`
}

// Bands is one figure for three bands of a route's traces. Of few traces each band is wider: at least five of them.
type Bands struct {
	P50 float64 `json:"p50"` // the typical ones: quantiles 0.40 to 0.60
	P95 float64 `json:"p95"` // the slow ones without the slowest: 0.95 to 0.99
	P99 float64 `json:"p99"` // the slowest hundredth
}

func (b *Bands) add(c Bands) {
	b.P50 += c.P50
	b.P95 += c.P95
	b.P99 += c.P99
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
	Against         Standing      `json:"against,omitempty"` // how it stands to the baseline; "" = there is none
	Detail          Detail        `json:"-"`

	harm float64 // done beside ShareP99, 0..1: part of the requests that fail or are refused, of the messages that wait too long, of the load that is in vain
}

// Detail carries the figures of a finding to whoever proposes a cure. Fields that a finding does not know are zero; in
// parentheses stands which findings may fill a field.
type Detail struct {
	Calls    float64       // calls of this kind per trace (LP101..LP104, LP112, LP113, LP121); leaves of one fan-out (LP121)
	Callees  []string      // services called (LP101, LP102, LP107 message, LP112, LP113, LP115, LP118..LP123, LP125)
	Endpoint string        // the slow or failing endpoint, instance or host (LP103, LP116, LP117, LP122, LP124)
	Others   []string      // its healthy siblings, sorted (LP103, LP122)
	Latency  time.Duration // p99 of the healthy siblings (LP103), mean of one call (LP101, LP102, LP104), p99 of what succeeds (LP118, LP119), typical time without the cause (all others)
	TTL      time.Duration // shortest lifetime that gives nearly the best hit ratio (LP104)
	HitRatio float64       // with that TTL, 0..1 (LP104); as seen (LP115)
	Keys     int           // distinct keys seen (LP104, LP115)
	Saved    time.Duration // mean critical time a trace of the p99 band would save if the cause were gone; an upper bound

	Variant     string        // what within the class: "slow_query", "missing_index", "bad_plan" (LP109); "database", "process" (LP110); "misses", "stampede", "hot_key" (LP115); "message", "arrival" (LP107)
	Statement   string        // text of the statement without its values (LP109, LP110, LP111, LP115)
	QueryID     int64         // of the statement in pg_stat_statements, 0 = not known (LP109)
	Index       string        // the statement that makes the index that is missing (LP109)
	IndexGain   float64       // part of the planner's cost that the index saves, 0..1; 0 = not tested (LP109)
	Tables      []string      // read from end to end, or with stale statistics (LP109)
	Holder      string        // what the session runs, or ran last, that holds the lock (LP110)
	HolderPID   int           // its process on the database's server (LP110)
	Functions   []string      // that take most, or take more than in health, the first most (LP106, LP110, LP117)
	Instances   []string      // that the cause was seen on, sorted (LP106, LP116, LP117, LP124)
	Arrival     float64       // per second (LP107)
	ServiceRate float64       // what was worked off, per second; 0 = not told (LP107)
	Workers     float64       // that can work at once: the most ever seen in work (LP107), size of the pool (LP111)
	Utilisation float64       // of the workers or processors, 0 and up; 0 = not told (LP106, LP107, LP123)
	Concurrency float64       // requests in work when the slow ones came, their mean (LP107, LP111, LP123); reads at once (LP115 stampede)
	Wait        time.Duration // mean wait of a slow request (LP107, LP110, LP111), work of one loser (LP113), length of a typical pause (LP117)
	Pool        string        // name of the pool (LP111)
	Attempts    float64       // tries of one call that is tried again (LP112), copies of a hedged call (LP113)
	Failed      float64       // part of the calls that fail, 0..1 (LP112, LP118..LP120, LP122, LP123)
	Bytes       int64         // of a large payload, its p99 (LP114)
	BytesUsual  int64         // of a payload, its median (LP114)
	PerByte     float64       // ns that a byte takes, by regression over the calls; 0 = not told (LP114)
	Timeout     time.Duration // after which the calls give up (LP118, LP119)
	Skew        time.Duration // how far the clock is off, its median without sign (LP124)
	storm       bool          // the tries multiply, or double the load (LP112)
}

// Culprit is a service that makes suspect traffic slower than healthy traffic.
type Culprit struct {
	Service   string        `json:"service"`
	Operation string        `json:"operation"` // where most of the excess lies
	Segment   trace.Segment `json:"segment"`
	Class     string        `json:"class"`     // "cpu", "database", "network", "dependency", "queueing"; "errors" or "missing_calls" of one that breaks without being slower
	ExcessMS  float64       `json:"excess_ms"` // mean per suspect trace, lower confidence bound, milliseconds
	Share     float64       `json:"share"`     // of all excess that was found, 0..1
}

// Options of a run. The zero value is ready to use.
type Options struct {
	Clock     ClockOptions
	Files     int             // how many files the traces came from; for Report.Input
	Logs      trace.LogCounts // what became of the log records that came with them, all those of traces joined; for Report.Input
	MaxRoutes int             // routes reported one by one, the rest together as "other"; default 200
	Baseline  []trace.Trace   // healthy traffic to compare with; nil = none
	Facts     evidence.Facts  // what was read from the systems behind the traces in the same window; zero = nothing
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
