package review

import (
	"math"

	"github.com/longpole/longpole/internal/staging"
)

// Prediction scores the adviser's forecasts against what was measured.
type Prediction struct {
	Changes   int               `json:"changes"`        // with a forecast that were measured
	Intervals int               `json:"intervals"`      // percentiles with an interval
	Covered   float64           `json:"covered"`        // share of those, as they were shown, that held the measured value; 0.9 is what is promised
	Error     float64           `json:"mean_error"`     // mean logarithm of measured over predicted: above 0 = promised too much
	AbsError  float64           `json:"mean_abs_error"` // the same without sign
	Kinds     staging.Stretches `json:"kinds"`          // by kind of action: how its intervals are widened from now on; never nil
}

// score compares forecasts with what the rollouts measured.
func score(all []staging.Record) Prediction {
	p := Prediction{Kinds: staging.LearnStretches(all)}
	n, covered := 0, 0
	for i := range all {
		r := &all[i]
		if r.Predicted == nil || !(r.After.P50 > 0) || r.Judgement.Slices == 0 {
			continue
		}
		p.Changes++
		for _, f := range r.Forecasts() {
			if f.Predicted > 0 && f.Measured > 0 {
				e := math.Log(f.Measured / f.Predicted)
				p.Error += e
				p.AbsError += math.Abs(e)
				n++
			}
			if f.Told() {
				p.Intervals++
				if f.Measured >= f.Low && f.Measured <= f.High {
					covered++
				}
			}
		}
	}
	if n > 0 {
		p.Error /= float64(n)
		p.AbsError /= float64(n)
	}
	if p.Intervals > 0 {
		p.Covered = float64(covered) / float64(p.Intervals)
	}
	return p
}
