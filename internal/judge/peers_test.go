package judge

import (
	"math"
	"slices"
)

// flagger is a rule in Flagger's style: once a minute the candidate's p99 of that minute against a threshold, here 1.25
// times what is usual, and its errors against 1 %; rolled back at the third check that fails.
type flagger struct {
	before     float64 // p99
	minute     []float64
	errors     float64
	failed     int
	rolledBack int // second; 0 = not
}

func (f *flagger) see(at int, _, c second) {
	if at < 0 {
		return
	}
	f.minute = append(f.minute, c.ms...)
	f.errors += c.errors
	if at%60 != 59 {
		return
	}
	if quantile(f.minute, .99) > 1.25*f.before || f.errors > .01*float64(len(f.minute)) {
		f.failed++
	}
	if f.failed >= 3 && f.rolledBack == 0 {
		f.rolledBack = at + 1
	}
	f.minute, f.errors = f.minute[:0], 0
}

func quantile(ms []float64, q float64) float64 {
	if len(ms) == 0 {
		return 0
	}
	slices.Sort(ms)
	return ms[int(math.Ceil(q*float64(len(ms))))-1]
}

// kayenta is a rule in the style of Kayenta's judge: p50, p95, p99 and errors as points of five seconds; a metric is high
// when the lower end of the 98 % interval of Mann and Whitney's shift exceeds a quarter of the estimated shift; a canary with a
// high metric fails. peeked is judged once a minute, ended once after ten.
type kayenta struct {
	points [4][2][]float64
	bucket [2][]float64
	errors [2]float64
	peeked int // second of the first failure; 0 = none
	ended  bool
}

func (k *kayenta) see(at int, b, c second) {
	if at < 0 {
		return
	}
	for arm, s := range [2]second{b, c} {
		k.bucket[arm] = append(k.bucket[arm], s.ms...)
		k.errors[arm] += s.errors
	}
	if at%5 == 4 {
		for arm := range 2 {
			for i, q := range []float64{.5, .95, .99} {
				k.points[i][arm] = append(k.points[i][arm], quantile(k.bucket[arm], q))
			}
			k.points[3][arm] = append(k.points[3][arm], k.errors[arm]/max(float64(len(k.bucket[arm])), 1))
			k.bucket[arm], k.errors[arm] = k.bucket[arm][:0], 0
		}
	}
	if at%60 != 59 {
		return
	}
	high := false
	for i := range k.points {
		high = high || shifted(k.points[i][0], k.points[i][1])
	}
	if high && k.peeked == 0 {
		k.peeked = at + 1
	}
	k.ended = high
}

// shifted reports whether candidate is high, by the normal approximation of the interval.
func shifted(baseline, candidate []float64) bool {
	n, m := float64(len(baseline)), float64(len(candidate))
	var d []float64
	for _, c := range candidate {
		for _, b := range baseline {
			d = append(d, c-b)
		}
	}
	slices.Sort(d)
	low := int(n*m/2 - 2.326*math.Sqrt(n*m*(n+m+1)/12))
	return low > 0 && d[low] > .25*math.Abs(d[len(d)/2]) && d[low] > 0
}
