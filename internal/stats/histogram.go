package stats

import (
	"math"
	"runtime"
	"sync"
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
// to use; all methods are safe for concurrent use. Its size is 18.3 KiB. Once one of its buckets is full enough to tell
// that it is recorded often, it grows by as much for each further core, to four times that at most; apart from that
// Record does not allocate.
//
// Source: the exponential layout of OpenTelemetry and of Prometheus native histograms.
type Histogram struct {
	own  block
	more atomic.Pointer[[]block] // for other cores than the first; nil = it is not recorded often
}

const (
	perLine   = 7
	lines     = (buckets + perLine - 1) / perLine
	often     = 1 << 10 // in one bucket
	maxBlocks = 4
)

// block is counts that few cores write to.
type block [lines]line

// line is neighbouring buckets with the sum in ns of what they hold, on one cache line: a core that records fetches
// one line from the core that wrote to it last, and not another one for the sum.
type line struct {
	sum    atomic.Int64
	counts [perLine]atomic.Uint64
}

// add counts d in bucket i, and returns how many that holds now.
func (b *block) add(i uint, d time.Duration) uint64 {
	l := &b[i/perLine]
	l.sum.Add(int64(d))
	return l.counts[i%perLine].Add(1)
}

// token stands for a core. A sync.Pool keeps what was put into it on the same core, as far as it can, which is all that
// it is used for: a token that strays costs time and nothing else.
type token struct{ number int }

var (
	tokens = sync.Pool{New: func() any { return &handed[next.Add(1)%maxBlocks] }}
	handed = [maxBlocks]token{{0}, {1}, {2}, {3}}
	next   atomic.Uint32
)

// Record counts d.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, 0), longest)
	i := uint(index(int64(d)))
	more := h.more.Load()
	if more == nil {
		if h.own.add(i, d)%often == 0 {
			h.grow()
		}
		return
	}
	t := tokens.Get().(*token)
	b := &h.own
	if k := t.number % (len(*more) + 1); k > 0 {
		b = &(*more)[k-1]
	}
	b.add(i, d)
	tokens.Put(t)
}

func (h *Histogram) grow() {
	if n := min(runtime.GOMAXPROCS(0), maxBlocks) - 1; n > 0 {
		more := make([]block, n)
		h.more.CompareAndSwap(nil, &more)
	}
}

// Snapshot copies what was recorded so far. A Record that runs at the same time
// is in the copy or in the next one.
func (h *Histogram) Snapshot() Snapshot {
	var dense [lines * perLine]uint64
	sum := h.own.addTo(&dense)
	if more := h.more.Load(); more != nil {
		for i := range *more {
			sum += (*more)[i].addTo(&dense)
		}
	}
	return compact((*[buckets]uint64)(dense[:]), sum)
}

func (b *block) addTo(dense *[lines * perLine]uint64) (sum time.Duration) {
	for i := range b {
		l, d := &b[i], dense[i*perLine:]
		sum += time.Duration(l.sum.Load())
		for k := range l.counts {
			d[k] += l.counts[k].Load()
		}
	}
	return sum
}

func (h *Histogram) reset() {
	h.own.reset()
	if more := h.more.Load(); more != nil {
		for i := range *more {
			(*more)[i].reset()
		}
	}
}

func (b *block) reset() {
	for i := range b {
		l := &b[i]
		l.sum.Store(0)
		for k := range l.counts {
			l.counts[k].Store(0)
		}
	}
}

// Shift returns the upper bound of the bucket that lies n buckets above the one of d (below, for negative n): d times
// 2^(n/64), as exactly as a Histogram can tell. Above(Shift(d, n)) splits no bucket.
func Shift(d time.Duration, n int) time.Duration {
	i := index(int64(d)) + n
	return time.Duration(bounds[min(max(i, 0), buckets-1)])
}
