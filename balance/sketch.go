package balance

import (
	"math"
	"time"

	"github.com/longpole/longpole/call"
)

// sketch is what an endpoint did lately, old evidence counting less at each sweep: failures, successes and the
// distribution of latencies in buckets of 9 % from 1 µs to 73 min. It takes 1 KiB.
type sketch struct {
	good, bad float32
	answers   float32 // the sum of bucket
	middle    time.Duration
	bucket    [buckets]float32
}

const (
	perOctave = 8
	buckets   = 32 * perOctave
)

func (s *sketch) calls() float64 { return float64(s.good + s.bad) }

// add takes in how a call ended. A call that was given up counts as slow when it was slower than the median
// already, else it says nothing; a caller's fault says nothing.
func (s *sketch) add(out call.Outcome, bad bool) {
	switch {
	case bad:
		s.bad++
		return
	case out.Class == call.OK:
		s.good++
	case out.Class != call.Canceled || s.middle == 0 || out.Latency <= s.middle:
		return
	}
	if out.Latency > 0 {
		s.answers++
		s.bucket[place(out.Latency)]++
	}
}

func place(d time.Duration) int {
	return min(max(int(perOctave*math.Log2(float64(d)/float64(time.Microsecond))), 0), buckets-1)
}

// median is that of the latencies, to the upper end of its bucket; 0 when there are none.
func (s *sketch) median() time.Duration {
	s.middle = 0
	sum := float32(0)
	for i, n := range s.bucket {
		if sum += n; n > 0 && sum*2 >= s.answers {
			s.middle = time.Duration(float64(time.Microsecond) * math.Exp2(float64(i+1)/perOctave))
			break
		}
	}
	return s.middle
}

// age lets all evidence count for less.
func (s *sketch) age(by float64) {
	f := float32(by)
	s.good, s.bad, s.answers = s.good*f, s.bad*f, 0
	for i, n := range s.bucket {
		if n *= f; n < 1e-3 {
			n = 0
		}
		s.bucket[i] = n
		s.answers += n
	}
}
