package cache

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

var t0 = time.Unix(1_700_000_000, 0)

type text string

func (t text) Size() int64 { return int64(len(t)) }

// exact is a cache without chance: whatever it draws is 0, so nothing is cut by Jitter or refreshed early.
func exact(cfg Config) *Cache {
	c := New(cfg)
	c.rand = func() float64 { return 0 }
	return c
}

func fill(t *testing.T, c *Cache, now time.Time, key string, v Value) {
	t.Helper()
	r := c.Lookup(now, key)
	if !r.Lead {
		t.Fatalf("%q: %v, want the lead", key, r.State)
	}
	c.Fill(now, r.Flight, v, 0)
}

func want(t *testing.T, c *Cache, now time.Time, key string, state call.CacheState, v Value, lead bool) Result {
	t.Helper()
	r := c.Lookup(now, key)
	if r.State != state || r.Value != v || r.Lead != lead {
		t.Fatalf("%v after: %v value %v lead %v; want %v value %v lead %v", now.Sub(t0), r.State, r.Value, r.Lead, state, v, lead)
	}
	return r
}

func TestAnAnswerIsFreshForItsTime(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	fill(t, c, t0, "k", text("v"))
	want(t, c, t0, "k", call.Hit, text("v"), false)
	want(t, c, t0.Add(10*time.Second-1), "k", call.Hit, text("v"), false)
	r := want(t, c, t0.Add(10*time.Second), "k", call.Miss, nil, true)
	c.Fill(t0.Add(10*time.Second), r.Flight, text("w"), time.Minute)
	want(t, c, t0.Add(70*time.Second-1), "k", call.Hit, text("w"), false)
	want(t, c, t0.Add(70*time.Second), "k", call.Miss, nil, true)
}

func TestStaleWhileOneRefreshes(t *testing.T) {
	c := exact(Config{StaleWhileRevalidate: 20 * time.Second})
	defer c.Close()
	fill(t, c, t0, "k", text("v"))
	at := t0.Add(15 * time.Second)
	r := want(t, c, at, "k", call.Stale, text("v"), true)
	want(t, c, at, "k", call.Stale, text("v"), false) // one refresh at a time
	c.Refuse(at, r.Flight, errors.New("down"))
	r = want(t, c, at, "k", call.Stale, text("v"), true) // a failed one is tried again, and poisons nothing
	c.Fill(at, r.Flight, text("w"), 0)
	want(t, c, at, "k", call.Hit, text("w"), false)
	want(t, c, at.Add(30*time.Second), "k", call.Miss, nil, true)
}

func TestStaleIfErrorIsOffered(t *testing.T) {
	c := exact(Config{StaleIfError: time.Minute})
	defer c.Close()
	fill(t, c, t0, "k", text("v"))
	at := t0.Add(69 * time.Second)
	lead := want(t, c, at, "k", call.Miss, text("v"), true)
	follower := want(t, c, at, "k", call.Coalesced, text("v"), false)
	c.Refuse(at, lead.Flight, errors.New("down"))
	<-follower.Flight.Done()
	if _, err := follower.Flight.Value(); err == nil {
		t.Error("no error")
	}
	want(t, c, t0.Add(70*time.Second), "k", call.Miss, nil, true)
}

func TestAThousandMissesAreOneFetch(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	var fetched, same atomic.Int64
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			r := c.Lookup(t0, "k")
			switch {
			case r.Lead:
				fetched.Add(1)
				c.Fill(t0, r.Flight, text("v"), 0)
				same.Add(1)
			case r.State == call.Coalesced:
				<-r.Flight.Done()
				if v, err := r.Flight.Value(); err == nil && v == text("v") {
					same.Add(1)
				}
			case r.State == call.Hit && r.Value == text("v"):
				same.Add(1)
			}
		})
	}
	wg.Wait()
	if fetched.Load() != 1 || same.Load() != 1000 {
		t.Errorf("%d fetches, %d good answers; want 1 and 1000", fetched.Load(), same.Load())
	}
}

func TestAFailedFetchLeavesNoTrace(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	r := c.Lookup(t0, "k")
	c.Refuse(t0, r.Flight, errors.New("down"))
	want(t, c, t0, "k", call.Miss, nil, true)
	want(t, c, t0, "k", call.Coalesced, nil, false)
}

func TestWhatMayNotBeStoredDoesNotQueue(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	r := c.Lookup(t0, "k")
	c.Refuse(t0, r.Flight, ErrNotStorable)
	a := want(t, c, t0, "k", call.Miss, nil, true)
	b := want(t, c, t0, "k", call.Miss, nil, true)
	if a.Flight == b.Flight {
		t.Fatal("two calls on one flight")
	}
	c.Refuse(t0, a.Flight, ErrNotStorable)
	c.Fill(t0, b.Flight, text("v"), 0) // now it may
	want(t, c, t0, "k", call.Hit, text("v"), false)

	r = c.Lookup(t0, "q")
	c.Refuse(t0, r.Flight, nil)
	want(t, c, t0.Add(privateFor-1), "q", call.Miss, nil, true)
	want(t, c, t0.Add(privateFor), "q", call.Miss, nil, true)
	want(t, c, t0.Add(privateFor), "q", call.Coalesced, nil, false) // forgotten
}

func TestTheMemoryOfKeysIsBounded(t *testing.T) {
	var m memory
	for i := range 5 * generation {
		m.add(t0, fmt.Sprint(i))
		if n := len(m.young) + len(m.old); n > 2*generation {
			t.Fatal(n)
		}
		if !m.holds(t0, fmt.Sprint(max(0, i-generation+1))) {
			t.Fatal("forgot one of the latest", i)
		}
	}
}

func TestTheStoreIsBoundedByWeight(t *testing.T) {
	c := exact(Config{MaxBytes: 64 << 10})
	defer c.Close()
	for i := range 2000 {
		fill(t, c, t0, fmt.Sprint("key", i), text(make([]byte, 1000)))
	}
	if n := c.Bytes(); n > 64<<10 {
		t.Errorf("%d bytes, the bound is 64 KiB", n)
	}
	if len(c.flights) != 0 {
		t.Error(len(c.flights), "flights")
	}
	c.Reconfigure(Config{MaxBytes: 8 << 10})
	if n := c.Bytes(); n > 8<<10 {
		t.Errorf("%d bytes, the new bound is 8 KiB", n)
	}
}

func TestALargeAnswerIsSharedButNotKept(t *testing.T) {
	c := exact(Config{MaxEntryBytes: 10})
	defer c.Close()
	r := c.Lookup(t0, "k")
	follower := c.Lookup(t0, "k")
	c.Fill(t0, r.Flight, text("more than ten bytes"), 0)
	if v, err := follower.Flight.Value(); err != nil || v != text("more than ten bytes") {
		t.Error(v, err)
	}
	want(t, c, t0, "k", call.Miss, nil, true)
}

func TestReconfigureKeepsTheEntries(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	fill(t, c, t0, "k", text("v"))
	c.Reconfigure(Config{TTL: time.Second, StaleWhileRevalidate: time.Minute})
	want(t, c, t0.Add(9*time.Second), "k", call.Hit, text("v"), false)
	want(t, c, t0.Add(11*time.Second), "k", call.Stale, text("v"), true)
}

func TestAClosedCacheStaysUsable(t *testing.T) {
	c := exact(Config{})
	fill(t, c, t0, "k", text("v"))
	r := c.Lookup(t0, "q")
	c.Close()
	want(t, c, t0, "k", call.Miss, nil, true)
	c.Fill(t0, r.Flight, text("w"), 0)
	c.Close()
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{
		TTL: -1, StaleWhileRevalidate: -1, StaleIfError: -1, MaxBytes: -1, MaxEntryBytes: -1,
		NegativeTTL: -1, Jitter: 2, EarlyRefresh: 11, RefreshAhead: 2,
	}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 9 {
		t.Errorf("%v: want 9 faults", err)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	fill(t, c, t0, "k", text("v"))
	if n := testing.AllocsPerRun(1000, func() { c.Lookup(t0, "k") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
