package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	atOnce = 6000                  // calls in flight; one more is not made and counts as failed
	lateBy = 30 * time.Millisecond // of the generator behind its own schedule at most; a run with more is not to be trusted
	never  = time.Duration(math.MaxInt64)
)

// report is what the clients of one proxy got in one run.
type report struct {
	calls                     int // that were made at all
	sent, good, refused, late int // of those that are counted
	lasting                   time.Duration
	latency                   []time.Duration // of all calls but those that were refused, sorted; never = without a good answer in time
	attempts                  int             // that reached a replica
	behind                    time.Duration   // by how much the generator was late at worst
	why                       map[string]int  // of calls that were refused or failed
}

// load calls at Poisson arrivals for so long, and on for a deadline more, so that what is counted last has company, too.
// A call's latency counts from its scheduled time. A client hangs up at its deadline.
func load(url string, rate float64, lasting time.Duration, seed uint64) report {
	rng := rand.New(rand.NewPCG(seed, 1))
	transport := &http.Transport{MaxIdleConnsPerHost: atOnce, DisableCompression: true}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	r := report{why: make(map[string]int), lasting: lasting}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	begin := time.Now()
	for due := begin; due.Sub(begin) < lasting+deadline; due = due.Add(time.Duration(rng.ExpFloat64() * float64(time.Second) / rate)) {
		time.Sleep(time.Until(due))
		r.calls++
		counts := due.Sub(begin) < lasting
		r.behind = max(r.behind, time.Since(due))
		select {
		case slots <- struct{}{}:
		default:
			if counts {
				mu.Lock()
				r.add(false, 0, "the client itself was full")
				mu.Unlock()
			}
			continue
		}
		wg.Go(func() {
			ok, why := call(client, url, due)
			took := time.Since(due)
			<-slots
			if counts {
				mu.Lock()
				r.add(ok, took, why)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(r.latency)
	return r
}

// add counts a call that has ended.
func (r *report) add(ok bool, took time.Duration, why string) {
	r.sent++
	switch {
	case took > deadline:
		r.late++
		r.latency = append(r.latency, never)
	case ok:
		r.good++
		r.latency = append(r.latency, took)
	default:
		r.refused++
		r.why[why]++
	}
}

// call is one call of a client that was due at the given time; why tells a failure.
func call(client *http.Client, url string, due time.Time) (ok bool, why string) {
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(deadline))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, "request"
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, "no answer"
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK, resp.Status
}

// figures are what the page tells of a report.
type figures struct {
	goodput, share, p50, p99, p999, refused, late, attempts float64 // calls a second, shares, milliseconds, a call
}

// figures of one run. The quantiles are of all calls; of those that were not refused when most are bound to be.
func (r *report) figures(overload bool) figures {
	all := r.latency
	if !overload {
		all = slices.Concat(all, slices.Repeat([]time.Duration{never}, r.refused))
	}
	ms := func(q float64) float64 {
		switch x := all[min(len(all)-1, int(q*float64(len(all))))]; {
		case x == never:
			return math.Inf(1)
		default:
			return float64(x) / 1e6
		}
	}
	n := float64(max(1, r.sent))
	f := figures{
		goodput: float64(r.good) / r.lasting.Seconds(), share: float64(r.good) / n, refused: float64(r.refused) / n, late: float64(r.late) / n,
		attempts: float64(r.attempts) / float64(max(1, r.calls)),
	}
	if len(all) > 0 {
		f.p50, f.p99, f.p999 = ms(0.5), ms(0.99), ms(0.999)
	}
	return f
}

// median of each figure by itself; of two the higher.
func median(runs []figures) (m figures) {
	of := func(get func(*figures) float64) float64 {
		var v []float64
		for i := range runs {
			v = append(v, get(&runs[i]))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	m.goodput, m.share = of(func(f *figures) float64 { return f.goodput }), of(func(f *figures) float64 { return f.share })
	m.p50, m.p99, m.p999 = of(func(f *figures) float64 { return f.p50 }), of(func(f *figures) float64 { return f.p99 }), of(func(f *figures) float64 { return f.p999 })
	m.refused, m.late = of(func(f *figures) float64 { return f.refused }), of(func(f *figures) float64 { return f.late })
	m.attempts = of(func(f *figures) float64 { return f.attempts })
	return m
}

// row is the figures as a row of the table.
func (f figures) row(name string) string {
	ms := func(v float64) string {
		if math.IsInf(v, 1) {
			return fmt.Sprintf("> %d", deadline/time.Millisecond)
		}
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("| %s | %.0f/s | %.2f %% | %s | %s | %s | %.2f %% | %.2f %% | %.2f |\n", name, f.goodput, 100*f.share, ms(f.p50), ms(f.p99), ms(f.p999),
		100*f.refused, 100*f.late, f.attempts)
}
