package longpole_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

// shared is a tier of several processes.
type shared struct {
	mu   sync.Mutex
	has  map[string]cache.Stored
	down bool
	slow time.Duration
	late time.Duration // of Set
	told int           // orders to drop
}

func (s *shared) Get(ctx context.Context, key string) (cache.Stored, error) {
	select {
	case <-time.After(s.slow):
	case <-ctx.Done():
		return cache.Stored{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.has[key]; ok && !s.down {
		return v, nil
	}
	return cache.Stored{}, cache.ErrNotFound
}

func (s *shared) Set(_ context.Context, key string, v cache.Stored) error {
	time.Sleep(s.late)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errFake
	}
	s.has[key] = v
	return nil
}

func (s *shared) Delete(_ context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errFake
	}
	s.told++
	for _, key := range keys {
		delete(s.has, key)
	}
	return nil
}

// portable is a storing whose values can travel.
type portable struct{ storing }

func (portable) Pack(v cache.Value) ([]byte, error) { return []byte(v.(value)), nil }
func (portable) Unpack(data []byte) (cache.Value, error) {
	if len(data) == 0 {
		return nil, errFake
	}
	return value(data), nil
}

func (s portable) ask(t *testing.T, p *longpole.Policy) (string, call.CacheState) {
	t.Helper()
	var rec call.Record
	r, err := longpole.Do(t.Context(), p, keyed, &rec, s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	return r.value, rec.Cache
}

func TestWhatOneProcessFetchedAnotherNeedsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier := &shared{has: map[string]cache.Stored{}}
		s := portable{storing{&script{storable: true, steps: []step{ok10}}}}
		process := func() *longpole.Policy {
			p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Minute, Shared: true}})
			p.SetTier(tier)
			return p
		}
		one, two, three := process(), process(), process()
		for _, p := range []*longpole.Policy{one, two} {
			if v, _ := s.ask(t, p); v != "answer 1" {
				t.Error(v)
			}
			synctest.Wait()
		}
		if got := tier.has[keyed.Key]; got.Took != 10*ms || time.Until(got.Until) != time.Minute {
			t.Errorf("%+v", got)
		}
		if v, state := s.ask(t, two); v != "answer 1" || state != call.Hit {
			t.Error(v, state)
		}
		// Too old, broken or slow: as if there were none.
		time.Sleep(2 * time.Minute)
		if v, _ := s.ask(t, three); v != "answer 2" {
			t.Error(v)
		}
		synctest.Wait()
		tier.has[keyed.Key] = cache.Stored{Until: time.Now().Add(time.Hour)}
		if v, _ := s.ask(t, process()); v != "answer 3" {
			t.Error(v)
		}
		synctest.Wait()
		tier.down, tier.slow = true, time.Hour
		if d := took(func() { s.ask(t, process()) }); d != 60*ms {
			t.Error("a tier that is down costs", d-10*ms)
		}
	})
}

// TestAnInvalidationIsNotUndoneByWhatIsBeingTold has a key invalidated after its answer was kept, and before the tier has
// heard of it: what is then told is from before the change.
func TestAnInvalidationIsNotUndoneByWhatIsBeingTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier := &shared{has: map[string]cache.Stored{}, late: 100 * ms}
		s := portable{storing{&script{storable: true, steps: []step{ok10}}}}
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Minute, Shared: true}})
		p.SetTier(tier)
		s.ask(t, p)
		time.Sleep(50 * ms)
		p.Invalidate(t.Context(), keyed.Key)
		time.Sleep(time.Second)
		synctest.Wait()
		if got, there := tier.has[keyed.Key]; there {
			t.Errorf("the tier still has %q", got.Data)
		}
		if v, _ := s.ask(t, p); v != "answer 2" {
			t.Error(v)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := string(tier.has[keyed.Key].Data); got != "answer 2" {
			t.Errorf("the tier has %q", got)
		}
	})
}

func TestATierThatPoliciesShareIsToldOnceOfAnInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tier, own := &shared{has: map[string]cache.Stored{}}, &shared{has: map[string]cache.Stored{}}
		s := portable{storing{&script{storable: true, steps: []step{ok10}}}}
		drops := map[*longpole.Policy][]string{policy(t, longpole.Config{}): {keyed.Key}}
		for i := range 5 {
			p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Minute, Shared: true}})
			p.SetTier(tier)
			if i == 4 {
				p.SetTier(own)
			}
			s.ask(t, p)
			synctest.Wait()
			drops[p] = []string{keyed.Key}
		}
		longpole.Invalidate(t.Context(), drops)
		if tier.told != 1 || own.told != 1 || len(tier.has)+len(own.has) > 0 {
			t.Errorf("told %d and %d times, %d answers are left", tier.told, own.told, len(tier.has)+len(own.has))
		}
		for p := range drops {
			if p.Kept(keyed.Key) != nil {
				t.Error("a policy still has it")
			}
		}
	})
}

func TestWarmKeysNeverMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: 10 * time.Second}})
		s := storing{&script{storable: true, quiet: true, steps: []step{ok10}}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- longpole.Warm(ctx, p, []string{keyed.Key}, func(string) (call.Info, longpole.Storable[*answer]) { return idem, s })
		}()
		for range 100 {
			time.Sleep(time.Second)
			if _, state, err := ask(t.Context(), p, s.script); state != call.Hit || err != nil {
				t.Fatal(state, err)
			}
		}
		if n := s.tries(); n < 10 || n > 14 {
			t.Errorf("%d fetches in 100s for a TTL of 10s", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := longpole.Warm(t.Context(), policy(t, longpole.Config{}), nil, func(string) (call.Info, longpole.Storable[*answer]) { return idem, s }); err == nil {
			t.Error("no cache, no error")
		}
	})
}
