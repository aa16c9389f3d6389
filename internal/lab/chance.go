package lab

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Lognormal is a distribution of working times, given by two of its quantiles. Times of work that is a product of
// many small factors are lognormal: a hard floor, a plain median, a long right tail.
type Lognormal struct{ Median, P99 time.Duration }

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// At is the value that lies z standard deviations of the logarithm above the median.
func (l Lognormal) At(z float64) time.Duration {
	if l.Median <= 0 {
		return 0
	}
	sigma := math.Log(float64(l.P99)/float64(l.Median)) / z99
	return time.Duration(float64(l.Median) * math.Exp(sigma*z))
}

// source is a seeded random source that many calls may draw from at once.
type source struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func newSource(seed uint64, instance string) *source {
	h := fnv.New64a()
	h.Write([]byte(instance)) // a hash never fails to write
	return &source{rand: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

func (s *source) draw(l Lognormal) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.At(s.rand.NormFloat64())
}

// between is uniform in [low, high).
func (s *source) between(low, high time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return low + time.Duration(s.rand.Float64()*float64(high-low))
}

func (s *source) chance(ratio float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.Float64() < ratio
}
