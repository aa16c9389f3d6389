package advise

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// poolShop is a shop whose calls work for some 3 ms, wait for one of size connections, and hold it for a statement of some 25 ms.
func poolShop(calls, size int, seed uint64) []trace.Trace {
	r := rand.New(rand.NewPCG(seed, 1))
	draw := func(median, sigma float64) time.Duration {
		return time.Duration(median * math.Exp(sigma*r.NormFloat64()) * float64(time.Millisecond))
	}
	type call struct{ start, asks, begin, end time.Duration }
	list := make([]call, calls)
	at := time.Duration(0)
	for i := range list {
		at += time.Duration(r.ExpFloat64() * float64(17*time.Millisecond))
		list[i].start, list[i].asks = at, at+draw(3, 0.35)
	}
	order := make([]*call, calls)
	for i := range list {
		order[i] = &list[i]
	}
	slices.SortFunc(order, func(a, b *call) int { return int(a.asks - b.asks) })
	free := make([]time.Duration, size)
	for _, c := range order {
		first := slices.Index(free, slices.Min(free))
		c.begin = max(c.asks, free[first])
		c.end = c.begin + draw(25, 0.38)
		free[first] = c.end
	}
	var traces []trace.Trace
	for i, c := range list {
		b := &builder{trace.Trace{ID: fmt.Sprintf("%05d", i)}}
		root := b.span(-1, trace.Server, "shop", "GET /place", c.start, c.end)
		b.span(root, trace.Client, "shop", "SELECT orders", c.begin, c.end, "db.system.name", "postgresql", "server.address", "db")
		traces = append(traces, b.Trace)
	}
	return traces
}

// cameTrue fails where a forecast is further from the truth than a share of it.
func cameTrue(t *testing.T, got, want Predicted, most float64) {
	t.Helper()
	for _, x := range [][2]float64{{got.P50, want.P50}, {got.P95, want.P95}, {got.P99, want.P99}} {
		if math.Abs(x[0]/x[1]-1) > most {
			t.Errorf("forecast %+v, came %+v; want each within %.0f %%", got, want, 100*most)
			return
		}
	}
}

func TestMoreConnectionsShortenTheWaitForOne(t *testing.T) {
	key := routeKey{"shop", "GET /place"}
	for seed := range uint64(3) {
		c := load(poolShop(900, 2, seed), diagnose.ClockOptions{})
		st := c.connections("shop", 2)
		if st == nil {
			t.Fatal("no queue is seen")
		}
		got := c.replay([]routeKey{key}, st.rerun(3))[0]
		want := load(poolShop(6000, 3, seed+100), diagnose.ClockOptions{}).replay([]routeKey{key}, plan{apply: func(int, int, *edit) {}})[0]
		cameTrue(t, got.Predicted, want.Before, 0.15)
		if got.Before.P99 < 1.3*got.Predicted.P99 {
			t.Errorf("seed %d: p99 from %.0f ms to %.0f ms: the system hardly queues", seed, got.Before.P99, got.Predicted.P99)
		}
	}
}

func TestAPoolThatNeverFillsHasNoQueue(t *testing.T) {
	if st := load(poolShop(900, 20, 1), diagnose.ClockOptions{}).connections("shop", 20); st != nil {
		t.Errorf("%s", st.describe(target{service: "shop"}))
	}
}

func TestThePoolsSizeIsWhatWasSeenInUse(t *testing.T) {
	st := load(poolShop(900, 2, 1), diagnose.ClockOptions{}).connections("shop", 0)
	if st == nil || st.servers != 2 {
		t.Fatalf("%+v, want 2 connections", st)
	}
}

// lockShop is a service that works for some 15 ms, one call after the other where locked.
func lockShop(calls int, locked bool, seed uint64) []trace.Trace {
	r := rand.New(rand.NewPCG(seed, 2))
	var traces []trace.Trace
	at, free := time.Duration(0), time.Duration(0)
	for i := range calls {
		at += time.Duration(r.ExpFloat64() * float64(23*time.Millisecond))
		begin := at
		if locked {
			begin = max(at, free)
		}
		free = begin + time.Duration(15*math.Exp(0.2*r.NormFloat64())*float64(time.Millisecond))
		b := &builder{trace.Trace{ID: fmt.Sprintf("%05d", i)}}
		b.span(-1, trace.Server, "stock", "GET /reserve", at, free)
		traces = append(traces, b.Trace)
	}
	return traces
}

func TestCallsThatMetNoOtherTellWhatALockCosts(t *testing.T) {
	key := routeKey{"stock", "GET /reserve"}
	c := load(lockShop(900, true, 1), diagnose.ClockOptions{})
	p, reason := c.unlocked(target(key))
	if reason != "" {
		t.Fatal(reason)
	}
	want := load(lockShop(6000, false, 2), diagnose.ClockOptions{}).replay([]routeKey{key}, plan{apply: func(int, int, *edit) {}})[0]
	cameTrue(t, c.replay([]routeKey{key}, p)[0].Predicted, want.Before, 0.1)
	if _, reason = load(lockShop(60, true, 1), diagnose.ClockOptions{}).unlocked(target(key)); reason == "" {
		t.Error("a forecast from a few calls")
	}
}

// TestAScanIsNotTakenForTheWayToTheDatabase: where the only statement of a caller reads the whole table each time, the fastest of
// its calls is work.
func TestAScanIsNotTakenForTheWayToTheDatabase(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var traces []trace.Trace
	for i := range 200 {
		at, took := time.Duration(i)*100*time.Millisecond, 30*time.Millisecond+time.Duration(r.Float64()*2e6)
		b := &builder{trace.Trace{ID: fmt.Sprintf("%05d", i)}}
		root := b.span(-1, trace.Server, "shop", "GET /place", at, at+took+time.Millisecond)
		b.span(root, trace.Client, "shop", "SELECT orders", at+time.Millisecond, at+time.Millisecond+took, "db.system.name", "postgresql", "server.address", "db")
		traces = append(traces, b.Trace)
	}
	f, err := WhatIf(traces, `index "shop/SELECT orders" 100x`)
	if err != nil {
		t.Fatal(err)
	}
	if e := f.Effects[0]; e.Before.P50 < 30 || e.Predicted.P50 > 3 {
		t.Errorf("p50 from %.1f ms to %.1f ms, want at most 3 ms", e.Before.P50, e.Predicted.P50)
	}
}
