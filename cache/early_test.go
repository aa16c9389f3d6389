package cache

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// none is an answer that says that there is nothing.
type none struct{ text }

func (none) Negative() bool { return true }

// fetched fills key with an answer that took so long.
func fetched(t *testing.T, c *Cache, now time.Time, key string, v Value, took time.Duration) {
	t.Helper()
	r := c.Lookup(now.Add(-took), key)
	if !r.Lead {
		t.Fatalf("%q: %v, want the lead", key, r.State)
	}
	c.Fill(now, r.Flight, v, 0)
}

func TestWhatIsNotThereIsKeptBriefly(t *testing.T) {
	c := exact(Config{StaleWhileRevalidate: time.Hour, StaleIfError: time.Hour})
	defer c.Close()
	fill(t, c, t0, "k", none{"404"})
	want(t, c, t0.Add(time.Second-1), "k", call.Hit, none{"404"}, false)
	r := want(t, c, t0.Add(time.Second), "k", call.Miss, nil, true) // and never stale
	c.Fill(t0.Add(time.Second), r.Flight, none{"404"}, time.Minute) // unless it says itself for how long
	want(t, c, t0.Add(time.Minute), "k", call.Hit, none{"404"}, false)

	short := exact(Config{TTL: 100 * time.Millisecond})
	defer short.Close()
	fill(t, short, t0, "k", none{"404"})
	want(t, short, t0.Add(100*time.Millisecond), "k", call.Miss, nil, true)
}

// The law of XFetch: with D the time of a fetch, the chance that one lookup refreshes at a time x before the end is
// exp(-x/(beta*D)).
func TestTheChanceOfAnEarlyRefreshIsExponential(t *testing.T) {
	const took = 100 * time.Millisecond
	for _, beta := range []float64{1, 2} {
		for _, left := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
			c := exact(Config{EarlyRefresh: beta})
			r := rand.New(rand.NewPCG(1, 2))
			fetched(t, c, t0, "k", text("v"), took)
			c.rand = r.Float64
			at := t0.Add(10*time.Second - left)
			early := 0
			const n = 20_000
			for range n {
				if res := c.Lookup(at, "k"); res.Lead {
					early++
					if res.State != call.Hit || res.Value != text("v") || res.Flight.Key() != "k" {
						t.Fatal("the call itself is not answered:", res.State, res.Value)
					}
					c.Refuse(at, res.Flight, errors.New("down")) // and nothing is lost when the refresh fails
				}
			}
			want := math.Exp(-float64(left) / (beta * float64(took)))
			if got := float64(early) / n; math.Abs(got-want) > 0.015 {
				t.Errorf("beta %v, %v before the end: %.3f, want %.3f", beta, left, got, want)
			}
			c.Close()
		}
	}
}

func TestAnEarlyRefreshIsOneAtATimeAndOffByDefault(t *testing.T) {
	c := exact(Config{EarlyRefresh: 1})
	defer c.Close()
	c.rand = func() float64 { return 0 }
	fetched(t, c, t0, "k", text("v"), time.Second)
	c.rand = func() float64 { return 1 - 0x1p-53 } // the earliest that can be drawn
	at := t0.Add(9 * time.Second)
	r := want(t, c, at, "k", call.Hit, text("v"), true)
	want(t, c, at, "k", call.Hit, text("v"), false)
	c.Fill(at, r.Flight, text("w"), 0)
	c.rand = func() float64 { return 0.3 }
	want(t, c, at, "k", call.Hit, text("w"), false)

	off := exact(Config{})
	defer off.Close()
	fetched(t, off, t0, "k", text("v"), time.Second)
	off.rand = func() float64 { panic("drawn") }
	want(t, off, t0.Add(10*time.Second-1), "k", call.Hit, text("v"), false)
}

// Many processes that share an answer and each ask for it often: without XFetch all fetch at once when it expires.
func TestEarlyRefreshSparesTheStampede(t *testing.T) {
	const processes, took = 50, 50 * time.Millisecond
	atOnce := func(beta float64) (most int) {
		r := rand.New(rand.NewPCG(3, 4))
		var caches [processes]*Cache
		for i := range caches {
			caches[i] = exact(Config{EarlyRefresh: beta})
			caches[i].rand = r.Float64
			defer caches[i].Close()
		}
		shared := Stored{Until: t0.Add(10 * time.Second), Took: took}
		type fetch struct{ ends time.Time }
		var running []fetch
		for now := t0; now.Before(t0.Add(30 * time.Second)); now = now.Add(time.Millisecond) {
			left := running[:0]
			for _, f := range running {
				if !now.Before(f.ends) {
					shared.Until = now.Add(10 * time.Second)
				} else {
					left = append(left, f)
				}
			}
			running = left
			for _, c := range caches {
				if r.IntN(10) == 0 && len(running) < processes && c.Early(now, shared) {
					running = append(running, fetch{now.Add(took)})
				}
			}
			most = max(most, len(running))
		}
		return most
	}
	without, with := atOnce(0), atOnce(1)
	t.Logf("fetches at once: %d without, %d with", without, with)
	if without < 45 || with > 15 {
		t.Errorf("%d fetches at once without, %d with; want about 50 and a few", without, with)
	}
}

// 10 000 keys that came together do not go together.
func TestJitterSpreadsTheExpiryOfManyKeys(t *testing.T) {
	const keys = 10_000
	worst := func(jitter float64) (most int) {
		c := New(Config{TTL: time.Minute, Jitter: jitter})
		defer c.Close()
		c.rand = rand.New(rand.NewPCG(1, 2)).Float64
		names := make([]string, keys)
		for i := range names {
			names[i] = fmt.Sprint("key", i)
			fill(t, c, t0, names[i], text("v"))
		}
		total := 0
		for at := 47 * time.Second; at <= time.Minute; at += 500 * time.Millisecond {
			before := len(names)
			names = slices.DeleteFunc(names, func(k string) bool { return c.Lookup(t0.Add(at), k).Lead })
			expired := before - len(names)
			most, total = max(most, expired), total+expired
		}
		if total != keys {
			t.Errorf("jitter %v: %d of %d expired within their minute", jitter, total, keys)
		}
		return most
	}
	byDefault, much, hardlyAny := worst(0), worst(0.2), worst(1e-9)
	t.Logf("of %d keys expired in the same half second: %d at 5 %%, %d at 20 %%, %d at next to none", keys, byDefault, much, hardlyAny)
	if byDefault > keys/5 || much > keys/20 || hardlyAny != keys {
		t.Error("want at most a fifth, a twentieth, and all of them")
	}
}

func TestAnAnswerOfTheTierKeepsItsTimes(t *testing.T) {
	c := exact(Config{EarlyRefresh: 1, StaleIfError: time.Hour})
	defer c.Close()
	r := c.Lookup(t0, "k")
	c.FillFrom(t0, r.Flight, text("v"), Stored{Until: t0.Add(5 * time.Second), Took: time.Second, Negative: true}, Place{})
	want(t, c, t0.Add(5*time.Second-1), "k", call.Hit, text("v"), false)
	c.rand = func() float64 { return 1 - math.Exp(-1) }
	want(t, c, t0.Add(3*time.Second), "k", call.Hit, text("v"), false)
	want(t, c, t0.Add(4001*time.Millisecond), "k", call.Hit, text("v"), true) // a second before its end
	want(t, c, t0.Add(5*time.Second), "k", call.Coalesced, nil, false)
}

func TestPackedAnswersComeBackAsTheyWere(t *testing.T) {
	s := Stored{Data: []byte("data"), Until: t0, Took: 1234 * time.Microsecond, Negative: true}
	got, err := Unpack(s.Pack())
	if err != nil || string(got.Data) != "data" || !got.Until.Equal(t0) || got.Took != s.Took || !got.Negative {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(Stored{Data: []byte("data"), Until: t0, Took: time.Second}.Pack())
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Unpack(b)
		if err != nil {
			return
		}
		if string(s.Pack()) != string(b) {
			t.Errorf("%x became %+v, which packs to %x", b, s, s.Pack())
		}
	})
}

func BenchmarkHit(b *testing.B) {
	for name, cfg := range map[string]Config{"plain": {}, "early refresh": {EarlyRefresh: 1}} {
		b.Run(name, func(b *testing.B) {
			c := New(cfg)
			defer c.Close()
			r := c.Lookup(t0, "k")
			c.Fill(t0.Add(10*time.Millisecond), r.Flight, text("v"), 0)
			for b.Loop() {
				if c.Lookup(t0, "k").State != call.Hit {
					b.Fatal("no hit")
				}
			}
		})
	}
}
