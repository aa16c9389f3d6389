package longpole_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// chaos is a Work that does anything it may do, and keeps account of its answers.
type chaos struct {
	rand *rand.Rand // of its own, under mu

	mu       sync.Mutex
	alive    map[*answer]bool // given out by Try; neither held, kept nor discarded
	mistakes []string
}

func (c *chaos) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rand.IntN(n)
}

func (c *chaos) settle(r *answer, how string) {
	if r == nil || r.value == "kept" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.alive[r] {
		c.mistakes = append(c.mistakes, how+" of an answer that is settled")
	}
	delete(c.alive, r)
}

func (c *chaos) Try(ctx context.Context, a longpole.Attempt) (*answer, error) {
	if c.roll(4) == 0 {
		ctx = context.WithoutCancel(ctx)
	}
	timer := time.NewTimer(time.Duration(c.roll(5)) * 10 * ms) // coarse, so that both halves of a race often end at once
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r := &answer{number: a.Number, ctx: ctx, out: call.Outcome{Class: call.Class(c.roll(4))}}
	if c.roll(4) == 0 {
		return nil, failure{r.out}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive[r] = true
	return r, nil
}

func (c *chaos) Judge(r *answer, err error) call.Outcome {
	{
		var f failure
		switch {
		case err == nil:
			return r.out
		case errors.As(err, &f):
			return f.out
		}
	}
	return call.Outcome{Class: call.Server}
}

func (c *chaos) Discard(r *answer) { c.settle(r, "discard") }

func (c *chaos) Hold(r *answer, release func()) *answer {
	c.settle(r, "hold")
	r.release = release
	return r
}

func (c *chaos) Keep(r *answer, _ int64) (longpole.Kept[*answer], bool) {
	if c.roll(3) == 0 {
		return longpole.Kept[*answer]{Rest: r}, false
	}
	c.settle(r, "keep")
	return longpole.Kept[*answer]{Value: value("v"), Terms: cache.Terms{Fresh: time.Duration(c.roll(50)) * ms}}, true
}

func (c *chaos) Open(cache.Value, call.CacheState) *answer { return &answer{value: "kept"} }

func (c *chaos) Fallback(ctx context.Context, _ longpole.Fallback, _ call.Class, _ error) (*answer, error) {
	if c.roll(2) == 0 {
		return nil, longpole.ErrNoFallback
	}
	r := &answer{value: "spare", ctx: ctx}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive[r] = true
	return r, nil
}

// Whatever happens, and under whatever policy: each answer is held, kept or discarded exactly once, what the caller
// gets can be read, the record adds up, nothing stays in flight, and (as the bubble ends) no goroutine is left.
func TestEveryAnswerIsSettledExactlyOnce(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := &chaos{rand: rand.New(rand.NewPCG(seed, 2)), alive: map[*answer]bool{}}
			names := []string{"a", "b", "c"}[:1+r.IntN(3)]
			endpoints := balance.NewSet(names...)
			p, err := longpole.New(anyConfig(r), endpoints)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 200 {
				time.Sleep(time.Duration(r.IntN(5)) * ms)
				info := call.Info{Idempotent: r.IntN(4) > 0, Key: []string{"", "k", "q"}[r.IntN(3)]}
				patience := time.Duration(r.IntN(80)) * ms
				wg.Go(func() { chaosCall(t, p, w, info, patience) })
			}
			wg.Wait()
			p.Close()
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(w.alive) != 0 || len(w.mistakes) != 0 {
				t.Errorf("seed %d: %d answers forgotten, %v", seed, len(w.alive), w.mistakes)
			}
			if l := p.Limiter(); l != nil && (l.InFlight() != 0 || l.Queued() != 0) {
				t.Errorf("seed %d: %d permits and %d waiting", seed, l.InFlight(), l.Queued())
			}
			for _, e := range endpoints.Endpoints() {
				if e.InFlight() != 0 {
					t.Errorf("seed %d: %d in flight at %s", seed, e.InFlight(), e.Name())
				}
			}
		})
	}
}

func anyConfig(r *rand.Rand) (c longpole.Config) {
	on := func() bool { return r.IntN(3) > 0 }
	if on() {
		c.Timeout = 60 * ms
	}
	if on() {
		c.TryTimeout = 30 * ms
	}
	if on() {
		c.Cache = &cache.Config{TTL: 20 * ms, StaleWhileRevalidate: 10 * ms, StaleIfError: 30 * ms}
	}
	if on() {
		c.Retry = &retry.Config{MaxAttempts: 1 + r.IntN(10), BaseDelay: 5 * ms, MinPerSecond: 100}
		if on() {
			c.Retry.Hedge = &retry.Hedge{After: time.Duration(r.IntN(2)) * 10 * ms, BudgetRatio: 1}
		}
	}
	if on() {
		c.Breaker = &breaker.Config{MinCalls: 5, OpenFor: 20 * ms}
	}
	if on() {
		c.MinTry = 10 * ms
	}
	if on() {
		c.Limit = &limit.Config{Algorithm: limit.Fixed, Limit: 4, Max: 4}
		if on() {
			c.Limit.Queue = &limit.Queue{Length: 5}
		}
	}
	if on() {
		c.Fallback = &longpole.Fallback{Timeout: 5 * ms}
	}
	return c
}

func chaosCall(t *testing.T, p *longpole.Policy, w *chaos, info call.Info, patience time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var rec call.Record
	r, err := longpole.Do(ctx, p, info, &rec, w)
	if rec.Class != longpole.Class(err) && err != nil {
		t.Errorf("the record says %v, the error %v", rec.Class, err)
	}
	won := 0
	for _, a := range rec.Kept() {
		if a.Won {
			won++
		}
		if a.Latency < 0 || a.Start+a.Latency > rec.Latency {
			t.Errorf("attempt %+v in a call of %v", a, rec.Latency)
		}
	}
	if won > 1 || err != nil && won > 0 || !info.Idempotent && info.Key == "" && rec.Cache != call.Uncached {
		t.Errorf("%d attempts won: %+v, %v", won, rec, err)
	}
	if err == nil {
		r.release()
	}
}
