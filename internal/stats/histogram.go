package stats

import (
	"math"
	"sync/atomic"
	"time"
)

// Schema is the resolution of a Histogram in the terms of Prometheus native
// histograms: 2^Schema buckets for each doubling, each 2^(1/64) times as wide
// as the one before.
const Schema = 6

// ZeroThreshold is the upper end, in seconds, of the lowest bucket, which holds
// everything shorter: the zero bucket of a native histogram.
const ZeroThreshold = 1.0 / (1 << -minExponent)

const (
	perOctave   = 1 << Schema
	minExponent = -20 // 2^-20 s = 0.95 µs
	maxExponent = 12  // 2^12 s = 1 h 8 min
	buckets     = (maxExponent-minExponent)*perOctave + 1
	longest     = time.Second << maxExponent
)

// Bucket i holds the durations in (2^((i-1)/64-20) s, 2^(i/64-20) s], bucket 0 all below. A duration is a whole
// number of nanoseconds, so the bounds may be rounded down to whole nanoseconds without moving a single one.
var (
	bounds = upperBounds()  // in ns, inclusive
	middle = middles()      // what a duration in the bucket is read as, in ns
	first  = firstGuesses() // by the top 7 bits of a mantissa: the lowest bucket of an octave that may hold it
)

func upperBounds() (b [buckets]int64) {
	for i := range b {
		b[i] = int64(math.Ldexp(math.Exp2(float64(i%perOctave)/perOctave)*1e9, i/perOctave+minExponent))
	}
	return b
}

// middles takes the geometric mean, which splits the relative error evenly.
func middles() (m [buckets]int64) {
	m[0] = bounds[0]
	for i := 1; i < buckets; i++ {
		m[i] = int64(math.Round(math.Sqrt(float64(bounds[i-1]+1) * float64(bounds[i]))))
	}
	return m
}

func firstGuesses() (g [128]uint8) {
	for m := range g {
		g[m] = uint8(math.Ceil(perOctave * math.Log2(1+float64(m)/128)))
	}
	return g
}

// index finds the bucket of ns from the exponent and the top of the mantissa of its float64; the bounds then have
// the last word, so that no rounding can misplace a duration.
func index(ns int64) int {
	if ns <= bounds[0] {
		return 0
	}
	if ns >= bounds[buckets-1] {
		return buckets - 1
	}
	bits := math.Float64bits(float64(ns) * 1e-9)
	i := (int(bits>>52)-1023-minExponent)*perOctave + int(first[bits>>45&127])
	for ns > bounds[i] {
		i++
	}
	for ns <= bounds[i-1] {
		i--
	}
	return i
}

// Histogram counts durations in exponential buckets, so that any quantile can be read from it later with a relative
// error of at most 0.55 %, and so that histograms can be added up.
//
// The range is 0.95 µs to 1 h 8 min; what lies outside counts as the nearest end. The zero value is empty and ready
// to use; all methods are safe for concurrent use. Record does not allocate. Its size is 17 KiB.
//
// Source: the exponential layout of OpenTelemetry and of Prometheus native histograms.
type Histogram struct {
	sums   [stripes]stripe
	counts [buckets]atomic.Uint64
}

// stripes are how many parts the sum has. Different latencies add to different ones, so that the cores that record do
// not all write to one cache line.
const stripes = 16

// stripe is a part of the sum in ns, alone on its cache line.
type stripe struct {
	atomic.Int64
	_ [56]byte
}

// Record counts d.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, 0), longest)
	i := index(int64(d))
	h.counts[i].Add(1)
	h.sums[i%stripes].Add(int64(d))
}

// Snapshot copies what was recorded so far. A Record that runs at the same time
// is in the copy or in the next one.
func (h *Histogram) Snapshot() Snapshot {
	var sum time.Duration
	for i := range h.sums {
		sum += time.Duration(h.sums[i].Load())
	}
	var dense [buckets]uint64
	for i := range h.counts {
		dense[i] = h.counts[i].Load()
	}
	return compact(&dense, sum)
}

func (h *Histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
	for i := range h.sums {
		h.sums[i].Store(0)
	}
}

// Shift returns the upper bound of the bucket that lies n buckets above the one of d (below, for negative n): d times
// 2^(n/64), as exactly as a Histogram can tell. Above(Shift(d, n)) splits no bucket.
func Shift(d time.Duration, n int) time.Duration {
	i := index(int64(d)) + n
	return time.Duration(bounds[min(max(i, 0), buckets-1)])
}
