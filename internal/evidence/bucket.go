package evidence

import (
	"maps"
	"math"
	"slices"
)

// bucketGrowth is by how much the cumulative buckets of a classic histogram grew between two looks, by their upper bounds. of says
// which samples are the histogram's.
func bucketGrowth(before, after []Sample, of func(Sample) bool) map[float64]float64 {
	counts := map[float64]float64{}
	for _, side := range []struct {
		samples []Sample
		sign    float64
	}{{after, 1}, {before, -1}} {
		for _, s := range side.samples {
			if !of(s) {
				continue
			}
			if le, err := bound64(s.Labels["le"]); err == nil {
				counts[le] += side.sign * s.Value
			}
		}
	}
	return counts
}

// bucketQuantile is the upper bound of the bucket in which the quantile q lies, so that nothing is made up within it; cumulative is by
// upper bounds. beyond reports that there is no such bound but infinity; then upper is the last that is finite, 0 for none.
func bucketQuantile(cumulative map[float64]float64, q, total float64) (upper float64, beyond bool) {
	for _, bound := range slices.Sorted(maps.Keys(cumulative)) {
		if math.IsInf(bound, 1) {
			break
		}
		upper = bound
		if cumulative[bound] >= q*total*(1-1e-9) { // sums of increases are not exact
			return upper, false
		}
	}
	return upper, true
}
