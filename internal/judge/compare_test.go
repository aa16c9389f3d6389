package judge

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

func slicesOf(rng *rand.Rand, n, calls int, scale float64) (list []stats.Tally) {
	for range n {
		list = append(list, cohort(rng, calls, scale))
	}
	return list
}

func TestCompareNeedsNothingButSlices(t *testing.T) {
	for _, c := range []struct {
		name      string
		candidate float64
		reference bool
		want      Verdict
	}{
		{"equal", 1, true, NoWorse},
		{"equal, no reference", 1, false, NoWorse},
		{"slower", 1.4, true, Worse},
		{"slower, no reference", 1.4, false, Worse},
		{"faster", .6, true, Improved},
	} {
		rng := rand.New(rand.NewPCG(31, 31))
		var reference stats.Tally
		if c.reference {
			reference = cohort(rng, 2000, 1)
		}
		g := Compare(slicesOf(rng, 60, 500, 1), slicesOf(rng, 61, 500, c.candidate), reference, Config{})
		if g.Verdict != c.want {
			t.Errorf("%s: %s", c.name, g.Sentence)
		}
	}
	if g := Compare(nil, nil, stats.Tally{}, Config{}); g.Verdict != Inconclusive || g.BaselineCalls != 0 {
		t.Errorf("nothing: %+v", g)
	}
}

// request has slices of a second with raw latencies, or with buckets.
func request(rng *rand.Rand, seconds int, scale float64, buckets bool) Request {
	r := Request{SliceMS: 1000, Target: "p50"}
	sample := func(scale float64) Sample {
		var s Sample
		for range 50 {
			s.LatencyMS = append(s.LatencyMS, scale*20*math.Exp(.5*rng.NormFloat64()))
		}
		if buckets {
			for d, n := range snapshot(s.LatencyMS, nil).Buckets() {
				s.Buckets = append(s.Buckets, Bucket{milliseconds(d), n})
			}
			s.LatencyMS = nil
		}
		return s
	}
	for range seconds {
		r.Slices = append(r.Slices, Pair{sample(1), sample(scale)})
	}
	return r
}

func TestARequestIsJudgedAlikeFromLatenciesAndBuckets(t *testing.T) { // T11
	raw, coarse := request(rand.New(rand.NewPCG(32, 32)), 300, 1.3, false), request(rand.New(rand.NewPCG(32, 32)), 300, 1.3, true)
	for _, r := range []*Request{&raw, &coarse} {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Request
		if err := json.Unmarshal(data, &back); err != nil || back.Validate() != nil {
			t.Fatal(err, back.Validate())
		}
		if g := back.Judge(); g.Verdict != Worse || g.Slices > 29 {
			t.Errorf("%d slices: %s", g.Slices, g.Sentence)
		}
	}
	if a, b := raw.Judge(), coarse.Judge(); !reflect.DeepEqual(a, b) {
		t.Errorf("latencies: %+v\nbuckets: %+v", a, b)
	}
}

// Latencies that come in steps have a good part of the calls at the very quantile.
func TestLatenciesInStepsAreJudged(t *testing.T) {
	for _, c := range []struct {
		scale float64
		want  Verdict
	}{{1, NoWorse}, {.5, Improved}, {1.5, Worse}} {
		var r Request
		for range 60 {
			var p Pair
			for i := range 200 {
				ms := 10 + float64(i%40/10)
				p.Baseline.LatencyMS, p.Candidate.LatencyMS = append(p.Baseline.LatencyMS, ms), append(p.Candidate.LatencyMS, c.scale*ms)
			}
			r.Slices = append(r.Slices, p)
		}
		if g := r.Judge(); g.Verdict != c.want {
			t.Errorf("times %v: %s", c.scale, g.Sentence)
		}
	}
}

func TestFaultsOfARequestHaveTheirPlace(t *testing.T) {
	r := Request{
		Target: "p98", AttemptsFactor: .5, CostFactor: 11, Shed: 1, Price: Price{Call: -1}, SliceMS: 5,
		Reference: &Sample{Calls: 1, LatencyMS: []float64{1, 2}},
		Slices: []Pair{{}, {Candidate: Sample{
			Calls: 5, Failed: 6, TimedOut: 7, Shed: 1, CPUMS: math.NaN(), LatencyMS: []float64{-1},
			Buckets: []Bucket{{math.Inf(1), 1}}, Downstreams: []DownSample{{Name: "a", Failed: 1}, {Name: "a"}},
		}}},
	}
	var got []string
	for _, err := range setting.List(r.Validate()) {
		got = append(got, strings.SplitN(err.Error(), ":", 2)[0])
	}
	want := []string{
		"target", "attempts_factor", "cost_factor", "shed", "price", "slice_ms", "reference.calls",
		"slices[1].candidate.failed", "slices[1].candidate.timed_out", "slices[1].candidate.shed", "slices[1].candidate.cpu_ms",
		"slices[1].candidate.latency_ms[0]", "slices[1].candidate.buckets[0]", "slices[1].candidate.downstreams[0].failed",
		"slices[1].candidate.downstreams[1].name",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	many := Request{Slices: []Pair{{Candidate: Sample{LatencyMS: make([]float64, mostSamples)}}}}
	if err := many.Validate(); err == nil || !strings.Contains(err.Error(), "at most 2000000") {
		t.Errorf("too many samples: %v", err)
	}
	if err := (&Request{}).Validate(); err == nil || !strings.Contains(err.Error(), "slices: 0") {
		t.Errorf("no slices: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"slices":[{"baseline":{"calls":200,"failed":1,"latency_ms":[1,2]},"candidate":{"buckets":[{"up_to_ms":5,"count":300}],"downstreams":[{"name":"db","calls":3}]}}]}`))
	f.Add([]byte(`{"target":"cost","blocks":true,"reference":{"buckets":[{"up_to_ms":5,"count":300}]},"slices":[{"baseline":{"cpu_ms":1e300}},{}]}`))
	f.Add([]byte(`{"shed":0.5,"slice_ms":100000,"slices":[{"baseline":{"calls":900,"shed":880,"latency_ms":[1,2]},"candidate":{"calls":900,"shed":900}},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		if json.Unmarshal(data, &r) != nil || r.Validate() != nil {
			return
		}
		if _, err := json.Marshal(r.Judge()); err != nil {
			t.Error(err)
		}
	})
}
