package advise

import (
	"math"
	"slices"
	"time"
)

// Predicted is a latency in milliseconds at three quantiles.
type Predicted struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Interval is where each quantile lies with 95 % confidence, in milliseconds: lower and upper end.
//
// It is made of order statistics, and so speaks of the luck of the sample only, not of what the model leaves out.
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

// samples are latencies in ns of one route; rounds is how often each call is in them.
type samples struct {
	values []int64
	rounds int
}

func (s *samples) add(d int64) { s.values = append(s.values, d) }

// predicted sorts s and reads its quantiles.
func (s *samples) predicted() Predicted {
	slices.Sort(s.values)
	return Predicted{millis(quantile(s.values, 0.5)), millis(quantile(s.values, 0.95)), millis(quantile(s.values, 0.99))}
}

// interval reads the 95 % intervals of the quantiles; s must be sorted. Draws of one call are not independent of each
// other, so that only calls count.
func (s *samples) interval() Interval {
	at := func(q float64) [2]float64 {
		n := float64(len(s.values)) / float64(max(1, s.rounds))
		if n == 0 {
			return [2]float64{}
		}
		half := 1.96 * math.Sqrt(q*(1-q)/n)
		return [2]float64{millis(quantile(s.values, max(0, q-half))), millis(quantile(s.values, min(1, q+half)))}
	}
	return Interval{P50: at(0.5), P95: at(0.95), P99: at(0.99)}
}

// quantile is the nearest rank in sorted values; 0 when there are none.
func quantile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
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
