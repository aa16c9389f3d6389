package advise

import (
	"math"
	"time"
)

// Predicted is a latency in milliseconds at three quantiles.
type Predicted struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Interval is where each quantile of as many calls again will lie with 90 % confidence, in milliseconds: lower and upper end.
//
// It is made of order statistics, widened where slow calls come in bursts and by a part of the change itself for what the
// model leaves out. In simulations of real changes it held in the share of cases that docs/bench/whatif.md tells.
type Interval struct {
	P50 [2]float64 `json:"p50"`
	P95 [2]float64 `json:"p95"`
	P99 [2]float64 `json:"p99"`
}

// Effect is what a change does to one route, by replay of its recorded calls.
type Effect struct {
	Service   string    `json:"service"`
	Operation string    `json:"operation"`
	Route     string    `json:"route,omitempty"` // name of the gateway's route; "" = the span is not the gateway's
	Calls     int       `json:"calls"`           // that were replayed
	Before    Predicted `json:"before_ms"`
	Predicted Predicted `json:"predicted_ms"`
	Interval  Interval  `json:"interval_ms"` // of Predicted
}

// gain is how much of the tail goes, as a share of what it was: the greater of that at p99 and at p95, but nothing for
// a change that makes the p99 worse.
func (e *Effect) gain() float64 {
	if e.Predicted.P99 > e.Before.P99*1.01 {
		return 0
	}
	return max(share(e.Before.P99-e.Predicted.P99, e.Before.P99), share(e.Before.P95-e.Predicted.P95, e.Before.P95))
}

// saved is the milliseconds gained at p99.
func (e *Effect) saved() float64 { return e.Before.P99 - e.Predicted.P99 }

func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole
}

// samples are latencies of one route in the order in which the calls came.
type samples struct {
	dist
	rounds int // how often each call is in it; 0 = once
	line   []weighed
}

func (s *samples) add(took int64, weight float64) {
	s.dist.add(took, weight)
	s.line = append(s.line, weighed{took, weight})
}

// predicted sorts s and reads its quantiles.
func (s *samples) predicted() Predicted {
	s.sort()
	return Predicted{millis(s.quantile(0.5)), millis(s.quantile(0.95)), millis(s.quantile(0.99))}
}

// Normal quantile of a two-sided 90 % interval, and what the sampling errors of two samples come to together.
const (
	sigma90 = 1.645
	ofTwo   = math.Sqrt2
)

// interval reads the intervals of the quantiles; s must be sorted. moved is by how many milliseconds each quantile was moved by
// the change, and doubt the share of that which the model may be wrong by.
func (s *samples) interval(moved Predicted, doubt float64) Interval {
	at := func(q, moved float64) [2]float64 {
		// Draws of one call are not independent of each other: only calls count.
		n := s.effective() / float64(max(1, s.rounds)) / s.burstiness(s.quantile(q))
		if n == 0 {
			return [2]float64{}
		}
		half := ofTwo * sigma90 * math.Sqrt(q*(1-q)/n)
		slack := int64(doubt * math.Abs(moved) * 1e6)
		low, high := s.quantile(max(0, q-half)), s.quantile(min(1, q+half))
		high += s.beyond(q+half, high)
		return [2]float64{max(0, millis(low-slack)), millis(high + slack)}
	}
	return Interval{P50: at(0.5, moved.P50), P95: at(0.95, moved.P95), P99: at(0.99, moved.P99)}
}

// beyond is how far in ns the upper end of an interval may lie above the greatest of all calls, where its rank lies beyond
// them: as far again as the greatest lies above the one at half its distance from the end, as an exponential tail would.
func (s *samples) beyond(rank float64, greatest int64) int64 {
	if rank <= 1 {
		return 0
	}
	return greatest - s.quantile(max(0, 2-rank)-(rank-1))
}

// burstiness is by how much calls slower than x ns coming together widen an interval: the variance of their share in
// runs of calls, over what it were with independent calls. Source: the design effect of cluster samples (Kish 1965),
// by batch means.
func (s *samples) burstiness(x int64) float64 {
	const runs, most = 25, 10.0
	size := len(s.line) / runs
	if size < 2*max(1, s.rounds) {
		return 1
	}
	var sum, squares float64
	for r := range runs {
		part, weight := 0.0, 0.0
		for _, w := range s.line[r*size : (r+1)*size] {
			weight += w.weight
			if w.took > x {
				part += w.weight
			}
		}
		p := share(part, weight)
		sum += p
		squares += p * p
	}
	mean := sum / runs
	variance := (squares - runs*mean*mean) / (runs - 1)
	if plain := mean * (1 - mean) / (float64(size) / float64(max(1, s.rounds))); plain > 0 {
		return min(max(1, variance/plain), most)
	}
	return 1
}

// millis is ns in milliseconds, to the microsecond.
func millis(ns int64) float64 { return math.Round(float64(ns)/1e3) / 1e3 }

// short is a duration as people write it: two or three digits are enough for a setting or a sentence.
func short(ns int64) time.Duration {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
