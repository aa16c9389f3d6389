package payload

import (
	"iter"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// perByte is how long a byte is in a histogram of durations: 1 B is 1 µs and 4 GiB its end, so that sizes get the
// buckets, the error and the merging of latencies.
const perByte = time.Microsecond

// Sizes counts sizes so that any quantile can be read later, off by at most 0.55 %, from 1 B to 4 GiB; what lies above
// counts as 4 GiB. The zero value is ready; it is safe for concurrent use, and Record does not allocate. 17 KiB.
type Sizes struct{ h stats.Histogram }

// Record counts a size in bytes.
func (s *Sizes) Record(bytes int64) { s.h.Record(time.Duration(min(max(bytes, 0), 1<<33)) * perByte) }

// Snapshot copies what was recorded so far.
func (s *Sizes) Snapshot() SizeSnapshot { return SizeSnapshot{s.h.Snapshot()} }

// SizeSnapshot is an immutable value.
type SizeSnapshot struct{ s stats.Snapshot }

// Count is how many sizes were recorded.
func (s SizeSnapshot) Count() uint64 { return s.s.Count() }

// Sum is all of them, in bytes.
func (s SizeSnapshot) Sum() int64 { return int64(s.s.Sum() / perByte) }

// Quantile is the size in bytes that a share q (0..1) does not exceed; 0 when empty.
func (s SizeSnapshot) Quantile(q float64) int64 {
	d := s.s.Quantile(q)
	if d < perByte*97/100 {
		return 0 // the lowest bucket, which holds nothing but empty bodies
	}
	return int64((d + perByte/2) / perByte)
}

// Sub is what came since earlier, a snapshot of the same Sizes.
func (s SizeSnapshot) Sub(earlier SizeSnapshot) SizeSnapshot { return SizeSnapshot{s.s.Sub(earlier.s)} }

// Merge is both together.
func (s SizeSnapshot) Merge(o SizeSnapshot) SizeSnapshot { return SizeSnapshot{s.s.Merge(o.s)} }

// Buckets yields the upper bound in bytes (inclusive) and the count of each bucket that is not empty, in ascending
// order. The bound is no whole number of bytes, except by chance.
func (s SizeSnapshot) Buckets() iter.Seq2[float64, uint64] {
	return func(yield func(float64, uint64) bool) {
		for bound, n := range s.s.Buckets() {
			if !yield(float64(bound)/float64(perByte), n) {
				return
			}
		}
	}
}
