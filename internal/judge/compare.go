package judge

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

// Compare judges slices that are all there already, in order of time; what one list has more than the other is left
// out. The thresholds come from reference, what the baseline did before; when that has fewer than 100 calls, the first slices
// of the baseline take its place and are not judged. Both tiers look at each slice, so that slices of a second serve the
// fast one best.
func Compare(baseline, candidate []stats.Tally, reference stats.Tally, c Config) Judgement {
	j := New(c)
	j.Freeze(reference)
	seen := reference
	var b, k stats.Tally // judged, for the percentiles shown
	for i := range min(len(baseline), len(candidate)) {
		judged := j.Referred() > 0
		j.Watch(baseline[i], candidate[i])
		j.Add(baseline[i], candidate[i])
		seen = seen.Merge(baseline[i])
		j.Freeze(seen)
		if judged {
			b, k = b.Merge(baseline[i]), k.Merge(candidate[i])
		}
		if v := j.Verdict(); v == Worse || v == Invalid {
			break // what is decided stays decided, as it would have in a rollout
		}
	}
	return j.Judgement(b, k)
}

// Bounds of a Request.
const (
	mostSlices      = 20_000
	mostSamples     = 2_000_000 // durations and buckets together
	perHistogram    = 20        // samples that each list of them counts for besides, since it is work of its own
	mostDownstreams = 64
	mainSlice       = 10 * time.Second
)

// Request is a comparison that another program asks for.
type Request struct {
	Target         string  `json:"target,omitempty"`          // one of Metrics; default p99
	AttemptsFactor float64 `json:"attempts_factor,omitempty"` // 1..10; default 1.25
	CostFactor     float64 `json:"cost_factor,omitempty"`     // 1..10; default 1.10
	Price          Price   `json:"price,omitzero"`
	Shed           float64 `json:"shed,omitempty"`     // 0..0.95: share of calls that the candidate may refuse beyond the baseline; default 0, a shed call is an error
	SliceMS        float64 `json:"slice_ms,omitempty"` // length of a slice, 100..600000; default 10000; shorter ones are joined to 10 s
	Blocks         bool    `json:"blocks,omitempty"`   // the arms took turns
	Reference      *Sample `json:"reference,omitempty"`
	Slices         []Pair  `json:"slices"` // in order of time
}

// Pair is what the two cohorts did in one slice.
type Pair struct {
	Baseline  Sample `json:"baseline"`
	Candidate Sample `json:"candidate"`
}

// Sample is what one cohort did. Latencies are of the calls that were not shed: single durations, or buckets of any histogram,
// or both. What is left out is 0 or, for calls, the number of latencies and of shed calls.
type Sample struct {
	Calls       uint64       `json:"calls,omitempty"`
	Failed      uint64       `json:"failed,omitempty"` // timed_out is part of it
	TimedOut    uint64       `json:"timed_out,omitempty"`
	Shed        uint64       `json:"shed,omitempty"`
	Attempts    uint64       `json:"attempts,omitempty"`
	CPUMS       float64      `json:"cpu_ms,omitempty"`
	Bytes       uint64       `json:"bytes,omitempty"`
	LatencyMS   []float64    `json:"latency_ms,omitempty"`
	Buckets     []Bucket     `json:"buckets,omitempty"`
	Downstreams []DownSample `json:"downstreams,omitempty"` // each name once
}

// Bucket is a number of calls that took up to a duration and longer than the bucket below says. It is no
// running total.
type Bucket struct {
	UpToMS float64 `json:"up_to_ms"`
	Count  uint64  `json:"count"`
}

// DownSample is what one cohort's calls caused at a downstream.
type DownSample struct {
	Name      string    `json:"name"`
	Calls     uint64    `json:"calls,omitempty"`
	Failed    uint64    `json:"failed,omitempty"`
	LatencyMS []float64 `json:"latency_ms,omitempty"`
	Buckets   []Bucket  `json:"buckets,omitempty"`
}

// Validate returns the faults of r, joined; each is a *setting.Error. Of the slices it names the first faulty one only.
func (r *Request) Validate() error {
	var f setting.Faults
	factor := func(path string, v float64) { f.Check(v == 0 || v >= 1 && v <= 10, path, v, "1..10") }
	if _, known := index(r.Target); !known && r.Target != "" {
		f.Check(false, "target", r.Target, fmt.Sprintf("one of %v", Metrics()))
	}
	factor("attempts_factor", r.AttemptsFactor)
	factor("cost_factor", r.CostFactor)
	f.Check(r.Shed >= 0 && r.Shed <= mostShed, "shed", r.Shed, fmt.Sprintf("0..%v", mostShed))
	p := r.Price
	f.Check(sound(p.CPUSecond) && sound(p.GiB) && sound(p.Call), "price", p, "numbers that are not negative")
	f.Check(r.SliceMS == 0 || r.SliceMS >= 100 && r.SliceMS <= 600_000, "slice_ms", r.SliceMS, "100..600000")
	f.Check(len(r.Slices) > 0 && len(r.Slices) <= mostSlices, "slices", len(r.Slices), fmt.Sprintf("1..%d of them", mostSlices))
	left := mostSamples
	if r.Reference != nil {
		f.Within("reference", r.Reference.validate(&left))
	}
	for i := range r.Slices {
		err := r.Slices[i].validate(&left)
		f.Within(fmt.Sprintf("slices[%d]", i), err)
		if err != nil {
			break
		}
	}
	return f.Err()
}

func (p *Pair) validate(left *int) error {
	var f setting.Faults
	f.Within("baseline", p.Baseline.validate(left))
	f.Within("candidate", p.Candidate.validate(left))
	return f.Err()
}

// sound is a number that is finite and not negative.
func sound(v float64) bool { return v >= 0 && !math.IsInf(v, 1) }

func (s *Sample) validate(left *int) error {
	var f setting.Faults
	calls := s.calls()
	f.Check(s.Failed <= calls, "failed", s.Failed, "at most calls")
	f.Check(s.TimedOut <= s.Failed, "timed_out", s.TimedOut, "at most failed")
	f.Check(s.Shed <= calls-min(s.Failed, calls), "shed", s.Shed, "at most calls less failed")
	timed := count(s.LatencyMS, s.Buckets)
	f.Check(s.Calls == 0 || timed <= s.Calls && s.Shed <= s.Calls-timed, "calls", s.Calls, "at least the number of latencies, which shed calls have none of, and of shed calls")
	f.Check(sound(s.CPUMS) && s.CPUMS < math.MaxInt64/2e6, "cpu_ms", s.CPUMS, "a number that is not negative")
	f.Within("", latencies(s.LatencyMS, s.Buckets, left))
	f.Check(len(s.Downstreams) <= mostDownstreams, "downstreams", len(s.Downstreams), fmt.Sprintf("0..%d of them", mostDownstreams))
	names := map[string]bool{}
	for i, d := range s.Downstreams {
		var g setting.Faults
		g.Check(d.Name != "" && !names[d.Name], "name", d.Name, "a name, once")
		g.Check(d.Failed <= d.calls(), "failed", d.Failed, "at most calls")
		g.Within("", latencies(d.LatencyMS, d.Buckets, left))
		f.Within(fmt.Sprintf("downstreams[%d]", i), g.Err())
		names[d.Name] = true
	}
	return f.Err()
}

func latencies(ms []float64, buckets []Bucket, left *int) error {
	var f setting.Faults
	if len(ms)+len(buckets) > 0 {
		*left -= len(ms) + len(buckets) + perHistogram
	}
	f.Check(*left >= 0, "latency_ms", len(ms)+len(buckets), fmt.Sprintf("at most %d latencies and buckets in a request", mostSamples))
	for i, v := range ms {
		if !sound(v) {
			f.Check(false, fmt.Sprintf("latency_ms[%d]", i), v, "a number that is not negative")
			break
		}
	}
	for i, b := range buckets {
		if !sound(b.UpToMS) || b.Count > math.MaxUint32 {
			f.Check(false, fmt.Sprintf("buckets[%d]", i), b, "up_to_ms that is finite and not negative, a count below 2^32")
			break
		}
	}
	return f.Err()
}

// Judge answers a valid request; what an invalid one gets is of no use.
func (r *Request) Judge() Judgement {
	slice := time.Duration(r.SliceMS * 1e6)
	if slice <= 0 {
		slice = mainSlice
	}
	c := Config{
		Target: r.Target, AttemptsFactor: r.AttemptsFactor, CostFactor: r.CostFactor, Price: r.Price, Shed: r.Shed,
		Join: int((mainSlice + slice - 1) / slice), Blocks: r.Blocks,
	}
	var reference stats.Tally
	if r.Reference != nil {
		reference = r.Reference.tally()
	}
	baseline, candidate := make([]stats.Tally, len(r.Slices)), make([]stats.Tally, len(r.Slices))
	for i := range r.Slices {
		baseline[i], candidate[i] = r.Slices[i].Baseline.tally(), r.Slices[i].Candidate.tally()
	}
	return Compare(baseline, candidate, reference, c)
}

func (s *Sample) calls() uint64 {
	if s.Calls > 0 {
		return s.Calls
	}
	return count(s.LatencyMS, s.Buckets) + s.Shed
}

func (d *DownSample) calls() uint64 {
	if d.Calls > 0 {
		return d.Calls
	}
	return count(d.LatencyMS, d.Buckets)
}

func count(ms []float64, buckets []Bucket) uint64 {
	n := uint64(len(ms))
	for _, b := range buckets {
		n += b.Count
	}
	return n
}

func (s *Sample) tally() stats.Tally {
	t := stats.Tally{
		Latency: snapshot(s.LatencyMS, s.Buckets), Calls: s.calls(), Failed: s.Failed, TimedOut: s.TimedOut, Shed: s.Shed,
		Attempts: s.Attempts, CPU: duration(s.CPUMS), Bytes: s.Bytes,
	}
	for i := range s.Downstreams {
		d := &s.Downstreams[i]
		t.Downstreams = append(t.Downstreams, stats.Downstream{
			Name: d.Name, Latency: snapshot(d.LatencyMS, d.Buckets), Calls: d.calls(), Failed: d.Failed,
		})
	}
	slices.SortFunc(t.Downstreams, func(a, b stats.Downstream) int { return strings.Compare(a.Name, b.Name) })
	return t
}

func snapshot(ms []float64, buckets []Bucket) stats.Snapshot {
	if len(ms)+len(buckets) == 0 {
		return stats.Snapshot{}
	}
	return stats.FromBuckets(func(yield func(time.Duration, uint64) bool) {
		for _, v := range ms {
			if !yield(duration(v), 1) {
				return
			}
		}
		for _, b := range buckets {
			if !yield(duration(b.UpToMS), b.Count) {
				return
			}
		}
	})
}

// duration is of so many milliseconds, held to what a duration can be.
func duration(ms float64) time.Duration { return time.Duration(min(ms*1e6, 1<<62)) }
