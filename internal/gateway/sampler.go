package gateway

import (
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// sampler thins out the traces of a busy route: all of them while there are few, beyond that a share that does not
// depend on how the call goes, so that quantiles of what is kept are those of the route. The share is that of the second
// before, or a smaller one where this second has more calls already. Calls of one trace are all kept or all not, wherever
// the share is the same. It is safe for concurrent use.
type sampler struct {
	second atomic.Int64  // unix time of the second that calls counts in
	calls  atomic.Int64  // in it
	limit  atomic.Uint32 // traces whose last 32 bits are above are not kept; 0 = none was set yet
}

// keep decides about a call at now; most is how many traces a second are wanted.
func (s *sampler) keep(now time.Time, most int, traceID string) bool {
	n := s.calls.Add(1)
	if last, second := s.second.Load(), now.Unix(); second != last && s.second.CompareAndSwap(last, second) {
		s.calls.Store(0)
		s.limit.Store(shareOf(most, n, second-last))
	}
	limit := s.limit.Load()
	if limit == 0 {
		limit = math.MaxUint32
	}
	if n > int64(most) {
		limit = min(limit, shareOf(most, n, 1)) // a rush is not waited out for a second
	}
	return limit == math.MaxUint32 || lastBits(traceID) <= limit
}

// shareOf is the limit for most of n calls in so many seconds.
func shareOf(most int, n, seconds int64) uint32 {
	perSecond := float64(n) / float64(max(seconds, 1))
	if perSecond <= float64(most) {
		return math.MaxUint32
	}
	return uint32(max(1, float64(most)/perSecond*math.MaxUint32))
}

// lastBits is the part of a trace ID that is random by W3C Trace Context level 2, as far as 32 bits go.
func lastBits(traceID string) uint32 {
	n, _ := strconv.ParseUint(traceID[max(0, len(traceID)-8):], 16, 32) // parseTraceparent has checked it
	return uint32(n)
}

// sample decides whether the spans of the call are wanted. Who began a trace decides for all: one that was sampled before
// it came here would be left with a hole.
func (v *visit) sample(inherited bool) {
	s := &v.x.spans
	if v.g.options.Spans == nil {
		return
	}
	if inherited && sampled(s.origin.flags) {
		s.sink, s.server = v.g.options.Spans, newID(1)
		return
	}
	if s.origin.quiet = !v.route.live.figures.sampler.keep(v.start, v.route.traces, s.origin.trace); s.origin.quiet {
		s.origin.flags = "00" // nobody further on need keep it either
		return
	}
	s.sink, s.server = v.g.options.Spans, newID(1)
}

// sampled reads the flag of W3C Trace Context, the last bit of two hex digits.
func sampled(flags string) bool {
	return len(flags) == 2 && strings.IndexByte("13579bdf", flags[1]) >= 0
}
