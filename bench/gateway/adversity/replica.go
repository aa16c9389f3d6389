package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// server is one replica: a few workers, and an unbounded queue before them, as most servers have. Work is done even if
// nobody waits for it any longer. It takes time but no CPU, and a worker that is woken late makes up for it with its next
// call: so what the replicas can bear is the same however busy the machine is.
type server struct {
	slots chan time.Time // the workers that are free, as the time since when
	calls atomic.Int64
	fault atomic.Value // string
	mu    sync.Mutex
	rng   *rand.Rand
}

// replica runs a replica until it is killed.
func replica(args []string) int {
	f := flag.NewFlagSet("replica", flag.ExitOnError)
	listen := f.String("listen", "", "address")
	seed := f.Uint64("seed", 1, "of its service times")
	workers := f.Int("workers", 4, "calls that are worked on at once")
	_ = f.Parse(args) // it exits on an error
	s := &server{slots: make(chan time.Time, *workers), rng: rand.New(rand.NewPCG(*seed, 7))}
	s.fault.Store("")
	for range *workers {
		s.slots <- time.Time{}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.work)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if s.fault.Load() == "blackhole" {
			<-r.Context().Done()
		}
	})
	mux.HandleFunc("/spoil", func(_ http.ResponseWriter, r *http.Request) { s.fault.Store(r.URL.Query().Get("fault")) })
	mux.HandleFunc("/calls", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.calls.Load()) })
	fmt.Fprintln(os.Stderr, (&http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: time.Minute}).ListenAndServe())
	return 1
}

func (s *server) work(w http.ResponseWriter, r *http.Request) {
	n := s.calls.Add(1)
	fault := s.fault.Load()
	switch {
	case fault == "blackhole":
		<-r.Context().Done()
		return
	case fault == "errors" && n%2 == 0:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	begin := time.Now()
	if free := <-s.slots; free.After(begin) { // it waited
		begin = free
	}
	end := begin.Add(s.draw())
	time.Sleep(time.Until(end))
	s.slots <- end
	if fault == "slow" && n%5 == 0 {
		time.Sleep(500 * time.Millisecond) // not at work: it waits for something, such as a lock elsewhere
	}
	_, _ = io.WriteString(w, strings.Repeat("x", 1024)) // whoever has gone is not told
}

// draw is a log-normal service time with the mean of service.
func (s *server) draw() time.Duration {
	const sigma = 0.5
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(float64(service) * math.Exp(sigma*s.rng.NormFloat64()-sigma*sigma/2))
}

func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// spoil makes a replica bad.
func spoil(ctx context.Context, address, fault string) error {
	_, err := ask(ctx, "http://"+address+"/spoil?fault="+fault)
	return err
}

// counts is how many calls have reached the replicas so far.
func counts(ctx context.Context, replicas []string) (total int, err error) {
	for _, r := range replicas {
		text, askErr := ask(ctx, "http://"+r+"/calls")
		n, numErr := strconv.Atoi(text)
		total, err = total+n, errors.Join(err, askErr, numErr)
	}
	return total, err
}
