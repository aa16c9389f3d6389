package longpole_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/retry"
)

// lognormal is a dependency whose latency is lognormal with mean 5 ms and deviation 2 ms; 5 % of the answers take ten
// times as long. Nothing queues. It is the model of the published hedging tables.
type lognormal struct {
	mu    sync.Mutex
	rand  *rand.Rand
	tries int
}

func (l *lognormal) draw() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries++
	s := math.Sqrt(math.Log(1 + 0.4*0.4))
	v := math.Exp(math.Log(5) - s*s/2 + s*l.rand.NormFloat64())
	if l.rand.Float64() < 0.05 {
		v *= 10
	}
	return time.Duration(v * float64(ms))
}

func (l *lognormal) tried() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tries
}

func (l *lognormal) Try(ctx context.Context, _ longpole.Attempt) (struct{}, error) {
	t := time.NewTimer(l.draw())
	defer t.Stop()
	select {
	case <-t.C:
		return struct{}{}, nil
	case <-ctx.Done():
		return struct{}{}, ctx.Err()
	}
}

func (l *lognormal) Judge(_ struct{}, err error) (out call.Outcome) {
	if err != nil {
		out.Class = call.Server
	}
	return out
}
func (l *lognormal) Discard(struct{}) {}
func (l *lognormal) Hold(r struct{}, release func()) struct{} {
	release()
	return r
}

// simulate makes calls from 20 workers, each as soon as its last one ended, and returns p50, p99, p99.9 and the share
// of extra attempts, all after the first seconds in which the policy learns.
func simulate(t *testing.T, h *retry.Hedge, calls int) (p50, p99, p999 time.Duration, extra float64) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Retry: &retry.Config{Hedge: h}}, "a", "b", "c")
		l := &lognormal{rand: rand.New(rand.NewPCG(7, 11))}
		var mu sync.Mutex
		var measured []time.Duration
		warm, before := calls/5, 0
		made := 0
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for {
					mu.Lock()
					if made++; made == warm {
						before = l.tried()
					}
					counts, end := made > warm, made > warm+calls
					mu.Unlock()
					if end {
						return
					}
					d := took(func() { longpole.Do(t.Context(), p, idem, nil, l) })
					if counts {
						mu.Lock()
						measured = append(measured, d)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		slices.Sort(measured)
		p50, p99, p999 = stats.ExactQuantile(measured, 0.5), stats.ExactQuantile(measured, 0.99), stats.ExactQuantile(measured, 0.999)
		extra = float64(l.tried()-before)/float64(len(measured)) - 1
	})
	return p50, p99, p999, extra
}

// The hedging table, with the real code in virtual time: without hedging p99 is 64 ms; with the delay that the policy
// finds by itself it is at most 17.5 ms, for at most 7.5 % more attempts.
func TestHedgingCutsTheTail(t *testing.T) {
	const calls = 40_000
	p50, p99, p999, extra := simulate(t, nil, calls)
	t.Logf("no hedge:         p50 %v p99 %v p99.9 %v, %.1f %% extra", p50, p99, p999, 100*extra)
	if p99 < 60*ms || p99 > 68*ms || extra > 0.001 {
		t.Error("the model is not the published one")
	}
	p50, p99, p999, extra = simulate(t, &retry.Hedge{BudgetRatio: 0.08}, calls)
	t.Logf("hedge, 8 %% budget: p50 %v p99 %v p99.9 %v, %.1f %% extra", p50, p99, p999, 100*extra)
	if p99 > 17500*time.Microsecond || extra > 0.075 {
		t.Error("want p99 <= 17.5ms at <= 7.5 % extra")
	}
}
