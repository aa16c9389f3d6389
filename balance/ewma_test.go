package balance

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// line is calls in flight by the time at which they end.
type line []ending

type ending struct {
	at   time.Duration
	e    *Endpoint
	took time.Duration
	out  call.Outcome
}

func before(a, b ending) bool { return a.at < b.at }

// drive sends calls to b with exponential gaps for span; serve says how each ends. It returns the outcomes.
func drive(b *Balancer, r *rand.Rand, qps float64, span time.Duration, serve func(at time.Duration, e *Endpoint) call.Outcome) []ending {
	var flying line
	var all []ending
	for at := time.Duration(0); at < span; at += time.Duration(r.ExpFloat64() / qps * 1e9) {
		for len(flying) > 0 && flying[0].at <= at {
			x := flying[0]
			flying = pop(flying, 0, before)
			b.Done(x.e, t0.Add(x.at), x.out)
		}
		e, err := b.Pick(t0.Add(at), nil)
		if err != nil {
			all = append(all, ending{at: at, out: call.Outcome{Class: call.Shed}})
			continue
		}
		out := serve(at, e)
		x := ending{at: at + out.Latency, e: e, took: out.Latency, out: out}
		flying = push(flying, x, before)
		all = append(all, ending{at: at, e: e, took: out.Latency, out: out})
	}
	for _, x := range flying {
		b.Done(x.e, t0.Add(x.at), x.out)
	}
	return all
}

func seeded(c Config, seed uint64, names ...string) (*Balancer, *rand.Rand) {
	r := rand.New(rand.NewPCG(seed, 2))
	b := New(c, NewSet(names...))
	b.rand = r.Uint64
	return b, r
}

var eleven = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}

// Buoyant's comparison of Finagle's balancers (2016): 11 backends that take N(167 ms, 5), 1000 calls a second for a
// minute, of which one backend takes 2 s for the middle half; a call succeeds within 1 s.
func withinASecond(c Config, seed uint64) float64 {
	b, r := seeded(c, seed, eleven...)
	all := drive(b, r, 1000, time.Minute, func(at time.Duration, e *Endpoint) call.Outcome {
		if e.Name() == "a" && at >= 15*time.Second && at < 45*time.Second {
			return call.Outcome{Latency: 2 * time.Second}
		}
		return call.Outcome{Latency: time.Duration((167 + 5*r.NormFloat64()) * 1e6)}
	})
	good := 0
	for _, x := range all {
		if x.took <= time.Second {
			good++
		}
	}
	return float64(good) / float64(len(all))
}

func TestPeakEWMAAvoidsTheSlowBackend(t *testing.T) {
	for seed := range uint64(span(3, 1)) {
		rr, p2c, peak := withinASecond(Config{Algorithm: RoundRobin}, seed), withinASecond(Config{}, seed), withinASecond(Config{Algorithm: PeakEWMA}, seed)
		t.Logf("within 1 s: round robin %.2f %%, p2c %.2f %%, peak ewma %.3f %%", 100*rr, 100*p2c, 100*peak)
		if rr < 0.945 || rr > 0.965 || p2c < 0.985 || peak < 0.999 {
			t.Errorf("seed %d: round robin %.4f, p2c %.4f, peak ewma %.4f", seed, rr, p2c, peak)
		}
		eject := withinASecond(Config{Algorithm: RoundRobin, Eject: &Eject{}}, seed)
		t.Logf("round robin with ejection %.3f %%", 100*eject)
		if eject < 0.985 {
			t.Errorf("seed %d: round robin with ejection %.4f", seed, eject)
		}
	}
}
