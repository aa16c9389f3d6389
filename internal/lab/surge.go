package lab

import (
	"context"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// Surge is the calls on top of the usual load that the fault overload stands for. The zero value has none; its methods are safe
// for concurrent use.
type Surge struct {
	mu    sync.Mutex
	end   context.CancelFunc // of the calls that come now; nil = none do
	extra sync.WaitGroup
}

// Set makes the load factor times what it is in the scenario, until the next Set or the end of ctx; 1 = the usual one alone.
// spans takes the spans of the clients' calls, as in load.Options.
func (s *Surge) Set(ctx context.Context, spec *scenario.Scenario, front string, factor float64, seed uint64, spans func([]trace.Span)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end()
		s.end = nil
	}
	if factor <= 1 || ctx.Err() != nil {
		return
	}
	plan := Traffic(spec, front, factor-1, seed+1)
	plan.Drain = time.Millisecond
	g, err := load.New(plan, load.Options{Spans: spans})
	if err != nil {
		return // it is the plan that the usual load is made of
	}
	ctx, s.end = context.WithCancel(ctx)
	s.extra.Go(func() { _ = g.Run(ctx) }) // it errs for recordings only
}

// Wait returns when no such call is under way any more. Set must not be called meanwhile.
func (s *Surge) Wait() { s.extra.Wait() }

// Overloaded says what the fault overload does: set makes the load so many times as high. It comes before Run.
func (s *System) Overloaded(set func(factor float64)) { s.surge = set }
