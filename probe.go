package longpole

import (
	"context"
	"time"

	"github.com/longpole/longpole/balance"
)

// Prober asks an endpoint for its load. It must return soon after ctx is done.
type Prober func(ctx context.Context, endpoint string) (balance.Load, error)

// Reporter is a Work that finds the load of the server in an answer.
type Reporter[R any] interface {
	Work[R]
	// Load is given a successful answer; ok = false when it says nothing.
	Load(r R) (l balance.Load, ok bool)
}

const (
	probeTimeout = 50 * time.Millisecond // a report that comes later is no news
	maxProbes    = 64                    // of one policy at once; further ones are not made
)

// SetProber says how endpoints are asked for their load; nil = they are not. It is used by balance.Prequal only, in the
// background, a few times for each call. Close waits for the probes under way.
func (p *Policy) SetProber(f Prober) {
	if f == nil {
		p.prober.Store(nil)
		return
	}
	p.prober.Store(&f)
}

// probe asks whom the balancer wants asked before the call that is about to be made.
func (p *Policy) probe(b *balance.Balancer, now time.Time) {
	ask := p.prober.Load()
	if ask == nil {
		return
	}
	for _, e := range b.Probes(now) {
		p.fetches.probe(func(life context.Context) {
			ctx, cancel := context.WithTimeout(life, probeTimeout)
			defer cancel()
			if l, err := (*ask)(ctx, e.Name()); err == nil {
				b.Report(e, time.Now(), l)
			}
		})
	}
}

// probe runs ask in a goroutine, unless the policy is closed or too many probes run.
func (f *fetches) probe(ask func(life context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.probes >= maxProbes {
		return
	}
	f.probes++
	f.run.Go(func() {
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.probes--
		}()
		ask(f.life)
	})
}
