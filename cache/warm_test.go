package cache

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"pgregory.net/rapid"
)

func due(t *testing.T, c *Cache, now time.Time, n int, keys ...string) (flights []*Flight, next time.Time) {
	t.Helper()
	flights, next = c.Due(now, n)
	var got []string
	for _, f := range flights {
		got = append(got, f.Key())
	}
	if fmt.Sprint(got) != fmt.Sprint(keys) {
		t.Fatalf("%v after: due %v, want %v", now.Sub(t0), got, keys)
	}
	return flights, next
}

func TestWarmKeysAreFetchedBeforeAnyoneMisses(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	if f, next := c.Due(t0, 10); f != nil || !next.IsZero() {
		t.Fatal("due without a list", f, next)
	}
	c.Warm([]string{"a", "b", "a", "c"})
	first, next := due(t, c, t0, 2, "a", "b")
	if !next.Equal(t0) {
		t.Error("more is due, ask at once:", next)
	}
	rest, _ := due(t, c, t0, 2, "c") // a and b are being fetched
	for _, f := range append(first, rest...) {
		c.Fill(t0, f, text("v"), 0)
	}
	_, next = due(t, c, t0, 10)
	if want := t0.Add(8 * time.Second); !next.Equal(want) {
		t.Errorf("next at %v, want when 20 %% of 10 s is left", next.Sub(t0))
	}
	due(t, c, next.Add(-1), 10)
	again, _ := due(t, c, next, 10, "a", "b", "c")
	want(t, c, next, "a", call.Hit, text("v"), false) // calls see nothing of it
	c.Fill(next, again[0], text("w"), 0)
	want(t, c, next.Add(10*time.Second-1), "a", call.Hit, text("w"), false)
}

func TestAWarmKeyThatFailsIsAskedLessOften(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	c.Warm([]string{"a"})
	now := t0
	for _, pause := range []time.Duration{500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000} {
		f, _ := due(t, c, now, 1, "a")
		c.Refuse(now, f[0], errors.New("down"))
		_, next := due(t, c, now, 1)
		if got := next.Sub(now); got != pause*time.Millisecond {
			t.Fatalf("asked again after %v, want %v", got, pause*time.Millisecond)
		}
		now = next
	}
	f, _ := due(t, c, now, 1, "a")
	c.Fill(now, f[0], text("v"), 0)
	f, _ = due(t, c, now.Add(9*time.Second), 1, "a")
	c.Refuse(now.Add(9*time.Second), f[0], errors.New("down"))
	if _, next := c.Due(now.Add(9*time.Second), 1); next.Sub(now) > 9500*time.Millisecond {
		t.Error("a success did not forget the failures:", next.Sub(now))
	}
}

func TestACallsOwnFetchMakesAWarmKeyFresh(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	c.Warm([]string{"a"})
	r := c.Lookup(t0, "a")
	due(t, c, t0, 1)
	c.Fill(t0, r.Flight, text("v"), 0)
	due(t, c, t0, 1)
	due(t, c, t0.Add(8*time.Second), 1, "a")
}

func TestTheWarmListIsBoundedAndReplaced(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	many := make([]string, maxWarm+10)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	c.Warm(many)
	if n := len(c.warm.keys); n != maxWarm {
		t.Error(n, "keys")
	}
	c.Warm([]string{"z"})
	due(t, c, t0, 10, "z")
	c.Warm(nil)
	if f, next := c.Due(t0, 1); f != nil || !next.IsZero() {
		t.Error(f, next)
	}
}

// Whoever follows next, never later, never lets a key expire while its fetches take less than what is left of its time.
func TestWhoFollowsNextNeverLetsAWarmKeyExpire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := exact(Config{TTL: 10 * time.Second, Jitter: 0.3})
		defer c.Close()
		draw := rapid.Float64Range(0, 0.999)
		c.rand = func() float64 { return draw.Draw(t, "rand") }
		keys := []string{"a", "b", "c"}
		c.Warm(keys)
		now := t0
		for range 40 {
			flights, next := c.Due(now, 2)
			for _, f := range flights {
				c.Fill(now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "took"))*time.Millisecond), f, text("v"), 0)
			}
			if len(flights) > 0 {
				continue // ask again at once, as next says
			}
			if !next.After(now) {
				t.Fatal("next is now, and nothing is due")
			}
			for _, k := range keys {
				if r := c.Lookup(next, k); r.State != call.Hit {
					t.Fatalf("%q: %v when it was to be asked again", k, r.State)
				}
			}
			now = next
		}
	})
}

func TestWarmingAndCallsAtOnceFetchEachKeyOnce(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	c.Warm(keys)
	var fetched atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				flights, _ := c.Due(t0, 7)
				for _, f := range flights {
					fetched.Add(1)
					c.Fill(t0, f, text("v"), 0)
				}
			}
		})
		wg.Go(func() {
			for _, k := range keys {
				if r := c.Lookup(t0, k); r.Lead {
					fetched.Add(1)
					c.Fill(t0, r.Flight, text("v"), 0)
				}
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 100 {
		t.Errorf("%d fetches of 100 keys", n)
	}
}
