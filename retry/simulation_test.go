package retry

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
)

const ms = time.Millisecond

// world is a discrete-event simulation in virtual time: what is put in runs in the order of its time.
type world struct {
	now    time.Time
	events events
	put    int
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	w.put++
	heap.Push(&w.events, event{w.now.Add(d), w.put, do})
}

func (w *world) run(until time.Time) {
	for w.events.Len() > 0 && !w.events[0].at.After(until) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

// hedged is one call under p, of whose attempts none queues; end is told its latency.
type hedged struct {
	w      *world
	p      *Policy
	draw   func(now time.Time) time.Duration // of one attempt
	copies int
}

func (h *hedged) call(end func(time.Duration)) {
	start := h.w.now
	h.p.Begin(start)
	first := h.draw(start)
	after, ok := h.p.HedgeAfter(start, 1, idem)
	if !ok || first <= after {
		h.w.after(first, func() {
			h.p.Observe(h.w.now, call.Outcome{Latency: first})
			end(first)
		})
		return
	}
	h.w.after(after, func() {
		if !h.p.Hedge(h.w.now) {
			h.w.after(first-after, func() {
				h.p.Observe(h.w.now, call.Outcome{Latency: first})
				end(first)
			})
			return
		}
		h.copies++
		second := h.draw(h.w.now)
		took := min(first, after+second)
		h.w.after(took-after, func() {
			won, lost := call.Outcome{Latency: first}, call.Outcome{Class: call.Canceled, Latency: took - after}
			if after+second < first {
				won, lost = call.Outcome{Latency: second}, call.Outcome{Class: call.Canceled, Latency: took}
			}
			h.p.Observe(h.w.now, won)
			h.p.Observe(h.w.now, lost)
			end(took)
		})
	})
}

// measured is what a phase of a simulation brought.
type measured struct {
	took   []time.Duration
	copies int
}

func (m *measured) q(q float64) time.Duration {
	slices.Sort(m.took)
	return stats.ExactQuantile(m.took, q)
}

func (m *measured) extra() float64 { return float64(m.copies) / float64(len(m.took)) }

// workers make calls calls one after the other, after a fifth as many in which the policy learns.
func workers(n, calls int, h *Hedge, draw func(time.Time) time.Duration) measured {
	w := &world{now: t0}
	s := &hedged{w: w, p: New(Config{Hedge: h}), draw: draw}
	var m measured
	made, before := 0, 0
	var next func()
	next = func() {
		if made++; made == calls/5 {
			before = s.copies
		}
		if made > calls+calls/5 {
			return
		}
		counts := made > calls/5
		s.call(func(d time.Duration) {
			if counts {
				m.took = append(m.took, d)
			}
			next()
		})
	}
	for range n {
		w.after(0, next)
	}
	w.run(t0.Add(24 * time.Hour))
	m.copies = s.copies - before
	return m
}

// The hedging table of the field: latency lognormal(5, 2) ms, 5 % of it ten times as long, 20 workers, nothing queues.
func TestHedgingTheStragglers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 7))
	draw := func(time.Time) time.Duration { return straggler(r) }
	m := workers(20, 200_000, &Hedge{BudgetRatio: 0.077}, draw)
	t.Logf("p50 %v p99 %v p99.9 %v, %.2f %% extra", m.q(0.5), m.q(0.99), m.q(0.999), 100*m.extra())
	if m.q(0.99) > 17500*time.Microsecond || m.q(0.999) > 47*ms || m.extra() > 0.07 {
		t.Error("want p99 <= 17.5 ms, p99.9 <= 47 ms at <= 7 % extra")
	}
	m = workers(20, 20_000, nil, draw)
	if m.q(0.99) < 60*ms {
		t.Error("without hedging p99 is", m.q(0.99), "want above 60 ms: the model is wrong")
	}
}

// arrivals makes 1000 calls a second, at random. From 30 s on, latency and copies are told apart by whether the call
// began while everything was slow.
func arrivals(r *rand.Rand, length time.Duration, slow func(time.Duration) bool, normal, common func(*rand.Rand) time.Duration) (calm, stall measured) {
	w := &world{now: t0}
	s := &hedged{w: w, p: New(Config{Hedge: &Hedge{}}), draw: func(now time.Time) time.Duration {
		if slow(now.Sub(t0)) {
			return 10 * common(r)
		}
		return normal(r)
	}}
	var warm measured
	phase := func() *measured {
		switch at := w.now.Sub(t0); {
		case at < 30*time.Second:
			return &warm
		case slow(at):
			return &stall
		}
		return &calm
	}
	var next func()
	next = func() {
		m := phase()
		s.call(func(d time.Duration) { m.took = append(m.took, d) })
		w.after(time.Duration(r.ExpFloat64()*1e6), next)
	}
	w.after(0, next)
	for w.now.Sub(t0) < length {
		before, m := s.copies, phase()
		w.run(w.now.Add(ms))
		w.now = w.now.Add(ms).Truncate(ms)
		m.copies += s.copies - before
	}
	return calm, stall
}

// When everything becomes slow at once, copies are slow too. At most 1 % of those calls send one, however long it lasts
// and whether or not single attempts straggle as well; and it is not mistaken for stragglers when it comes and goes.
func TestCommonSlownessIsNotHedged(t *testing.T) {
	between := func(from, to time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= from*time.Second && at < to*time.Second }
	}
	often := func(at time.Duration) bool { return at%(10*time.Second) >= 9500*ms }
	for _, tt := range []struct {
		name           string
		slow           func(time.Duration) bool
		normal, common func(*rand.Rand) time.Duration
		calm           float64 // extra requests at other times, at most
	}{
		{"29 s, with stragglers", between(40, 69), straggler, straggler, 0.1},
		{"55 s, the new normal", between(40, 95), straggler, body, 0.1},
		{"0.5 s of each 10 s", often, body, body, 0.01},
	} {
		calm, stall := arrivals(rand.New(rand.NewPCG(3, 9)), 100*time.Second, tt.slow, tt.normal, tt.common)
		t.Logf("%-22s %5d calls, %.2f %% extra; %d others, p99 %v, %.2f %% extra", tt.name,
			len(stall.took), 100*stall.extra(), len(calm.took), calm.q(0.99), 100*calm.extra())
		if stall.extra() > 0.01 || calm.extra() > tt.calm {
			t.Errorf("%s: want at most 1 %% extra, and %.0f %% at other times", tt.name, 100*tt.calm)
		}
	}
}

// What a common stall costs does not grow with its length: the copies sent until it is seen for what it is.
func TestACommonStallCostsAFewCopiesAtItsBegin(t *testing.T) {
	const begins, lasts = 20 * time.Second, 10 * time.Second
	r := rand.New(rand.NewPCG(3, 9))
	w := &world{now: t0}
	stalled, calls := false, 0
	s := &hedged{w: w, p: New(Config{Hedge: &Hedge{}}), draw: func(time.Time) time.Duration {
		if stalled {
			return 10 * straggler(r)
		}
		return straggler(r)
	}}
	var next func()
	next = func() {
		calls++
		s.call(func(time.Duration) { next() })
	}
	for range 20 {
		w.after(0, next)
	}
	w.run(t0.Add(begins))
	copies, before := s.copies, calls
	stalled = true
	w.run(t0.Add(begins + lasts))
	copies, before = s.copies-copies, calls-before
	t.Logf("%d copies of %d calls, %.2f %%", copies, before, 100*float64(copies)/float64(before))
	if copies == 0 || copies > 20 || float64(copies) > 0.01*float64(before) {
		t.Error("want a few copies, and at most 1 %")
	}
	stalled = false
	copies, before = s.copies, calls
	w.run(t0.Add(begins + lasts + 5*time.Second))
	if share := float64(s.copies-copies) / float64(calls-before); share < 0.05 {
		t.Errorf("%.1f %% copies after it was over: hedging did not come back", 100*share)
	}
}

// body is straggler without stragglers.
func body(r *rand.Rand) time.Duration {
	s := math.Sqrt(math.Log(1 + 0.4*0.4))
	return time.Duration(math.Exp(math.Log(5)-s*s/2+s*r.NormFloat64()) * 1e6)
}

// leaf takes 4 ms or so; 2 % take more than 10 ms, and of 10 000 about 6 stall for 0.6 s to 1.9 s.
func leaf(r *rand.Rand) time.Duration {
	v := 4 * math.Exp(0.3*r.NormFloat64())
	u := r.Float64()
	if u < 0.0185 {
		v += 8 * r.ExpFloat64()
	}
	if u < 0.00065 {
		v += 600 + 1300*r.Float64()
	}
	return time.Duration(v * 1e6)
}

// fanOut makes n calls of 100 leaves each, one every 20 ms, after a fifth as many in which the policy learns.
func fanOut(r *rand.Rand, n int, h *Hedge) (m measured, extra float64) {
	w := &world{now: t0}
	s := &hedged{w: w, p: New(Config{Hedge: h}), draw: func(time.Time) time.Duration { return leaf(r) }}
	before := 0
	for made := range n + n/5 {
		if made == n/5 {
			before = s.copies
		}
		left, slowest := 100, time.Duration(0)
		for range 100 {
			s.call(func(d time.Duration) {
				slowest = max(slowest, d)
				if left--; left == 0 && made >= n/5 {
					m.took = append(m.took, slowest)
				}
			})
		}
		w.run(w.now.Add(20 * ms))
		w.now = t0.Add(time.Duration(made+1) * 20 * ms)
	}
	w.run(w.now.Add(10 * time.Second))
	return m, float64(s.copies-before) / float64(100*n)
}

// Dean and Barroso's example: what waits for 100 leaves is as slow as the slowest of them. p99 of the whole hangs on
// the 99.99th percentile of a leaf, so that is what the delay has to minimise.
func TestHedgingAFanOutOfAHundred(t *testing.T) {
	plain, _ := fanOut(rand.New(rand.NewPCG(3, 9)), 2000, nil)
	m, extra := fanOut(rand.New(rand.NewPCG(3, 9)), 2000, &Hedge{BudgetRatio: 0.016, Quantile: 0.9999})
	t.Logf("p99 %v -> %v, %.2f %% extra", plain.q(0.99), m.q(0.99), 100*extra)
	if plain.q(0.99) < 1600*ms || m.q(0.99) > 25*ms || extra > 0.015 {
		t.Error("want p99 1.7 s -> at most 25 ms at <= 1.5 % extra")
	}
}

// tier is one service of a chain, whose dependency is below; it tells its caller how the call ended.
func tier(p *Policy, passed bool, below func(time.Time) call.Outcome) func(time.Time) call.Outcome {
	return func(now time.Time) call.Outcome {
		p.Begin(now)
		for made := 1; ; made++ {
			out := below(now)
			_, why := p.Next(now, made, idem, out)
			if why == nil {
				continue
			}
			if !passed {
				out.Pushback = 0
				return out
			}
			return Passed(out, made, why)
		}
	}
}

// Three tiers of three attempts are 27. In an outage the budgets leave 1.2 to the power of three, and 1.2 when each
// tier tells the one above that it has tried already.
func TestThreeTiersOfRetriesDoNotMultiply(t *testing.T) {
	for _, tt := range []struct {
		name     string
		failing  float64
		passed   bool
		low, max float64
	}{
		{"no word between the tiers", 1, false, 1.6, 1.2 * 1.2 * 1.2},
		{"outage", 1, true, 1.15, 1.2},
		{"half of it fails", 0.5, true, 1.15, 1.2},
		{"a little fails", 0.02, true, 1.01, 1.05},
	} {
		r := rand.New(rand.NewPCG(5, 8))
		attempts, ended := 0, 0
		top := func(time.Time) call.Outcome {
			attempts++
			if r.Float64() < tt.failing {
				return failed
			}
			return call.Outcome{}
		}
		for range 3 {
			top = tier(New(Config{}), tt.passed, top)
		}
		const calls = 30_000
		for i := range calls {
			if out := top(t0.Add(time.Duration(i) * ms)); !out.Class.Failed() {
				ended++
			}
		}
		ratio := float64(attempts) / calls
		t.Logf("%-26s %.3f times the load, %.1f %% of the calls succeed", tt.name, ratio, 100*float64(ended)/calls)
		reserve := 3 * 2 * 1.0 / 1000 // of each tier, 1/s beside 1000 calls/s, which the tiers below may multiply
		if ratio < tt.low || ratio > tt.max+reserve {
			t.Errorf("%s: want %.2f to %.2f times", tt.name, tt.low, tt.max)
		}
	}
}
