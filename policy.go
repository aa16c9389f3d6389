package longpole

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// Policy is a compiled Config with what it has learned. Make one with New for each route, and share it between all
// calls: every method is safe for concurrent use, Reconfigure and Close included.
type Policy struct {
	endpoints *balance.Set
	parts     atomic.Pointer[parts]
	mu        sync.Mutex // serialises Reconfigure and Close
	fetches   fetches
	fault     atomic.Pointer[Fault]
	prober    atomic.Pointer[Prober]
	tier      atomic.Pointer[cache.Tier]
}

// parts is what one call works with from its begin to its end. It is never written to after it was published.
type parts struct {
	given    Config // as it was given
	cfg      Config // with defaults
	cache    *cache.Cache
	limit    *limit.Limiter
	retry    *retry.Policy
	balance  *balance.Balancer
	prequal  bool // the balancer wants its endpoints asked
	breakers *breakers
}

// New compiles c. It returns every fault of c at once; each is a *setting.Error. endpoints may be shared with other
// policies; nil means that the Work itself knows where to go: nothing is balanced then, and there is one breaker.
func New(c Config, endpoints *balance.Set) (*Policy, error) {
	p := &Policy{endpoints: endpoints}
	p.parts.Store(&parts{})
	p.fetches.open()
	if err := p.Reconfigure(c); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Config is what the policy was last given. It shares nothing with the policy, so p.Reconfigure(p.Config()) changes nothing.
func (p *Policy) Config() Config { return p.parts.Load().given.clone() }

// Reconfigure swaps the settings while calls run; calls under way end under the old ones. A part that stays on keeps
// what it learned: budget, latencies, breaker states, cached answers. A part that is turned off forgets it. On error
// nothing changes.
func (p *Policy) Reconfigure(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.parts.Load()
	next := &parts{given: c.clone(), cfg: c.WithDefaults()}
	if cfg := next.cfg.Cache; cfg != nil {
		if f := next.cfg.Fallback; f != nil {
			cfg.StaleIfError = max(cfg.StaleIfError, f.Stale)
		}
		next.cache = keep(old.cache, *cfg, cache.New)
	} else if old.cache != nil {
		defer old.cache.Close()
	}
	if cfg := next.cfg.Limit; cfg != nil {
		if next.limit = old.limit; next.limit == nil {
			next.limit = limit.New(*cfg)
		} else {
			next.limit.Reconfigure(time.Now(), *cfg)
		}
	}
	if cfg := next.cfg.Retry; cfg != nil {
		next.retry = keep(old.retry, *cfg, retry.New)
	}
	if cfg := next.cfg.Breaker; cfg != nil {
		next.breakers = keep(old.breakers, *cfg, newBreakers)
	}
	if p.endpoints != nil {
		var cfg balance.Config
		if next.cfg.Balance != nil {
			cfg = *next.cfg.Balance
		}
		next.prequal = cfg.Algorithm == balance.Prequal
		next.balance = keep(old.balance, cfg, func(c balance.Config) *balance.Balancer { return balance.New(c, p.endpoints) })
	}
	p.parts.Store(next)
	return nil
}

// keep reconfigures a part that is there, or makes it.
func keep[P interface {
	comparable
	Reconfigure(C)
}, C any](old P, cfg C, make func(C) P) P {
	var none P
	if old == none {
		return make(cfg)
	}
	old.Reconfigure(cfg)
	return old
}

// Close ends the fetches that run on their own for the cache, waits for them, and drops the cached answers. No call
// fails for it: one that waits for such a fetch makes its own, and calls that begin later go uncached.
func (p *Policy) Close() {
	p.fetches.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.parts.Load().cache; c != nil {
		c.Close()
	}
}

// Breaker is the state of the breaker of an endpoint at now (any name, without endpoints); Closed when there is none.
func (p *Policy) Breaker(now time.Time, endpoint string) breaker.State {
	bs := p.parts.Load().breakers
	if bs == nil {
		return breaker.Closed
	}
	var e *balance.Endpoint
	if p.endpoints != nil {
		if e = p.endpoints.Find(endpoint); e == nil {
			return breaker.Closed
		}
	}
	if b := (*bs.by.Load())[e]; b != nil {
		return b.State(now)
	}
	return breaker.Closed
}

// Ejected reports whether the balancer keeps an endpoint out of the rotation for what its calls did, a trial included; false when
// it knows none of that name.
func (p *Policy) Ejected(endpoint string) bool {
	b := p.parts.Load().balance
	if b == nil || p.endpoints == nil {
		return false
	}
	e := p.endpoints.Find(endpoint)
	return e != nil && b.Ejected(e)
}

// RetriesRefused is how many further attempts were due and refused for want of budget, since the policy began to retry.
func (p *Policy) RetriesRefused() uint64 {
	if r := p.parts.Load().retry; r != nil {
		return r.Refused()
	}
	return 0
}

// breakers are one for each endpoint, made at its first call; the key nil stands for a policy without endpoints.
// Readers take no lock.
type breakers struct {
	mu  sync.Mutex // serialises writers
	cfg breaker.Config
	by  atomic.Pointer[map[*balance.Endpoint]*breaker.Breaker]
}

func newBreakers(c breaker.Config) *breakers {
	bs := &breakers{cfg: c}
	bs.by.Store(&map[*balance.Endpoint]*breaker.Breaker{})
	return bs
}

// Reconfigure swaps the settings of all breakers, present and to come.
func (bs *breakers) Reconfigure(c breaker.Config) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.cfg = c
	for _, b := range *bs.by.Load() {
		b.Reconfigure(c)
	}
}

// of returns the breaker of e, which is one of present. Those of endpoints that are gone are dropped when a new one is made.
func (bs *breakers) of(e *balance.Endpoint, present *balance.Set) *breaker.Breaker {
	if b := (*bs.by.Load())[e]; b != nil {
		return b
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	old := *bs.by.Load()
	if b := old[e]; b != nil {
		return b
	}
	b := breaker.New(bs.cfg)
	next := map[*balance.Endpoint]*breaker.Breaker{e: b}
	for k, v := range old {
		if present != nil && slices.Contains(present.Endpoints(), k) {
			next[k] = v
		}
	}
	bs.by.Store(&next)
	return b
}

// maxOrphans bounds the fetches of one policy that run though their caller is gone: a client that asks for many keys
// and leaves at once must not make work without end. One more is cancelled, and a refresh is left to a later call.
const maxOrphans = 256

// fetches are the goroutines that fetch for the cache: they belong to the policy and not to a caller.
type fetches struct {
	mu      sync.Mutex
	closed  bool
	orphans int
	probes  int
	run     sync.WaitGroup
	life    context.Context // done when the policy is closed
	end     context.CancelCauseFunc
}

func (f *fetches) open() { f.life, f.end = context.WithCancelCause(context.Background()) }

// begin runs fetch in a goroutine, unless the policy is closed or there are too many orphans for another.
func (f *fetches) begin(orphan bool, fetch func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || orphan && f.orphans >= maxOrphans {
		return false
	}
	if orphan {
		f.orphans++
	}
	f.run.Go(fetch)
	return true
}

// orphaned counts a fetch whose caller left (1) or one that has ended (-1); false = there are too many.
func (f *fetches) orphaned(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orphans += n
	return f.orphans <= maxOrphans
}

func (f *fetches) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.end(errClosed)
	f.run.Wait()
}
