package stats

import (
	"iter"
	"math"
	"slices"
	"time"
)

// Snapshot is the content of a Histogram at one moment: an immutable value that
// may be copied, shared and read by anyone at once. The zero value is empty.
type Snapshot struct {
	offset int      // bucket of counts[0]
	counts []uint64 // no zero at either end; never written after it was built
	count  uint64
	sum    time.Duration
}

// Of is the Snapshot of a Histogram that recorded ds.
func Of(ds ...time.Duration) Snapshot {
	var h Histogram
	for _, d := range ds {
		h.Record(d)
	}
	return h.Snapshot()
}

func compact(dense *[buckets]uint64, sum time.Duration) Snapshot {
	from, to := 0, buckets
	for from < to && dense[from] == 0 {
		from++
	}
	for from < to && dense[to-1] == 0 {
		to--
	}
	if from == to {
		return Snapshot{}
	}
	s := Snapshot{offset: from, counts: slices.Clone(dense[from:to]), sum: sum}
	for _, c := range s.counts {
		s.count += c
	}
	return s
}

func (s Snapshot) addTo(dense *[buckets]uint64) {
	for i, c := range s.counts {
		dense[s.offset+i] += c
	}
}

// Count is how many durations were recorded.
func (s Snapshot) Count() uint64 { return s.count }

// Sum is all durations added up.
func (s Snapshot) Sum() time.Duration { return s.sum }

// Quantile is the duration that a share q of all does not exceed (nearest rank), off by at most 0.55 %. q is held
// to 0..1; 0 when empty.
func (s Snapshot) Quantile(q float64) time.Duration {
	if s.count == 0 {
		return 0
	}
	rank := nearestRank(q, s.count)
	for i, c := range s.counts {
		if rank <= c {
			return time.Duration(middle[s.offset+i])
		}
		rank -= c
	}
	return time.Duration(middle[s.offset+len(s.counts)-1])
}

// Max is the longest duration, off by at most 0.55 %; 0 when empty.
func (s Snapshot) Max() time.Duration { return s.Quantile(1) }

// nearestRank is ceil(q*n), held to 1..n.
func nearestRank(q float64, n uint64) uint64 {
	if !(q > 0) {
		return 1
	}
	// 0.99 of 100 is 99.00000000000001 in floating point; it must stay the 99th.
	r := math.Ceil(q*float64(n) - 1e-9*float64(n))
	return uint64(min(max(r, 1), float64(n)))
}

// ExactQuantile is the nearest-rank quantile of raw samples in ascending order;
// q is held to 0..1, 0 when there are none.
func ExactQuantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[nearestRank(q, uint64(len(sorted)))-1]
}

// Merge is both together.
func (s Snapshot) Merge(o Snapshot) Snapshot {
	if o.count == 0 {
		return s
	}
	if s.count == 0 {
		return o
	}
	from := min(s.offset, o.offset)
	to := max(s.offset+len(s.counts), o.offset+len(o.counts))
	m := Snapshot{offset: from, counts: make([]uint64, to-from), count: s.count + o.count, sum: s.sum + o.sum}
	for i, c := range s.counts {
		m.counts[s.offset-from+i] = c
	}
	for i, c := range o.counts {
		m.counts[o.offset-from+i] += c
	}
	return m
}

// Sub is what came since earlier, a Snapshot of the same Histogram. A bucket
// that shrank, because the Histogram began anew in between, counts as empty.
func (s Snapshot) Sub(earlier Snapshot) Snapshot {
	if earlier.count == 0 {
		return s
	}
	var dense [buckets]uint64
	s.addTo(&dense)
	for i, c := range earlier.counts {
		at := &dense[earlier.offset+i]
		*at -= min(*at, c)
	}
	return compact(&dense, max(s.sum-earlier.sum, 0))
}

// Above is how many durations lie in buckets above the one of x: those that are longer than x by more than the
// resolution. It is exact when x is the upper bound of a bucket, as Shift returns it.
func (s Snapshot) Above(x time.Duration) uint64 {
	from := max(index(int64(x))+1-s.offset, 0)
	var n uint64
	for i := from; i < len(s.counts); i++ {
		n += s.counts[i]
	}
	return n
}

// Buckets yields the upper bound (inclusive) and the count of each bucket that is not empty, in ascending order.
func (s Snapshot) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for i, c := range s.counts {
			if c > 0 && !yield(time.Duration(bounds[s.offset+i]), c) {
				return
			}
		}
	}
}

// FromBuckets is the Snapshot of a Histogram that recorded, for each pair, count durations of that length. What Buckets
// yields gives the same counts again; a coarser histogram is as exact as its upper bounds are.
func FromBuckets(all iter.Seq2[time.Duration, uint64]) Snapshot {
	var dense [buckets]uint64
	var sum float64 // no product of a great count overflows it
	for d, n := range all {
		d = min(max(d, 0), longest)
		dense[index(int64(d))] += n
		sum += float64(d) * float64(n)
	}
	return compact(&dense, time.Duration(min(sum, 1<<62)))
}

// Native is the content as a Prometheus native histogram: its schema, the count of the zero bucket (which ends at
// ZeroThreshold), and the counts by bucket index, where bucket i ends at 2^(i/64) seconds.
func (s Snapshot) Native() (schema int32, zero uint64, positive map[int]int64) {
	positive = make(map[int]int64)
	for i, c := range s.counts {
		switch {
		case c == 0:
		case s.offset+i == 0:
			zero = c
		default:
			positive[s.offset+i+minExponent*perOctave] = int64(c)
		}
	}
	return Schema, zero, positive
}
