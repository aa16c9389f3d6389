package slo

import (
	"slices"
	"time"
)

// resolution is one level of a ring: how wide its buckets are and how far back they reach.
type resolution struct{ width, reach time.Duration }

// resolutions are what windows up to three days need; the last level, of hours, reaches back a whole period.
var resolutions = []resolution{
	{10 * time.Second, time.Hour},
	{time.Minute, 6 * time.Hour},
	{10 * time.Minute, 3 * Day},
}

// ring counts calls in buckets of time, finely for the last hour and ever more coarsely before. Each level counts every
// call by itself, so that a sum never depends on what was carried over from another level: it is exact.
type ring struct{ levels []level }

// level is buckets of one width. Bucket number n, which begins at n*width after 1970, lies at n modulo their count.
type level struct {
	width   time.Duration
	buckets []bucket
}

type bucket struct {
	number int64
	Counts
}

func newRing(p Period) ring {
	var r ring
	for _, res := range append(slices.Clip(resolutions), resolution{time.Hour, p.Duration()}) {
		r.levels = append(r.levels, level{res.width, make([]bucket, res.reach/res.width)})
	}
	return r
}

func (l *level) number(at time.Time) int64 { return max(at.UnixNano()/int64(l.width), 0) }

func (l *level) at(number int64) *bucket { return &l.buckets[number%int64(len(l.buckets))] }

// add counts c at now. What comes so late that its bucket is in use again counts in that one.
func (r ring) add(now time.Time, c Counts) {
	for i := range r.levels {
		l := &r.levels[i]
		number := l.number(now)
		b := l.at(number)
		if b.number < number {
			*b = bucket{number: number}
		}
		b.Total += c.Total
		b.Bad += c.Bad
	}
}

// window is what was counted in the bucket that runs at now and in those before it that fit into w: the time of w, or up to
// one bucket less. The finest level that reaches back far enough is taken.
func (r ring) window(now time.Time, w time.Duration) (c Counts) {
	l := r.levelFor(w)
	number := l.number(now)
	n := min(int64((w+l.width-1)/l.width), int64(len(l.buckets)))
	for k := max(number-n+1, 0); k <= number; k++ {
		if b := l.at(k); b.number == k {
			c.Total += b.Total
			c.Bad += b.Bad
		}
	}
	return c
}

func (r ring) levelFor(w time.Duration) *level {
	for i := range r.levels {
		if l := &r.levels[i]; w <= l.width*time.Duration(len(l.buckets)) {
			return l
		}
	}
	return &r.levels[len(r.levels)-1]
}

// covered is how much time window looks at, since begin at the earliest.
func (r ring) covered(now time.Time, w time.Duration, begin time.Time) time.Duration {
	l := r.levelFor(w)
	n := min(int64((w+l.width-1)/l.width), int64(len(l.buckets)))
	from := time.Unix(0, (l.number(now)-n+1)*int64(l.width))
	if begin.After(from) {
		from = begin
	}
	return max(now.Sub(from), 0)
}

// hours are the buckets of the last level, by number.
func (r ring) hours() *level { return &r.levels[len(r.levels)-1] }
