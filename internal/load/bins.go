package load

import (
	"errors"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Bins is the content of a latency histogram as it is kept in a file: the buckets of a Prometheus native histogram of
// schema 6, where bucket i ends at 2^(i/64) seconds. The zero value is empty. It is not changed once it was made.
type Bins struct {
	Zero   uint64   `json:"zero,omitempty"`   // at most 0.95 µs
	First  int      `json:"first"`            // index of Counts[0]
	Counts []uint64 `json:"counts,omitempty"` // of neighbouring buckets
}

// The indexes that a stats.Histogram can have.
const (
	lowestBin  = -20<<stats.Schema + 1
	highestBin = 12 << stats.Schema
)

// errBins says that a file's histogram cannot be one of ours.
var errBins = errors.New("load: damaged histogram")

func binsOf(s stats.Snapshot) Bins {
	_, zero, positive := s.Native()
	b := Bins{Zero: zero}
	if len(positive) == 0 {
		return b
	}
	low, high := math.MaxInt, math.MinInt
	for i := range positive {
		low, high = min(low, i), max(high, i)
	}
	b.First, b.Counts = low, make([]uint64, high-low+1)
	for i, n := range positive {
		b.Counts[i-low] = uint64(n)
	}
	return b
}

func (b Bins) check() error {
	if len(b.Counts) > 0 && (b.First < lowestBin || b.First > highestBin || len(b.Counts) > highestBin-b.First+1) {
		return errBins
	}
	left := uint64(1) << 60
	for _, n := range append([]uint64{b.Zero}, b.Counts...) {
		if n > left {
			return errBins
		}
		left -= n
	}
	return nil
}

// Count is how many durations there are.
func (b Bins) Count() uint64 {
	n := b.Zero
	for _, c := range b.Counts {
		n += c
	}
	return n
}

// merge is both together.
func (b Bins) merge(o Bins) Bins {
	if len(o.Counts) == 0 {
		return Bins{Zero: b.Zero + o.Zero, First: b.First, Counts: b.Counts}
	}
	if len(b.Counts) == 0 {
		return Bins{Zero: b.Zero + o.Zero, First: o.First, Counts: o.Counts}
	}
	from, to := min(b.First, o.First), max(b.First+len(b.Counts), o.First+len(o.Counts))
	m := Bins{Zero: b.Zero + o.Zero, First: from, Counts: make([]uint64, to-from)}
	copy(m.Counts[b.First-from:], b.Counts)
	for i, n := range o.Counts {
		m.Counts[o.First-from+i] += n
	}
	return m
}

// upper is the inclusive end of bucket i in seconds.
func upper(i int) float64 { return math.Exp2(float64(i) / (1 << stats.Schema)) }

// all yields the index of each bucket and its count; the zero bucket comes as the one before the lowest.
func (b Bins) all() iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		if b.Zero > 0 && !yield(lowestBin-1, b.Zero) {
			return
		}
		for i, n := range b.Counts {
			if n > 0 && !yield(b.First+i, n) {
				return
			}
		}
	}
}

// above is how many lie above the point at which the share into of bucket i ends.
func (b Bins) above(i int, into float64) float64 {
	var n float64
	for at, c := range b.all() {
		switch {
		case at > i:
			n += float64(c)
		case at == i:
			n += (1 - into) * float64(c)
		}
	}
	return n
}

// quantile is the point below which a share q of all lies: bucket and share of the bucket, the durations in a bucket taken
// as evenly spread by their logarithm. false when empty.
func (b Bins) quantile(q float64) (bin int, into float64, ok bool) {
	total := float64(b.Count())
	if total == 0 {
		return 0, 0, false
	}
	rank := q * total
	last := 0
	for i, n := range b.all() {
		if rank <= float64(n) {
			return i, rank / float64(n), true
		}
		rank -= float64(n)
		last = i
	}
	return last, 1, true
}

// point is the logarithm of the duration, in seconds, at the share into of bucket i.
func point(i int, into float64) float64 {
	return (float64(i) - 1 + into) / (1 << stats.Schema) * math.Ln2
}

// middle is what a stats.Snapshot would have read: the middle of the bucket.
func middle(i int) time.Duration {
	middles.once.Do(func() {
		middles.of = make([]time.Duration, highestBin-lowestBin+2)
		for k := range middles.of {
			middles.of[k] = stats.Of(time.Duration(upper(k+lowestBin-1) * 1e9)).Quantile(1)
		}
	})
	return middles.of[min(max(i-lowestBin+1, 0), len(middles.of)-1)]
}

var middles struct {
	once sync.Once
	of   []time.Duration
}

// Quantile is that of the stats.Snapshot from which b came.
func (b Bins) Quantile(q float64) time.Duration {
	total := b.Count()
	if total == 0 {
		return 0
	}
	rank := uint64(min(max(math.Ceil(q*float64(total)-1e-9*float64(total)), 1), float64(total)))
	for i, n := range b.all() {
		if rank <= n {
			return middle(i)
		}
		rank -= n
	}
	return 0
}

// thin joins neighbouring slices until there are at most n.
func thin[T any](all []T, n int, join func(a, b T) T) []T {
	if len(all) <= n {
		return all
	}
	per := (len(all) + n - 1) / n
	var out []T
	for from := 0; from < len(all); from += per {
		one := all[from]
		for _, next := range all[from+1 : min(from+per, len(all))] {
			one = join(one, next)
		}
		out = append(out, one)
	}
	return out
}
