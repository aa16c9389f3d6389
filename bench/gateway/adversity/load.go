package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	patience = 2 * time.Second // then a client gives up
	atOnce   = 6000            // calls in flight; one more is not made and counts as failed
)

// report is what the clients got.
type report struct {
	sent, good, failed, late int
	took, planned            time.Duration   // how long the calls were sent, and should have been
	latency                  []time.Duration // of good calls, sorted
	attempts                 int             // that reached a replica
	why                      map[string]int  // of calls that failed
}

// load calls at Poisson arrivals. A call's latency counts from its scheduled time.
func load(url string, rate int, lasting time.Duration, seed uint64) report {
	rng := rand.New(rand.NewPCG(seed, 1))
	transport := &http.Transport{
		MaxIdleConnsPerHost: atOnce, DisableCompression: true, DialContext: (&net.Dialer{Timeout: patience}).DialContext,
	}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	r := report{why: make(map[string]int), planned: lasting}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	begin := time.Now()
	for due := begin; due.Sub(begin) < lasting; due = due.Add(time.Duration(rng.ExpFloat64() * float64(time.Second) / float64(rate))) {
		time.Sleep(time.Until(due))
		r.sent++
		select {
		case slots <- struct{}{}:
		default:
			mu.Lock()
			r.failed++
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			ok, gaveUp, why := call(client, url)
			took := time.Since(due)
			<-slots
			mu.Lock()
			defer mu.Unlock()
			switch {
			case ok && took <= deadline:
				r.good++
				r.latency = append(r.latency, took)
			case ok || gaveUp || took > deadline:
				r.late++
			default:
				r.failed++
				r.why[why]++
			}
		})
	}
	r.took = time.Since(begin)
	wg.Wait()
	slices.Sort(r.latency)
	return r
}

// call is one call of a client; gaveUp means that it was not answered in time, why tells a failure.
func call(client *http.Client, url string) (ok, gaveUp bool, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, false, "request"
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, ctx.Err() != nil, "no answer"
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK, ctx.Err() != nil, resp.Status
}

// row is the report as a row of the table.
func (r report) row(name string) string {
	ms := func(q float64) string {
		if len(r.latency) == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f", float64(r.latency[min(len(r.latency)-1, int(q*float64(len(r.latency))))])/1e6)
	}
	if r.took > r.planned+r.planned/20 {
		name += " (the generator was late: the machine was busy)"
	}
	share := func(n int) string { return fmt.Sprintf("%d (%.2f %%)", n, 100*float64(n)/float64(max(1, r.sent))) }
	return fmt.Sprintf("| %s | %.0f/s (%.2f %%) | %s | %s | %s | %s | %s | %.2f |\n", name, float64(r.good)/r.took.Seconds(), 100*float64(r.good)/float64(max(1, r.sent)),
		ms(0.5), ms(0.99), ms(0.999), share(r.failed), share(r.late), float64(r.attempts)/float64(max(1, r.sent)))
}
