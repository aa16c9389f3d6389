package load

import (
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Result is what came of one target's calls. Every due call is in exactly one of Calls, Dropped, Abandoned, or
// still in flight.
type Result struct {
	Target    string
	Response  stats.Snapshot // intended start to end of body, of all Calls, failed ones included
	Service   stats.Snapshot // moment of sending to end of body; what waited for its turn (Plan.Concurrent) had not been sent
	Lag       stats.Snapshot // intended start to the moment when the generator had the call ready to be sent
	Calls     uint64         // ended: answered, or failed without an answer
	Failed    uint64         // of Calls: no answer, or status 400 and above
	Dropped   uint64         // never sent, for MaxInFlight were in flight
	Abandoned uint64         // cut off when the run ended; their latency is unknown
	Skipped   uint64         // of a recording: not sent, because they are unsafe, or not whole
	Statuses  [6]uint64      // of Calls by first digit of the status; 0 = no answer
	Codes     Counts         // of Calls by status, as "503", or by gRPC's code, as "UNAVAILABLE"
	Faults    Counts         // of Calls without a whole answer, by kind, as "timeout"
	BytesIn   uint64         // of the answers' bodies
	BytesOut  uint64         // of the requests' bodies, where their length was known
}

// Counts counts by a name, of which there are few. It is not changed once it was made.
type Counts map[string]uint64

// add returns c + o or, with sign < 0, c - o; names that come to 0 are left out.
func (c Counts) add(o Counts, sign int) Counts {
	sum := make(Counts, max(len(c), len(o)))
	maps.Copy(sum, c)
	for name, n := range o {
		if sign < 0 {
			n = -n
		}
		if sum[name] += n; sum[name] == 0 {
			delete(sum, name)
		}
	}
	return sum
}

// ErrorRatio is the share of Calls that failed, 0..1; 0 without calls.
func (r Result) ErrorRatio() float64 { return ratio(r.Failed, r.Calls) }

// Limits of a sound run, used by Doubt.
const (
	lagFloor = 5 * time.Millisecond // an idle machine's timers and scheduler stay well below it
	lagRatio = 0.05                 // of the median response time
	maxDrops = 0.001                // a p99 does not survive more missing calls than a tenth of its tail
)

// Doubt says in one sentence why the figures must not be trusted, or returns "" for a sound run: lag p99 above 5 ms
// and above 5 % of the median response time, or more than 0.1 % of the arrivals dropped.
func (r Result) Doubt() string { return r.doubt(lagFloor) }

func (r Result) doubt(floor time.Duration) string {
	lag, median := r.Lag.Quantile(0.99), r.Response.Quantile(0.5)
	if limit := max(floor, time.Duration(lagRatio*float64(median))); lag > limit {
		return fmt.Sprintf("%s: invalid: the generator sent late (lag p99 %s, at most %s allowed); this machine is too busy to measure on", r.Target, lag.Round(100*time.Microsecond), limit.Round(100*time.Microsecond))
	}
	if due := r.Calls + r.Dropped; ratio(r.Dropped, due) > maxDrops {
		return fmt.Sprintf("%s: invalid: %d of %d calls were dropped because too many were in flight", r.Target, r.Dropped, due)
	}
	return ""
}

// Sub is what came since earlier, a previous Result of the same target.
func (r Result) Sub(earlier Result) Result {
	r.Response = r.Response.Sub(earlier.Response)
	r.Service = r.Service.Sub(earlier.Service)
	r.Lag = r.Lag.Sub(earlier.Lag)
	r.Calls -= earlier.Calls
	r.Failed -= earlier.Failed
	r.Dropped -= earlier.Dropped
	r.Abandoned -= earlier.Abandoned
	r.Skipped -= earlier.Skipped
	for i := range r.Statuses {
		r.Statuses[i] -= earlier.Statuses[i]
	}
	r.Codes, r.Faults = r.Codes.add(earlier.Codes, -1), r.Faults.add(earlier.Faults, -1)
	r.BytesIn -= earlier.BytesIn
	r.BytesOut -= earlier.BytesOut
	return r
}

func (r Result) add(o Result) Result {
	r.Response = r.Response.Merge(o.Response)
	r.Service = r.Service.Merge(o.Service)
	r.Lag = r.Lag.Merge(o.Lag)
	r.Calls += o.Calls
	r.Failed += o.Failed
	r.Dropped += o.Dropped
	r.Abandoned += o.Abandoned
	r.Skipped += o.Skipped
	for i := range r.Statuses {
		r.Statuses[i] += o.Statuses[i]
	}
	r.Codes, r.Faults = r.Codes.add(o.Codes, 1), r.Faults.add(o.Faults, 1)
	r.BytesIn += o.BytesIn
	r.BytesOut += o.BytesOut
	return r
}

// Snapshot is what came of a phase, or of the whole run, up to now.
type Snapshot struct {
	Took    time.Duration // how long it lasted
	Results []Result      // in the order of the plan's targets
}

// Target finds the result of a target by its name.
func (s Snapshot) Target(name string) (Result, bool) {
	for _, r := range s.Results {
		if r.Target == name {
			return r, true
		}
	}
	return Result{}, false
}

// Doubts gathers the doubts of all targets; empty for a sound run.
func (s Snapshot) Doubts() []string {
	var all []string
	for _, r := range s.Results {
		if d := r.Doubt(); d != "" {
			all = append(all, d)
		}
	}
	return all
}

// Sub is what came since earlier, a previous Snapshot of the same phase or run. A call is in the one in which it ended.
func (s Snapshot) Sub(earlier Snapshot) Snapshot {
	out := Snapshot{Took: s.Took - earlier.Took, Results: make([]Result, len(s.Results))}
	copy(out.Results, s.Results)
	for i := range min(len(out.Results), len(earlier.Results)) {
		out.Results[i] = out.Results[i].Sub(earlier.Results[i])
	}
	return out
}

// tally collects one target's results within one phase. Safe for concurrent use.
type tally struct {
	response, service, lag             stats.Histogram
	calls, failed, dropped, unfinished atomic.Uint64
	skipped, gotBytes, sentBytes       atomic.Uint64
	statuses                           [6]atomic.Uint64
	codes                              [codeSlots]atomic.Uint64
	faults                             [faults]atomic.Uint64
}

// ended counts a finished call.
func (t *tally) ended(due, ready, sent, end time.Time, out outcome) {
	t.response.Record(end.Sub(due))
	t.service.Record(end.Sub(sent))
	t.lag.Record(ready.Sub(due))
	if out.failed() {
		t.failed.Add(1)
	}
	if digit := out.status / 100; digit < len(t.statuses) {
		t.statuses[digit].Add(1)
	}
	if i := out.slot(); i >= 0 {
		t.codes[i].Add(1)
	}
	if out.err != nil {
		t.faults[faultOf(out.err)].Add(1)
	}
	t.gotBytes.Add(uint64(max(out.bytes, 0)))
	t.calls.Add(1)
}

func (t *tally) result(target string) Result {
	r := Result{
		Target: target, Response: t.response.Snapshot(), Service: t.service.Snapshot(), Lag: t.lag.Snapshot(),
		Calls: t.calls.Load(), Failed: t.failed.Load(), Dropped: t.dropped.Load(), Abandoned: t.unfinished.Load(), Skipped: t.skipped.Load(),
		Codes: Counts{}, Faults: Counts{}, BytesIn: t.gotBytes.Load(), BytesOut: t.sentBytes.Load(),
	}
	for i := range t.statuses {
		r.Statuses[i] = t.statuses[i].Load()
	}
	for i := range t.codes {
		if n := t.codes[i].Load(); n > 0 {
			r.Codes[codeName(i)] = n
		}
	}
	for i := range t.faults {
		if n := t.faults[i].Load(); n > 0 {
			r.Faults[faultNames[i]] = n
		}
	}
	return r
}

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
