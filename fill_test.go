package longpole_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

var keyed = call.Info{Route: "orders", Idempotent: true, Key: "GET /orders"}

// ask makes one keyed call and returns its answer's text, its cache state and its error.
func ask(ctx context.Context, p *longpole.Policy, s *script) (string, call.CacheState, error) {
	var rec call.Record
	r, err := longpole.Do(ctx, p, keyed, &rec, storing{s})
	if err != nil {
		return "", rec.Cache, err
	}
	r.close()
	return r.value, rec.Cache, nil
}

func wantAnswer(t *testing.T, ctx context.Context, p *longpole.Policy, s *script, value string, state call.CacheState) {
	t.Helper()
	if v, st, err := ask(ctx, p, s); v != value || st != state || err != nil {
		t.Errorf("%q, %v, %v; want %q, %v", v, st, err, value, state)
	}
}

func TestAThousandConcurrentMissesAreOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := &script{storable: true, steps: []step{ok10}}
		var states [8]atomic.Int64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				v, state, err := ask(t.Context(), p, s)
				if v != "answer 1" || err != nil {
					t.Error(v, err)
				}
				states[state].Add(1)
			})
		}
		wg.Wait()
		if s.tries() != 1 || states[call.Miss].Load() != 1 || states[call.Coalesced].Load() != 999 {
			t.Errorf("%d tries, %d misses, %d coalesced", s.tries(), states[call.Miss].Load(), states[call.Coalesced].Load())
		}
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Hit)
	})
}

func TestFollowersDoNotDependOnTheLeadersCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, Cache: &cache.Config{}})
		s := &script{storable: true, steps: []step{{took: 100 * ms}}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			if d := took(func() { _, _, err = ask(ctx, p, s) }); d != 30*ms || longpole.Class(err) != call.Canceled {
				t.Error("the leader:", d, err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if d := took(func() { wantAnswer(t, t.Context(), p, s, "answer 1", call.Coalesced) }); d != 100*ms {
				t.Error("the follower took", d)
			}
		})
		time.Sleep(30 * ms)
		cancel()
		wg.Wait()
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Hit)
		if s.tries() != 1 {
			t.Error(s.tries(), "tries")
		}
	})
}

func TestAFollowerMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := &script{storable: true, steps: []step{{took: 100 * ms}}}
		var wg sync.WaitGroup
		wg.Go(func() { wantAnswer(t, t.Context(), p, s, "answer 1", call.Miss) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
		defer cancel()
		if _, state, err := ask(ctx, p, s); longpole.Class(err) != call.Timeout || state != call.Coalesced {
			t.Error(state, err)
		}
		wg.Wait()
	})
}

func TestAFetchIsBoundedWhenItsCallerIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(ms, cancel)
		ask(ctx, p, &script{storable: true, steps: []step{hang}})
		time.Sleep(31 * time.Second)
		wantAnswer(t, t.Context(), p, &script{storable: true, steps: []step{ok10}}, "answer 1", call.Miss)
	})
}

func TestTheTimeoutEndsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: 100 * ms, Cache: &cache.Config{}})
		var err error
		d := took(func() { _, _, err = ask(t.Context(), p, &script{storable: true, steps: []step{hang}}) })
		if d != 100*ms || longpole.Class(err) != call.Timeout || !errors.Is(err, longpole.ErrDeadline) {
			t.Error(d, err)
		}
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Second, StaleWhileRevalidate: time.Minute}})
		s := &script{storable: true, steps: []step{{took: 100 * ms}}}
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Miss)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			if d := took(func() { wantAnswer(t, ctx, p, s, "answer 1", call.Stale) }); d != 0 {
				t.Error("a stale answer took", d)
			}
		}
		cancel() // the refresh belongs to nobody
		time.Sleep(200 * ms)
		if s.tries() != 2 {
			t.Error(s.tries(), "tries")
		}
		wantAnswer(t, t.Context(), p, s, "answer 2", call.Hit)
	})
}

func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Second, StaleIfError: time.Minute}})
		fail := step{took: 100 * ms, out: call.Outcome{Class: call.Server}}
		failAnswered := step{took: 100 * ms, out: call.Outcome{Class: call.Server}, answered: true}
		s := &script{storable: true, steps: []step{ok10, fail, failAnswered, ok10}}
		wantAnswer(t, t.Context(), p, s, "answer 1", call.Miss)
		for range 2 {
			time.Sleep(2 * time.Second)
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { wantAnswer(t, t.Context(), p, s, "answer 1", call.Stale) })
			}
			wg.Wait()
		}
		if s.tries() != 3 || len(s.dropped()) != 1 {
			t.Error(s.tries(), "tries", len(s.dropped()), "discarded")
		}
		wantAnswer(t, t.Context(), p, s, "answer 4", call.Miss)
		time.Sleep(2 * time.Minute)
		s = &script{storable: true, steps: []step{fail}}
		if _, _, err := ask(t.Context(), p, s); longpole.Class(err) != call.Server {
			t.Error("too old, and yet used:", err)
		}
	})
}

// A failure is not kept, and does not put those who waited for it in a row.
func TestFollowersOfAFailureFetchForThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := &script{storable: true, steps: []step{{took: 100 * ms, out: call.Outcome{Class: call.Server}}, {took: 100 * ms}}}
		var failed atomic.Int64
		var wg sync.WaitGroup
		d := took(func() {
			for range 10 {
				wg.Go(func() {
					if _, _, err := ask(t.Context(), p, s); err != nil {
						failed.Add(1)
					}
				})
			}
			wg.Wait()
		})
		if d != 200*ms || failed.Load() != 1 || s.tries() != 10 {
			t.Error(d, failed.Load(), s.tries())
		}
	})
}

func TestWhatMayNotBeKeptDoesNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := &script{steps: []step{{took: 100 * ms}}}
		for round, want := range []time.Duration{200 * ms, 100 * ms, 100 * ms} {
			var wg sync.WaitGroup
			d := took(func() {
				for range 10 {
					wg.Go(func() {
						if _, state, err := ask(t.Context(), p, s); state != call.Miss || err != nil {
							t.Error(state, err)
						}
					})
				}
				wg.Wait()
			})
			if d != want {
				t.Errorf("round %d took %v, want %v", round, d, want)
			}
		}
	})
}

func TestAnAnswerThatIsNotKeptIsStillReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Second, Cache: &cache.Config{}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := longpole.Do(ctx, p, keyed, nil, storing{&script{steps: []step{ok10}}})
		if err != nil || !r.readable() {
			t.Fatal(err)
		}
		time.Sleep(500 * ms)
		if !r.readable() {
			t.Error("the body ended early")
		}
		cancel()
		synctest.Wait()
		if r.readable() {
			t.Error("the body does not end with its caller")
		}
		r.close()
	})
}

func TestAnAnswerForACallerThatLeftIsDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Minute, Cache: &cache.Config{}})
		s := &script{steps: []step{{took: 100 * ms}}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
		defer cancel()
		ask(ctx, p, s)
		time.Sleep(time.Second)
		if len(s.dropped()) != 1 {
			t.Error(s.diagram())
		}
	})
}

func TestClientsThatLeaveCannotPileUpFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Minute, Cache: &cache.Config{TTL: time.Hour}})
		s := &script{quiet: true, storable: true, steps: []step{{took: 30 * time.Second}}}
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), ms)
				defer cancel()
				longpole.Do(ctx, p, call.Info{Idempotent: true, Key: fmt.Sprint(i)}, nil, storing{s})
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		kept := 0
		for i := range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), ms)
			if _, err := longpole.Do(ctx, p, call.Info{Idempotent: true, Key: fmt.Sprint(i)}, nil, storing{s}); err == nil {
				kept++
			}
			cancel()
		}
		if kept != 256 {
			t.Errorf("%d fetches went on without a caller, want 256", kept)
		}
	})
}

func TestNoKeyNoCache(t *testing.T) {
	p := policy(t, longpole.Config{Cache: &cache.Config{}})
	s := &script{storable: true, steps: []step{{}}}
	for range 3 {
		var rec call.Record
		if _, err := longpole.Do(t.Context(), p, idem, &rec, storing{s}); err != nil || rec.Cache != call.Uncached {
			t.Error(rec.Cache, err)
		}
		// A Work that cannot be stored is not cached either.
		if _, err := longpole.Do(t.Context(), p, keyed, &rec, s); err != nil || rec.Cache != call.Uncached {
			t.Error(rec.Cache, err)
		}
	}
	if s.tries() != 6 {
		t.Error(s.tries())
	}
}

// Close ends what runs for nobody, and costs no call its answer.
func TestCloseFailsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := &script{storable: true, steps: []step{{took: 100 * ms}}}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, _, err := ask(t.Context(), p, s); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(50 * ms)
		if d := took(p.Close); d != 0 {
			t.Error("Close took", d)
		}
		wg.Wait()
		if _, state, err := ask(t.Context(), p, s); state != call.Miss || err != nil {
			t.Error("after Close:", state, err)
		}
	})
}

func TestTheRecordIsNotTouchedAfterDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Minute, Cache: &cache.Config{}})
		ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
		defer cancel()
		var rec call.Record
		longpole.Do(ctx, p, keyed, &rec, storing{&script{storable: true, steps: []step{{took: 100 * ms}}}})
		before := rec // the race detector sees a write from elsewhere
		time.Sleep(time.Second)
		if fmt.Sprint(before) != fmt.Sprint(rec) || rec.Class != call.Timeout || rec.Count != 0 {
			t.Errorf("%+v", rec)
		}
	})
}
