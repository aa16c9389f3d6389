package staging

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Stretch is by how much the intervals of the adviser's forecasts for one kind of action are widened, because too few of
// them held what rollouts measured afterwards. Its zero value widens nothing.
type Stretch struct {
	Kind      string  `json:"kind"`      // of the action, as hedge; "" = not said
	Outcomes  int     `json:"outcomes"`  // changes that had a forecast and were measured, the newest 50 at most
	Intervals int     `json:"intervals"` // of those: percentiles with an interval
	Covered   float64 `json:"covered"`   // share of the intervals, as the model draws them, that held the measured value; 0.9 is what is promised
	Factor    float64 `json:"factor"`    // 1 = left as the model draws them; up to 20
}

const (
	promised      = 0.9  // share of measured values that an interval is to hold
	leastOutcomes = 10   // outcomes of a kind before its intervals are touched: with 9 or fewer not even the farthest miss bounds the next one
	mostOutcomes  = 50   // of a kind that count, the newest: the adviser and the system move
	mostStretch   = 20.0 // a forecast that is farther off is no forecast
	leastWidth    = 0.01 // of a side of an interval, in logarithms, before it is multiplied: one drawn as a point can be widened too
	leastLow      = 1e-3 // ms; a lower end of 0 would say of every outcome below that it was foretold, and so nothing of the model
	mostHigh      = 1e9  // ms, eleven days
)

// Stretches are those of several kinds, in the order of their names.
type Stretches []Stretch

// LearnStretches scores the forecasts in records, kind by kind.
//
// Each measured percentile is scored by how many widths of its interval, on its side of the forecast and in logarithms, it
// lies from the forecast; 1 is the edge. Where fewer than nine in ten lie within, the factor is the score that
// ceil(0.9 (1 + 1/n) N) of the N scores of n changes do not exceed: split conformal prediction (Vovk, Gammerman and Shafer
// 2005; Lei et al. 2018), with the scores of a change pooled. So that the next change's percentiles lie within the widened
// interval nine times in ten, however wrong the model is, provided that changes to come are like those that were.
func LearnStretches(records []Record) Stretches {
	by := map[string][]Record{}
	for _, r := range Newest(records, len(records)) {
		if r.scored() && len(by[r.Kind]) < mostOutcomes {
			by[r.Kind] = append(by[r.Kind], r)
		}
	}
	all := make(Stretches, 0, len(by))
	for kind, list := range by {
		all = append(all, stretchOf(kind, list))
	}
	slices.SortFunc(all, func(a, b Stretch) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

// scored reports whether the record has a forecast with intervals, and what came of it.
func (r *Record) scored() bool {
	return r.Predicted != nil && r.Low != nil && r.High != nil && r.After.P50 > 0 && r.Judgement.Slices > 0
}

func stretchOf(kind string, list []Record) Stretch {
	s := Stretch{Kind: kind, Factor: 1}
	var scores []float64
	inside := 0
	for i := range list {
		before := len(scores)
		for _, f := range list[i].Forecasts() {
			score, ok := f.score(list[i].Widened)
			if !ok {
				continue
			}
			scores = append(scores, score)
			if score <= 1+1e-9 { // the edge was divided and multiplied
				inside++
			}
		}
		if len(scores) > before {
			s.Outcomes++
		}
	}
	if s.Intervals = len(scores); s.Intervals == 0 {
		return s
	}
	s.Covered = float64(inside) / float64(s.Intervals)
	if s.Outcomes < leastOutcomes || s.Covered >= promised {
		return s
	}
	slices.Sort(scores)
	at := int(math.Ceil(promised * (1 + 1/float64(s.Outcomes)) * float64(len(scores))))
	s.Factor = min(max(1, scores[min(at, len(scores))-1]), mostStretch)
	return s
}

// Forecast is one percentile, foretold and measured, in milliseconds.
type Forecast struct{ Predicted, Low, High, Measured float64 }

// Forecasts are p50, p95 and p99 of a record that has a prediction, and none of one that has not. Low and High are 0 where
// there was no interval.
func (r *Record) Forecasts() []Forecast {
	if r.Predicted == nil {
		return nil
	}
	p, low, high := *r.Predicted, Latency{}, Latency{}
	if r.Low != nil && r.High != nil {
		low, high = *r.Low, *r.High
	}
	return []Forecast{{p.P50, low.P50, high.P50, r.After.P50}, {p.P95, low.P95, high.P95, r.After.P95}, {p.P99, low.P99, high.P99, r.After.P99}}
}

// Told reports whether there is an interval and something to compare with it.
func (f Forecast) Told() bool {
	return f.Predicted > 0 && f.Measured > 0 && f.High > 0 && f.Low <= f.Predicted && f.Predicted <= f.High
}

// side is the width of the interval on the measured value's side of the forecast, in logarithms.
func (f Forecast) side() float64 {
	switch {
	case f.Measured >= f.Predicted:
		return math.Log(f.High / f.Predicted)
	case f.Low <= 0:
		return math.Inf(1)
	}
	return math.Log(f.Predicted / f.Low)
}

// score is the distance from the forecast in widths of the interval as the model drew it, before it was widened.
func (f Forecast) score(widened float64) (float64, bool) {
	if !f.Told() {
		return 0, false
	}
	return math.Abs(math.Log(f.Measured/f.Predicted)) / max(f.side()/max(widened, 1), leastWidth), true
}

// Of is the one for a kind of action; the zero value when nothing is known of it.
func (all Stretches) Of(kind string) Stretch {
	for _, s := range all {
		if s.Kind == kind {
			return s
		}
	}
	return Stretch{}
}

// Widens reports whether s changes an interval.
func (s Stretch) Widens() bool { return s.Factor > 1 }

// Interval is an interval around a forecast, in milliseconds, widened on both sides and rounded outwards to the microsecond.
// It is not widened below a microsecond or above eleven days. One that does not hold its forecast is given back as it is, and
// so is a lower end of 0.
func (s Stretch) Interval(predicted, low, high float64) (wider, higher float64) {
	if !s.Widens() || !(predicted > 0) || low > predicted || high < predicted {
		return low, high
	}
	factor := min(s.Factor, mostStretch)
	if low > 0 {
		low = min(low, max(leastLow, math.Floor(1e3*predicted*math.Exp(-factor*max(math.Log(predicted/low), leastWidth)))/1e3))
	}
	return low, max(high, min(mostHigh, math.Ceil(1e3*predicted*math.Exp(factor*max(math.Log(high/predicted), leastWidth)))/1e3))
}

// String says what was done, as "widened 1.4x after 12 outcomes"; "" when nothing was.
func (s Stretch) String() string {
	if !s.Widens() {
		return ""
	}
	return fmt.Sprintf("widened %.2gx after %d outcomes", s.Factor, s.Outcomes)
}
