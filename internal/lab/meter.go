package lab

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxSamples bounds the waits that are kept for their quantiles.
const maxSamples = 20_000

// samples keeps waits; what is more than maxSamples is in the sum alone.
type samples struct {
	list []time.Duration
	n    int
	sum  time.Duration
}

func (s *samples) add(d time.Duration) {
	s.n++
	s.sum += d
	if len(s.list) < maxSamples {
		s.list = append(s.list, d)
	}
}

func (s *samples) mean() time.Duration { return s.sum / time.Duration(max(s.n, 1)) }

func (s *samples) quantile(q float64) time.Duration {
	if len(s.list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.list))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// meter is what one process did since the phase began.
type meter struct {
	mu        sync.Mutex
	busy      time.Duration            // on cores
	functions map[string]time.Duration // on cores, by function
	garbage   map[string]int64         // bytes by function
	locks     map[string]time.Duration // waited for, by mutex
	locked    time.Duration
	waits     samples // for a core
	runs      int     // collections
	paused    time.Duration
	restarted bool
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy, m.locked, m.paused, m.runs, m.restarted, m.waits = 0, 0, 0, 0, false, samples{}
	m.functions, m.garbage, m.locks = map[string]time.Duration{}, map[string]int64{}, map[string]time.Duration{}
}

func (m *meter) ready(waited time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waits.add(waited)
}

func (m *meter) worked(function string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy += d
	m.functions[function] += d
}

func (m *meter) allocated(function string, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.garbage[function] += bytes
}

func (m *meter) collected(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs++
	m.paused += d
}

func (m *meter) contended(mutex string, waited time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locked += waited
	m.locks[mutex] += waited
}

func (m *meter) began() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restarted = true
}

// pool is a client's pool of connections to one store, or the workers of a server.
type pool struct {
	name string
	gate gate

	mu            sync.Mutex
	used, pending int // now
	most, waiters int // at their highest
	idle          int // at its lowest
	waits         samples
}

func newPool(name string, size int) *pool {
	p := &pool{name: name, gate: newGate(size)}
	p.reset()
	return p
}

func (p *pool) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most, p.waiters, p.idle, p.waits = p.used, 0, cap(p.gate)-p.used, samples{}
}

// waiting is how many wait now.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pending
}

func (p *pool) change(used, pending int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used, p.pending = p.used+used, p.pending+pending
	p.most, p.waiters, p.idle = max(p.most, p.used), max(p.waiters, p.pending), min(p.idle, cap(p.gate)-p.used)
}

// acquire takes a connection, waiting for one where there is none.
func (p *pool) acquire(ctx context.Context) error {
	var waited time.Duration
	select {
	case p.gate <- struct{}{}:
	default:
		p.change(0, 1)
		w, err := p.gate.enter(ctx)
		p.change(0, -1)
		if err != nil {
			return err
		}
		waited = w
	}
	p.change(1, 0)
	p.mu.Lock()
	p.waits.add(waited)
	p.mu.Unlock()
	return nil
}

func (p *pool) release() {
	p.change(-1, 0)
	p.gate.leave()
}
