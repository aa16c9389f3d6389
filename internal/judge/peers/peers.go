// Package peers holds the rules by which others judge a canary, so that ours can be held against them on the same data. They
// are the rules, not the products: what surrounds them, and what a user would tune, is left out. Nothing in the product uses it.
package peers

import (
	"math"
	"slices"
)

const (
	flaggerFactor = 1.25 // of the usual p99
	flaggerErrors = 0.01 // of the calls
	flaggerLimit  = 3    // checks that fail
)

// Flagger is a rule in Flagger's style: once a minute the candidate's p99 of that minute against a threshold, here 1.25 times
// what is usual, and the share of its calls that failed against 1 %; rolled back at the third check that fails. Not for concurrent
// use.
type Flagger struct {
	Usual  float64 // p99 before, in any unit
	failed int
}

// Minute takes what the candidate did in one: its p99, in the unit of Usual, and the share of its calls that failed. It reports
// whether the candidate is to be rolled back, now or earlier.
func (f *Flagger) Minute(p99, errors float64) bool {
	if p99 > flaggerFactor*f.Usual || errors > flaggerErrors {
		f.failed++
	}
	return f.failed >= flaggerLimit
}

// Figures are what Kayenta's rule sees of one arm: p50, p95, p99 and the share of calls that failed.
type Figures [4]float64

// Kayenta is a rule in the style of Kayenta's judge: each of the Figures as points, of five seconds say; a metric is high when
// the lower end of the 98 % interval of Mann and Whitney's shift exceeds a quarter of the estimated shift; a canary with a high
// metric fails. The zero value has seen nothing. Not for concurrent use.
//
// Source: MannWhitneyClassifier of spinnaker/kayenta.
type Kayenta struct {
	points [len(Figures{})][2][]float64
}

// Add takes one point of each arm.
func (k *Kayenta) Add(baseline, candidate Figures) {
	for i := range k.points {
		k.points[i][0] = append(k.points[i][0], baseline[i])
		k.points[i][1] = append(k.points[i][1], candidate[i])
	}
}

// High reports whether any metric is.
func (k *Kayenta) High() bool {
	for i := range k.points {
		if shifted(k.points[i][0], k.points[i][1]) {
			return true
		}
	}
	return false
}

// shifted reports whether candidate is high, by the normal approximation of the interval.
func shifted(baseline, candidate []float64) bool {
	n, m := float64(len(baseline)), float64(len(candidate))
	d := make([]float64, 0, len(baseline)*len(candidate))
	for _, c := range candidate {
		for _, b := range baseline {
			d = append(d, c-b)
		}
	}
	slices.Sort(d)
	low := int(n*m/2 - 2.326*math.Sqrt(n*m*(n+m+1)/12))
	return low > 0 && d[low] > .25*math.Abs(d[len(d)/2]) && d[low] > 0
}
