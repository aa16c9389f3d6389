package discover

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Source finds the endpoints of one upstream.
type Source interface {
	// Run calls send with each set that differs from the one before, one call after the other, until ctx is done; then it
	// returns. have is the set in force, from a run before or by configuration; nil = none is. A set is full, ordered by URL,
	// without doubles, with weights above 0, has at most MaxEndpoints, and belongs to send.
	Run(ctx context.Context, have []Endpoint, send func([]Endpoint))

	// Health tells how the last attempt to find endpoints went. It is safe for concurrent use.
	Health() Health
}

// Health is how a Source does. It is a copy.
type Health struct {
	LastGood time.Time // when the source of truth last told a set; zero = not yet. A file is read when it changes only
	Failing  string    // why it does not at present; "" = it does
}

// New returns the source that c, which must be valid, describes. log tells what fails, each kind of failure once until it
// is over; nil = nothing is told.
func New(c Config, log *slog.Logger) Source {
	c = c.WithDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &source{keep: c.KeepEmpty, log: log}
	switch {
	case c.DNS != nil:
		s.about = "dns " + c.DNS.Name
		s.find = (&resolver{cfg: *c.DNS}).run
	case c.File != nil:
		s.about = "file " + c.File.Path
		s.find = (&watcher{cfg: *c.File}).run
	case c.Kubernetes != nil:
		s.about = "kubernetes " + c.Kubernetes.Service
		s.find = (&cluster{cfg: *c.Kubernetes}).run
	default:
		s.find = func(ctx context.Context, _ report) { <-ctx.Done() }
	}
	return s
}

// report is how a loop tells what it found: a set, or why there is none. It returns when the set is in force.
type report func(set []Endpoint, err error)

// source puts what a loop finds in force.
type source struct {
	about string
	keep  time.Duration
	log   *slog.Logger
	find  func(ctx context.Context, tell report)

	mu     sync.Mutex
	health Health
}

// Health implements Source.
func (s *source) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// noted keeps how an attempt went.
func (s *source) noted(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.health.Failing = err.Error()
		return
	}
	s.health = Health{LastGood: now}
}

// Run implements Source.
func (s *source) Run(ctx context.Context, have []Endpoint, send func([]Endpoint)) {
	sets := make(chan []Endpoint)
	var run sync.WaitGroup
	run.Go(func() {
		failing := ""
		s.find(ctx, func(set []Endpoint, err error) {
			if ctx.Err() == nil {
				s.noted(time.Now(), err)
			}
			if err != nil {
				if ctx.Err() == nil && failing != err.Error() {
					failing = err.Error()
					s.log.Warn("discovery fails; the endpoints stay as they are", "source", s.about, "error", failing)
				}
				return
			}
			if failing != "" {
				failing = ""
				s.log.Info("discovery works again", "source", s.about)
			}
			select {
			case sets <- set:
			case <-ctx.Done():
			}
		})
	})
	defer run.Wait()
	set, _ := settle(have)
	s.settle(ctx, hold{keep: s.keep, set: set, known: have != nil}, sets, send)
}

// settle is the other half: it waits for sets and for the end of an empty one's probation.
func (s *source) settle(ctx context.Context, h hold, sets <-chan []Endpoint, send func([]Endpoint)) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		var changed bool
		var wait time.Duration
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			changed, wait = h.expire(time.Now())
		case found := <-sets:
			set, dropped := settle(found)
			if changed, wait = h.take(time.Now(), set); changed && dropped > 0 {
				s.log.Warn("too many endpoints; the last ones are dropped", "source", s.about, "dropped", dropped, "kept", MaxEndpoints)
			}
			if wait > 0 {
				s.log.Warn("no endpoints; the last ones stay for a while", "source", s.about, "for", wait)
			}
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		if changed {
			send(append([]Endpoint(nil), h.set...))
		}
	}
}

// sleep pauses; false = ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// spread adds up to a tenth to d.
func spread(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// errorf is fmt.Errorf with the name of the package.
func errorf(format string, args ...any) error { return fmt.Errorf("discover: "+format, args...) }
