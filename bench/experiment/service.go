package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// conduct is how a version of a service answers. Latency is that of docs/bench/judge.md: most calls lognormal around 20 ms,
// a few around 90 ms.
type conduct struct {
	scale  float64       // of all latencies
	slow   float64       // share of calls around slowMS
	slowMS float64       // 90 where all is well
	late   float64       // share of calls that take 200 ms more
	errors float64       // share of calls
	db     int           // calls to a downstream, as told
	cpu    time.Duration // processor time, as told
}

func usual() conduct {
	return conduct{scale: 1, slow: 0.03, slowMS: 90, errors: 0.001, db: 2, cpu: 4 * time.Millisecond}
}

// service is one instance that listens on a port of its own.
type service struct {
	conduct conduct
	server  *http.Server
	at      net.Listener

	mu  sync.Mutex
	rng *rand.Rand
}

func newService(c conduct, seed uint64) (*service, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a service: %w", err)
	}
	s := &service{conduct: c, at: l, rng: rand.New(rand.NewPCG(seed, 2026))}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return s, nil
}

func (s *service) url() string { return "http://" + s.at.Addr().String() }

func (s *service) serve() error {
	if err := s.server.Serve(s.at); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("a service: %w", err)
	}
	return nil
}

// draw is how long the next call takes, whether it fails, and what it costs.
func (s *service) draw() (took time.Duration, failed bool, cpu, db time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, r := s.conduct, s.rng
	middle := 20.0
	if r.Float64() < c.slow {
		middle = c.slowMS
	}
	ms := c.scale * middle * math.Exp(0.5*r.NormFloat64())
	if r.Float64() < c.late {
		ms += 200
	}
	return time.Duration(ms * 1e6), r.Float64() < c.errors,
		time.Duration(float64(c.cpu) * max(1+0.5*r.NormFloat64(), 0.1)),
		time.Duration(1e6 * 2 * math.Exp(0.5*r.NormFloat64()))
}

// ServeHTTP implements http.Handler.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	took, failed, cpu, db := s.draw()
	select {
	case <-time.After(took):
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Server-Timing", fmt.Sprintf("cpu;dur=%.3f, db;dur=%.3f;count=%d", cpu.Seconds()*1e3, db.Seconds()*1e3, s.conduct.db))
	if failed {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write([]byte("ok\n")) // a client that has gone needs no answer
}
