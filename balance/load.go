package balance

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Load is what a server says about itself when it is asked.
type Load struct {
	RIF     int           // requests in flight: begun and not answered
	Latency time.Duration // how long a request that came now would take in the server, network excluded; 0 = not known
}

// Estimator is how a ServerLoad tells how long the next request would take.
type Estimator uint8

// The estimators. Both look at the last 256 good answers of the last 10 s; in a quiet hour at least at 8, however old.
const (
	// Sharing is for a server whose requests share it, as most do: the sum of the latencies over the sum of the requests
	// in flight that they met is what one request costs for each that it shares the server with, and the next request
	// shares it with all that are in flight. All samples count, whatever they met, so it is steady, and it follows the load at once.
	Sharing Estimator = iota
	// Median is the paper's: the median latency of those that met about as many in flight as there are now, here the 9
	// nearest. It assumes nothing of the server, but is so noisy that callers who all take the least of
	// many herd onto errors of the estimate: in our simulation the tail is three times as long at 1.57 times the allocated load.
	Median
)

// ServerLoad measures the Load of this process for the callers that balance by it. Begin and End stand around each
// request, queues of the application included; probes and health checks are not counted. The zero value is ready and uses
// Sharing; it is safe for concurrent use and does not allocate. Failures are no samples: they would be fast.
type ServerLoad struct {
	Estimator Estimator // not to be changed in use

	rif  atomic.Int64
	mu   sync.Mutex
	ring [finishes]finish
	head int // where the next one goes
	size int
	took time.Duration // sums over those in the ring
	met  int64
}

type finish struct {
	at   time.Time
	took time.Duration
	met  int64
}

const (
	finishes     = 256
	finishesLive = 10 * time.Second
	finishesKept = 8
	nearest      = 9
)

// Begin counts a request that arrives, and returns how many are in flight with it, which End wants back.
func (s *ServerLoad) Begin() (rif int) { return int(s.rif.Add(1)) }

// End counts a request as answered at now: rif is what Begin returned, took the time since then, good whether the
// answer was a success.
func (s *ServerLoad) End(now time.Time, rif int, took time.Duration, good bool) {
	s.rif.Add(-1)
	if !good || took < 0 || rif < 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == finishes {
		s.forget()
	}
	s.ring[s.head] = finish{now, took, int64(rif)}
	s.head = (s.head + 1) % finishes
	s.size++
	s.took += took
	s.met += int64(rif)
}

// Load is the answer to a probe that came at now.
func (s *ServerLoad) Load(now time.Time) Load {
	rif := max(s.rif.Load(), 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.size > finishesKept && now.Sub(s.ring[s.oldest()].at) > finishesLive {
		s.forget()
	}
	l := Load{RIF: int(rif)}
	switch {
	case s.size == 0:
	case s.Estimator == Median:
		l.Latency = s.median(rif)
	default:
		l.Latency = time.Duration(float64(s.took) / float64(s.met) * float64(rif+1))
	}
	return l
}

// median is that of the samples that met about rif requests.
func (s *ServerLoad) median(rif int64) time.Duration {
	// The nearest so far, the farthest last; later ones win ties, as they are fresher.
	var near [nearest]finish
	n := 0
	for k := range s.size {
		f := s.ring[(s.oldest()+k)%finishes]
		i := n
		if n < nearest {
			n++
		} else if i--; far(f, rif) > far(near[i], rif) {
			continue
		}
		for ; i > 0 && far(f, rif) <= far(near[i-1], rif); i-- {
			near[i] = near[i-1]
		}
		near[i] = f
	}
	slices.SortFunc(near[:n], func(a, b finish) int { return cmp.Compare(a.took, b.took) })
	return near[n/2].took
}

func far(f finish, rif int64) int64 { return max(f.met-rif, rif-f.met) }

func (s *ServerLoad) oldest() int { return (s.head - s.size + finishes) % finishes }

func (s *ServerLoad) forget() {
	f := &s.ring[s.oldest()]
	s.took -= f.took
	s.met -= f.met
	s.size--
}
