package retry

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
)

// Why Next says no.
var (
	ErrNoMore = errors.New("retry: no further attempt") // the answer stands: good, not safe to repeat, or the last one
	ErrBudget = errors.New("retry: budget spent")       // another attempt was due, but there were too many lately
)

// MaxPushback is the longest Retry-After that is waited for. A server that asks for more gets no further attempt, as
// an earlier one would only be refused again.
const MaxPushback = 10 * time.Second

// Policy decides about further attempts. All methods are safe for concurrent use and do not allocate, Reconfigure
// and the renewal of the hedge delay (once in 3 s at most) excepted. When it fails to decide, it fails closed: without
// budget there is no further attempt.
type Policy struct {
	cfg    atomic.Pointer[Config]
	budget budget
	delay  delay
	gate   gate
	calm   atomic.Int64 // Unix nanoseconds before which nothing is hedged; see Suspend
	rand   func() uint64

	refused atomic.Uint64
}

// New returns a policy that knows of no attempts yet. c must be valid.
func New(c Config) *Policy {
	p := &Policy{rand: rand.Uint64}
	p.Reconfigure(c)
	return p
}

// Reconfigure swaps the settings and keeps what was learned: the attempts of the last 10 s and the latencies.
func (p *Policy) Reconfigure(c Config) {
	c = c.WithDefaults()
	if c.adaptive() {
		p.delay.arm()
	}
	p.cfg.Store(&c)
}

// adaptive reports whether the hedge delay is to be found from the measured latencies.
func (c *Config) adaptive() bool { return !c.Off && c.Hedge != nil && c.Hedge.After == 0 }

// Begin counts the first attempt of a call: it earns the budget's share of a further one.
func (p *Policy) Begin(now time.Time) {
	if !p.cfg.Load().Off {
		p.budget.first(now)
	}
}

// Next decides what follows the failed attempt out, when made attempts (hedges included) have been sent: a nil error
// and the pause before the next attempt, or ErrNoMore, or ErrBudget. A nil error has spent one from the budget.
//
// Only failures of the dependency are worth another attempt. Of these, Refused is always safe, as no work was done;
// the others need an idempotent call (RFC 9110 section 9.2.2).
//
// The pause is drawn uniformly from 0 to BaseDelay*2^(made-1), at most MaxDelay: exponential backoff with full
// jitter (Brooker, AWS Architecture Blog 2015). It is added to the server's Retry-After, if there is one, lest all its
// clients come back in the same instant.
func (p *Policy) Next(now time.Time, made int, info call.Info, out call.Outcome) (pause time.Duration, err error) {
	c := p.cfg.Load()
	safe := out.Class == call.Refused || info.Idempotent
	if c.Off || !out.Class.Failed() || !safe || made >= c.MaxAttempts || out.Pushback > MaxPushback || out.Pushback < 0 {
		return 0, ErrNoMore
	}
	if !p.budget.spend(now, c, false) {
		p.refused.Add(1)
		return 0, ErrBudget
	}
	return out.Pushback + p.backoff(c, made), nil
}

// Refused is how many times Next returned ErrBudget.
func (p *Policy) Refused() uint64 { return p.refused.Load() }

func (p *Policy) backoff(c *Config, made int) time.Duration {
	ceiling := c.MaxDelay
	if shift := max(made-1, 0); shift < 32 && c.BaseDelay <= c.MaxDelay>>shift {
		ceiling = c.BaseDelay << shift
	}
	return time.Duration(p.rand() % uint64(ceiling+1))
}

// HedgeAfter is the age at which the running attempt deserves a copy, when made attempts, this one included, have been
// sent. It is false for a call that must not be sent twice or that nobody waits for (call.Background and below), when
// MaxAttempts are made, while hedging is suspended, and, with After 0, as long as too little is known or a copy would
// not help. The copy should have call.Speculative as its priority.
func (p *Policy) HedgeAfter(now time.Time, made int, info call.Info) (time.Duration, bool) {
	c := p.cfg.Load()
	if c.Off || c.Hedge == nil || !info.Idempotent || info.Priority <= call.Background || made >= c.MaxAttempts || p.suspended(now) {
		return 0, false
	}
	after := c.Hedge.After
	if after == 0 {
		var ok bool
		if after, ok = p.delay.after(now, min(c.Hedge.BudgetRatio, c.BudgetRatio), 1-c.Hedge.Quantile); !ok {
			return 0, false
		}
	}
	p.gate.began(now, p.usual(c))
	return after, true
}

// Hedge takes a copy from both budgets, when it is about to be sent: call it for each attempt that reached HedgeAfter.
// False means: do not send it. Besides the budgets, that is so while far more attempts than usual reach that age: then
// the slowness is common to all endpoints, and a copy would only add to it.
func (p *Policy) Hedge(now time.Time) bool {
	c := p.cfg.Load()
	if c.Off || c.Hedge == nil {
		return false
	}
	return p.gate.reached(now, p.usual(c)) && !p.suspended(now) && p.budget.spend(now, c, true)
}

// usual is the share of attempts that are expected to reach HedgeAfter. Who sets After says so with the budget.
func (p *Policy) usual(c *Config) float64 {
	if c.Hedge.After > 0 {
		return c.Hedge.BudgetRatio
	}
	return p.delay.usual()
}

// Suspend turns hedging off until the given time: call it, with a time a little ahead, whenever a limiter in front of
// the same dependency sheds. It never shortens a suspension.
func (p *Policy) Suspend(until time.Time) {
	for at := until.UnixNano(); ; {
		old := p.calm.Load()
		if old >= at || p.calm.CompareAndSwap(old, at) {
			return
		}
	}
}

func (p *Policy) suspended(now time.Time) bool {
	until := p.calm.Load()
	return until != 0 && now.UnixNano() < until
}

// Observe tells how long an attempt took. It matters only for a hedge delay that is found from the latencies, and
// does nothing otherwise.
//
// An attempt that was given up (Canceled, Timeout) would have taken longer than it did: it counts as a lower bound.
// Failures are left out: they are often fast, and would make the delay collapse just when the dependency is in trouble.
// So are attempts made while the slowness is common: they say nothing about what a copy would gain. When it lasts, it
// is the new normal, and what was known before is forgotten.
func (p *Policy) Observe(now time.Time, out call.Outcome) {
	if !p.cfg.Load().adaptive() {
		return
	}
	if watch := time.Duration(p.delay.watch.Load()); watch > 0 && p.delay.chosen.Load() == 0 {
		// Nothing is hedged, so nobody else counts.
		p.gate.began(now, p.delay.usual())
		if out.Latency > watch && (out.Class == call.OK || out.Class == call.Client) {
			p.gate.reached(now, p.delay.usual())
		}
	}
	switch skip, anew := p.gate.judge(now); {
	case skip:
		return
	case anew:
		p.delay.forget()
	}
	switch out.Class {
	case call.OK, call.Client:
		p.delay.finished(now, out.Latency)
	case call.Canceled, call.Timeout:
		p.delay.givenUp(now, out.Latency)
	}
}

// Passed is what a server should tell its own caller about a failure that it could not mend: out, when made attempts
// had been sent and why was what Next returned. When this tier has tried again, or has no budget left to, nobody above
// it should: Pushback is then -1, "never" (gRPC's grpc-retry-pushback-ms). Without it each tier multiplies the retries
// of the one above: three tiers of three attempts are 27, or with budgets of 20 % still 1.7 times the calls; with it they
// are 1.2 times the calls.
func Passed(out call.Outcome, made int, why error) call.Outcome {
	if out.Class.Failed() && (made > 1 || errors.Is(why, ErrBudget)) {
		out.Pushback = -1
	}
	return out
}
