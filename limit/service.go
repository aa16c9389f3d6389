package limit

import "slices"

const (
	kept      = 64         // latest service times
	freshFor  = int64(5e9) // older ones tell nothing
	enough    = 16         // of them before the median is used
	refresh   = int64(1e8)
	trickle   = int64(5e7) // a doomed call passes this often, or a median that is too high would never be corrected
	noTimeout = int64(1) << 62
)

// service knows how long the dependency usually takes: the median of the latest successes.
type service struct {
	ring   [kept]timed
	next   int
	median int64 // 0 = unknown
	stale  int64 // when to find it again
	pass   int64 // when the next doomed call may pass
}

type timed struct{ at, took int64 }

func (s *service) add(at, took int64) {
	s.ring[s.next] = timed{at, took}
	if s.next++; s.next == kept {
		s.next = 0
	}
}

// usual is the median at the given time; 0 = too little is known.
func (s *service) usual(at int64) int64 {
	if at < s.stale {
		return s.median
	}
	s.stale = at + refresh
	var fresh [kept]int64
	n := 0
	for _, t := range s.ring {
		if t.took > 0 && at-t.at <= freshFor {
			fresh[n] = t.took
			n++
		}
	}
	s.median = 0
	if n >= enough {
		slices.Sort(fresh[:n])
		s.median = fresh[(n-1)/2]
	}
	return s.median
}

// doomed reports whether a call with so much time left, of which it must wait some, would most likely come too late.
func (s *service) doomed(at, left, wait int64) bool {
	if left == noTimeout {
		return false
	}
	if left <= 0 {
		return true
	}
	usual := s.usual(at)
	if usual == 0 || left >= usual+wait {
		return false
	}
	if at >= s.pass {
		s.pass = at + trickle
		return false
	}
	return true
}
