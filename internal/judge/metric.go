package judge

import (
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// kind is how a metric is taken from a slice.
type kind uint8

const (
	latency kind = iota // share of calls slower than the baseline's reference quantile
	share               // share of calls that ended so
	perCall             // events per call, against a factor on the baseline's
	cost                // logarithm of the ratio of costs per call
)

// metric is one row of the judge's table.
type metric struct {
	name   string
	kind   kind
	weight float64 // of its evidence in the main tier's WORSE; with poolKnown and poolLate they add up to 1
	q      float64 // latency: the quantile
	// The margins. latency: buckets of 2^(1/64); share: absolute; the others have theirs from Config.
	fail, pass float64
	// Variance of a slice's normalised difference that NO WORSE and IMPROVED assume at least: that of the event at
	// its reference rate in one arm. It is what makes "no errors at all" depend on how many calls had none.
	floor float64
}

// The rows of the table.
const (
	p50 = iota
	p95
	p99
	p999
	errored
	timedOut
	attempts
	costs
	sheds // judged where Config.Shed gives it a price; else shed calls are errors
	fixedRows
)

// Rows of each downstream, after the fixed ones.
const (
	downCalls = iota
	downLatency
	downErrors
	perDownstream
)

// MaxDownstreams is how many downstreams are judged, those of the first slices first; what comes later is counted.
const MaxDownstreams = 8

const rows = fixedRows + MaxDownstreams*perDownstream

// poolKnown is shared by the downstreams that the baseline called before the first slice; poolLate by those that appear
// later, each of which takes half of what is left.
const (
	poolKnown = 0.15
	poolLate  = 0.05
)

// table is the metrics judged. 3, 5, 9, 21 and 37 buckets are the factors 1.033, 1.056, 1.102, 1.255 and 1.493.
var table = [fixedRows]metric{
	p50:      {name: "p50", kind: latency, weight: 0.16, q: 0.50, fail: 3, pass: 5, floor: 0.125},
	p95:      {name: "p95", kind: latency, weight: 0.16, q: 0.95, fail: 5, pass: 9, floor: 0.024},
	p99:      {name: "p99", kind: latency, weight: 0.24, q: 0.99, fail: 9, pass: 21, floor: 0.005},
	p999:     {name: "p99.9", kind: latency, weight: 0.02, q: 0.999, fail: 21, pass: 37, floor: 0.0005},
	errored:  {name: "errors", kind: share, weight: 0.06, fail: 0.001, pass: 0.005, floor: 0.0025},
	timedOut: {name: "timeouts", kind: share, weight: 0.04, fail: 0.001, pass: 0.005, floor: 0.0025},
	attempts: {name: "attempts", kind: perCall, weight: 0.06, floor: 0.01},
	costs:    {name: "cost", kind: cost, weight: 0.04, floor: 0.01},
	sheds:    {name: "shed", kind: share, weight: 0.02, pass: shedSlack}, // beyond Config.Shed
}

// downTable is the rows of one downstream. Its latency has wider margins than the route's own, and so have its errors, of which every call
// that users see fail stands in the route's row, too: a quarter of the baseline's besides, as attempts have.
var downTable = [perDownstream]metric{
	downCalls:   {name: " calls", kind: perCall, floor: 0.01},
	downLatency: {name: " p95", kind: latency, q: 0.95, fail: 9, pass: 21, floor: 0.024},
	downErrors:  {name: " errors", kind: share, fail: 0.001, pass: 0.005, floor: 0.0025},
}

// callSlack is how many events per call a candidate may always add: a baseline that answers nearly all from its
// cache makes so few attempts that a factor alone would forbid one more.
const callSlack = 0.01

// costPass is the cost over the baseline's within which a candidate is no worse.
const costPass = 1.25

// p99.9 takes part when a slice and the reference hold enough calls for it to be more than one call.
const (
	sliceCallsP999     = 2000
	referenceCallsP999 = 10000
)

// mostShed is the highest price that may be set on shed calls; shedSlack is the share of calls beyond it within which a
// candidate is no worse, as errors have one.
const (
	mostShed  = 0.95
	shedSlack = 0.02
)

// allShed is how many calls an arm must have shed for its slice to be judged with next to none that was served: more than
// any price allows of that many.
const allShed = 2 * minSliceCalls / (1 - mostShed)

// index finds a fixed row by the name of its metric.
func index(name string) (int, bool) {
	for i := range table {
		if table[i].name == name && i != sheds {
			return i, true
		}
	}
	return 0, false
}

// Metrics is the names that Config.Target may have.
func Metrics() (names []string) {
	for i := range sheds {
		names = append(names, table[i].name)
	}
	return names
}

// event is what one row takes from one arm's slice. Numbers are float64, so that no count of a client's overflows.
type event struct {
	of                float64 // calls that could have had it; 0 = the row is not judged in this slice
	plain, fail, pass float64 // how many had, without and with each margin; cost: plain is the cost of all calls
}

// counts is what the judge keeps of one arm's slice.
type counts struct {
	calls, timed float64 // ended; answered or failed
	shed         float64
	rows         [rows]event
	middles      [MaxDownstreams]event // calls slower than a downstream's p50
	beyond       [envRows]float64      // see environment
}

func (c *counts) merge(o *counts) {
	c.calls += o.calls
	c.timed += o.timed
	c.shed += o.shed
	for i := range c.rows {
		c.rows[i].plus(&o.rows[i])
	}
	for i := range c.middles {
		c.middles[i].plus(&o.middles[i])
	}
	for i := range c.beyond {
		c.beyond[i] += o.beyond[i]
	}
}

func (e *event) plus(f *event) {
	e.of += f.of
	e.plain += f.plain
	e.fail += f.fail
	e.pass += f.pass
}

// measure reduces a slice to the events that are judged.
func (j *Judge) measure(t *stats.Tally) counts {
	calls, timed := float64(t.Calls), float64(t.Latency.Count())+float64(t.FailedLatency.Count())
	c := counts{calls: calls, timed: timed, shed: float64(t.Shed)}
	served := calls
	if j.config.Shed > 0 {
		c.rows[sheds] = counted(calls, c.shed)
		served = max(calls-c.shed, 0)
	}
	for _, i := range [...]int{p50, p95, p99, p999} {
		c.rows[i] = beyond(j.reference[i], j.metric(i), &t.Latency, &t.FailedLatency)
	}
	if timed < sliceCallsP999 || j.referred < referenceCallsP999 {
		c.rows[p999] = event{}
	}
	c.rows[errored] = counted(served, j.failed(t))
	c.rows[timedOut] = counted(served, float64(t.TimedOut))
	c.rows[attempts] = counted(served, float64(t.Attempts))
	if t.CPU > 0 || t.Bytes > 0 {
		c.rows[costs] = event{of: served, plain: j.config.Price.of(t)}
	}
	for i := range t.Downstreams {
		d := &t.Downstreams[i]
		at, known := j.downstream(d.Name)
		if !known {
			continue
		}
		c.rows[at+downCalls] = counted(served, float64(d.Calls))
		m, k := j.metric(at+downLatency), (at-fixedRows)/perDownstream
		c.rows[at+downLatency] = beyond(j.reference[at+downLatency], m, &d.Latency, &d.FailedLatency)
		c.middles[k] = beyond(j.middles[k], m, &d.Latency, &d.FailedLatency)
		c.rows[at+downErrors] = counted(float64(d.Calls), float64(d.Failed))
	}
	for i := range j.names { // a downstream that was not called was called 0 times by so many calls
		if at := fixedRows + i*perDownstream; j.names[i] != "" {
			c.rows[at+downCalls].of = served
		}
	}
	j.measureEnvironment(&c, t)
	return c
}

// failed is the calls that count as errors.
func (j *Judge) failed(t *stats.Tally) float64 {
	if j.config.Shed > 0 {
		return float64(t.Failed)
	}
	return float64(t.Failed) + float64(t.Shed)
}

// enough reports whether a slice can be judged.
func (c *counts) enough() bool {
	return c.calls >= minSliceCalls && (c.timed >= minSliceCalls || c.shed >= allShed)
}

func counted(of, n float64) event { return event{of: of, plain: n, fail: n, pass: n} }

// beyond counts the calls beyond x, and beyond it times each margin of m; x = 0 is not known yet. A call that failed within x
// is left out: nobody knows how long its answer would have taken. One that failed after x would have been slower than that.
func beyond(x time.Duration, m *metric, answered, failed *stats.Snapshot) event {
	if x == 0 {
		return event{}
	}
	above := func(x time.Duration) float64 { return float64(answered.Above(x)) + float64(failed.Above(x)) }
	return event{
		of: float64(answered.Count()) + float64(failed.Above(x)), plain: above(x),
		fail: above(stats.Shift(x, int(m.fail))), pass: above(stats.Shift(x, int(m.pass))),
	}
}

// metric is row i of the whole table.
func (j *Judge) metric(i int) *metric {
	if i < fixedRows {
		return &table[i]
	}
	return &downTable[(i-fixedRows)%perDownstream]
}

// floor of row i.
func (j *Judge) floor(i int) float64 {
	if i == sheds {
		p := j.config.Shed + shedSlack
		return p * (1 - p) / 2
	}
	return j.metric(i).floor
}

// downBesides is the part of a downstream's errors in the baseline by which the candidate's may exceed them beyond the margin.
const downBesides = 0.25

// besides is the part of the baseline's share that is allowed on top of the margin of row i.
func (j *Judge) besides(i int) float64 {
	if i >= fixedRows && (i-fixedRows)%perDownstream == downErrors {
		return downBesides
	}
	return 0
}

// margin is how much more than the baseline's a share may be while it is no worse.
func (j *Judge) margin(i int) float64 {
	if i == sheds {
		return j.config.Shed + shedSlack
	}
	return j.metric(i).pass
}

// name of row i: that of its metric, after the downstream's.
func (j *Judge) name(i int) string { return j.downstreamOf(i) + j.metric(i).name }

func (j *Judge) downstreamOf(i int) string {
	if i < fixedRows {
		return ""
	}
	return j.names[(i-fixedRows)/perDownstream]
}

// downstream is the first row of a downstream.
func (j *Judge) downstream(name string) (row int, known bool) {
	for i := range j.names {
		if j.names[i] == name && name != "" {
			return fixedRows + i*perDownstream, true
		}
	}
	return 0, false
}

// meet gives each downstream of t that is new its rows, and their weight.
func (j *Judge) meet(t *stats.Tally, pool func() float64) {
	for i := range t.Downstreams {
		name := t.Downstreams[i].Name
		if _, known := j.downstream(name); known || name == "" {
			continue
		}
		if j.met == MaxDownstreams {
			j.unjudged = min(j.unjudged+1, math.MaxInt32)
			continue
		}
		j.names[j.met] = name
		j.shares[j.met] = pool() / perDownstream
		j.met++
	}
}

func (j *Judge) weight(i int) float64 {
	if i < fixedRows {
		return table[i].weight
	}
	return j.shares[(i-fixedRows)/perDownstream]
}

// refer fixes the thresholds of a tally's latencies, each at the lower end of its quantile's bucket: where many calls take
// equally long, as those that time out do, hardly any would lie beyond the upper end.
func (j *Judge) refer(t *stats.Tally) {
	at := func(i int, s *stats.Snapshot) {
		if s.Count() >= minCalls {
			j.reference[i] = stats.Shift(s.Quantile(j.metric(i).q), -1)
		}
	}
	for _, i := range [...]int{p50, p95, p99, p999} {
		at(i, &t.Latency)
	}
	for i := range t.Downstreams {
		if row, known := j.downstream(t.Downstreams[i].Name); known {
			at(row+downLatency, &t.Downstreams[i].Latency)
			if s := &t.Downstreams[i].Latency; s.Count() >= minCalls {
				j.middles[(row-fixedRows)/perDownstream] = stats.Shift(s.Quantile(0.5), -1)
			}
		}
	}
}

// differences are candidate less baseline in events per call: without a margin, less the fail margin, less the pass
// margin. Above 0 is worse.
func (j *Judge) differences(i int, b, c *event) (plain, fail, pass float64) {
	m := j.metric(i)
	base, candidate := b.plain/b.of, c.plain/c.of
	plain = candidate - base
	switch m.kind {
	case latency:
		return plain, c.fail/c.of - base, c.pass/c.of - base
	case share:
		price := 0.0
		if i == sheds {
			price = j.config.Shed
		}
		return plain, plain - price - m.fail, plain - price - m.pass - j.besides(i)*base
	case perCall:
		over := candidate - j.config.AttemptsFactor*base - callSlack
		return plain, over, over
	default:
		ratio := math.Log(candidate / base)
		return ratio, ratio - math.Log(j.config.CostFactor), ratio - math.Log(max(j.config.CostFactor, costPass))
	}
}

// Price is what a call's work is worth, in any one unit; only ratios matter. Zero fields mean the defaults.
type Price struct {
	CPUSecond float64 `json:"cpu_second"` // default 1, so that the unit is a second of processor time
	GiB       float64 `json:"gib"`        // of bodies; default 900: what a gigabyte between zones costs in seconds of a processor
	Call      float64 `json:"call"`       // to a dependency, for the work that it does there; default 0.001, a millisecond
}

func (p Price) withDefaults() Price {
	if p == (Price{}) {
		return Price{CPUSecond: 1, GiB: 900, Call: 0.001}
	}
	return p
}

// of is what all calls of a tally cost together. Calls to a dependency may be known as attempts, as a downstream's calls,
// or as both.
func (p Price) of(t *stats.Tally) float64 {
	var calls float64
	for i := range t.Downstreams {
		calls += float64(t.Downstreams[i].Calls)
	}
	calls = max(calls, float64(t.Attempts))
	return p.CPUSecond*t.CPU.Seconds() + p.GiB*float64(t.Bytes)/(1<<30) + p.Call*calls
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
