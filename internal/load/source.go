package load

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

// source is one stream of arrivals and the targets to which its calls go. It is used by one goroutine.
type source struct {
	pacer   *pacer
	replay  *replay // nil = the pacer and the targets make the calls
	streams []*stream
	picks   *rand.Rand // draws one of several streams, by weight
	total   float64    // of their weights
}

// stream is the state of one target.
type stream struct {
	Target
	index    int
	random   *rand.Rand
	inFlight atomic.Int64
}

// sources gives every target a source of its own or, when the plan says so, those that generate their calls one together.
func (g *Generator) sources() []*source {
	var all []*source
	var shared *source
	p := &g.plan
	together := p.PerSecond > 0 || len(p.Stages) > 0
	for i, s := range g.streams {
		switch {
		case s.Replay != nil:
			all = append(all, &source{streams: []*stream{s}, replay: newReplay(*s.Replay)})
		case !together:
			all = append(all, &source{streams: []*stream{s}, pacer: newPacer(p.Arrivals, s.PerSecond, nil, p.Burst, p.Seed, uint64(i))})
		case shared == nil:
			shared = &source{
				pacer: newPacer(p.Arrivals, p.PerSecond, p.Stages, p.Burst, p.Seed, 0),
				picks: rand.New(rand.NewPCG(p.Seed, 1<<32)),
			}
			all = append(all, shared)
			fallthrough
		default:
			shared.streams = append(shared.streams, s)
			shared.total += s.Weight
		}
	}
	return all
}

// due is when the next call is, after the start; io.EOF when there is none. skipped is how many of a recording before it
// are not sent.
func (s *source) due() (after time.Duration, skipped uint64, err error) {
	if s.replay == nil {
		return s.pacer.next(), 0, nil
	}
	return s.replay.next()
}

// pick draws the target of the call that is due.
func (s *source) pick() *stream {
	last := s.streams[len(s.streams)-1]
	if len(s.streams) == 1 {
		return last
	}
	x := s.picks.Float64() * s.total
	for _, stream := range s.streams {
		if x < stream.Weight {
			return stream
		}
		x -= stream.Weight
	}
	return last
}

// request makes the call that is due.
func (s *source) request(to *stream) (*http.Request, error) {
	if s.replay != nil {
		return s.replay.request()
	}
	if to.Request != nil {
		return to.Request(to.random)
	}
	return http.NewRequest(to.Method, to.URL(to.random), nil) //nolint:noctx // call gives it the call's context
}
