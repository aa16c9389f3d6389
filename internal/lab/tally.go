package lab

import (
	"fmt"
	"math"
	"slices"
)

// Tally counts over outcomes what the promise of the lab is about.
type Tally struct {
	Scenarios    int      `json:"scenarios"` // outcomes: a scenario that was run twice counts twice
	Passed       int      `json:"passed"`
	Faulty       int      `json:"faulty"`         // those with something wrong in them
	First        int      `json:"named_first"`    // of Faulty
	Third        int      `json:"named_in_three"` // of Faulty
	Asked        int      `json:"actions_asked"`  // of Faulty: those whose truth tells an action
	Action       int      `json:"first_action"`   // of Asked
	Healthy      int      `json:"healthy"`
	Silent       int      `json:"silent"`        // of Healthy
	Ours         int      `json:"cures_of_ours"` // those that promise a bound
	Cured        int      `json:"within_bound"`  // of Ours
	Tried        int      `json:"canaries"`
	Promoted     int      `json:"promoted"`       // of Tried
	Inconclusive int      `json:"inconclusive"`   // of Tried
	Forecasts    int      `json:"forecasts"`      // with an outcome to compare with
	Error        Quantile `json:"forecast_error"` // median of how far the prediction was from what came after, as a share of the latter
	Intervals    int      `json:"intervals"`      // quantiles whose prediction told an interval
	Covered      int      `json:"intervals_held"` // of Intervals: those in which the quantile lay afterwards
	Late         int      `json:"late"`           // outcomes with latencies that the generator's own lateness blurs
	Seconds      float64  `json:"seconds"`        // that all runs took
}

// Count makes the Tally of outcomes.
func Count(all []Outcome) Tally {
	t := Tally{Scenarios: len(all)}
	var off [3][]float64
	for i := range all {
		o := &all[i]
		t.Seconds += o.Seconds
		one(&t.Passed, o.Verdict == "pass")
		one(&t.Late, o.Before.Doubted || o.After != nil && o.After.Doubted)
		if o.Truth.Healthy {
			t.Healthy++
			one(&t.Silent, len(o.Named) == 0)
			continue
		}
		t.truth(o)
		if o.Cure != nil {
			t.Tried++
			one(&t.Promoted, o.Cure.Phase == phasePromoted)
			one(&t.Inconclusive, o.Cure.Phase == phaseInconclusive)
		}
		if o.After != nil && o.Forecast != nil {
			t.forecast(o, &off)
		}
	}
	t.Forecasts = len(off[2])
	t.Error = Quantile{P50: median(off[0]), P95: median(off[1]), P99: median(off[2])}
	return t
}

// The ends of a canary that are counted, as the rollout calls them.
const (
	phasePromoted     = "promoted"
	phaseInconclusive = "inconclusive"
)

func one(n *int, is bool) {
	if is {
		*n++
	}
}

// truth counts what of the truth was found and cured.
func (t *Tally) truth(o *Outcome) {
	t.Faulty++
	one(&t.First, o.Rank == 1)
	one(&t.Third, o.Rank >= 1 && o.Rank <= 3)
	if len(o.Truth.Action) > 0 {
		t.Asked++
		one(&t.Action, slices.Contains(o.Truth.Action, o.Action))
	}
	if o.Truth.P99After > 0 {
		t.Ours++
		one(&t.Cured, o.After != nil && len(o.After.beyond(&o.Before, o.Truth)) == 0)
	}
}

// forecast compares a prediction with what came after; off gathers how far it was from that at each quantile.
func (t *Tally) forecast(o *Outcome, off *[3][]float64) {
	var ranges [3][2]float64
	if o.Interval != nil {
		ranges = [3][2]float64{o.Interval.P50, o.Interval.P95, o.Interval.P99}
	}
	for i, x := range [3][2]float64{{o.Forecast.P50, o.After.P50}, {o.Forecast.P95, o.After.P95}, {o.Forecast.P99, o.After.P99}} {
		predicted, after := x[0], x[1]
		if after <= 0 {
			continue
		}
		off[i] = append(off[i], math.Abs(predicted/after-1))
		if r := ranges[i]; r[1] > 0 {
			t.Intervals++
			one(&t.Covered, r[0] <= after && after <= r[1])
		}
	}
}

// median of a list that it puts in order; 0 of an empty one. Of an even number it is the mean of the middle two.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// Promise is one line of what the lab holds Longpole to.
type Promise struct {
	Text     string  `json:"promise"`
	Wanted   float64 `json:"wanted"`   // a share; at least, or at most where AtMost is set
	AtMost   bool    `json:"at_most"`  // Measured must not exceed Wanted
	Measured float64 `json:"measured"` // a share
	Hits     int     `json:"hits"`     // Measured is Hits of Of, but for a median
	Of       int     `json:"of"`       // 0 = nothing was there to measure, and the promise counts as neither held nor broken
	Bound    bool    `json:"bound"`    // part of what the lab promises; false = told beside it
}

// Broken reports whether the promise was measured and is not held.
func (p Promise) Broken() bool {
	if !p.Bound || p.Of == 0 {
		return false
	}
	if p.AtMost {
		return p.Measured > p.Wanted
	}
	return p.Measured < p.Wanted
}

// Told is what was measured in words: "30 of 33 (91 %)".
func (p Promise) Told() string {
	switch {
	case p.Of == 0:
		return "nothing to measure"
	case p.AtMost:
		return fmt.Sprintf("%.0f %% in the median of %d", 100*p.Measured, p.Of)
	}
	return fmt.Sprintf("%d of %d (%.0f %%)", p.Hits, p.Of, 100*p.Measured)
}

// Promises are what t says about each promise of the lab, in a fixed order.
func (t Tally) Promises() []Promise {
	share := func(text string, wanted float64, hits, of int) Promise {
		return Promise{Text: text, Wanted: wanted, Hits: hits, Of: of, Measured: float64(hits) / float64(max(of, 1)), Bound: true}
	}
	off := func(text string, measured float64, bound bool) Promise {
		return Promise{Text: text, Wanted: 0.2, AtMost: true, Measured: measured, Of: t.Forecasts, Bound: bound}
	}
	coverage := share("measured within the 90 % interval of the prediction", 0.9, t.Covered, t.Intervals)
	coverage.Bound = false
	return []Promise{
		share("class and service named first", 0.9, t.First, t.Faulty),
		share("among the first three", 1, t.Third, t.Faulty),
		share("nothing named in the healthy ones", 1, t.Silent, t.Healthy),
		share("first action is an expected one", 0.85, t.Action, t.Asked),
		share("cures of ours promoted, and p99 within its bound", 1, t.Cured, t.Ours),
		off("predicted p99 off by", t.Error.P99, true),
		off("predicted p95 off by", t.Error.P95, false),
		off("predicted p50 off by", t.Error.P50, false),
		coverage,
	}
}
