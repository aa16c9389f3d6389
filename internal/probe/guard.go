package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/longpole/longpole/setting"
)

// Why a look was not made. Nothing was sent then.
var (
	ErrTooSoon = errors.New("probe: too soon after the last look")
	ErrSpent   = errors.New("probe: the budget of this hour is spent")
	ErrResting = errors.New("probe: resting, because the server was overloaded")
)

// Budget bounds what looking at a system may cost it. The zero value means the defaults given at each field.
type Budget struct {
	MinInterval time.Duration `yaml:"min_interval"` // between two looks for the same thing; 100ms..1h; default 10s
	PerHour     time.Duration `yaml:"per_hour"`     // time spent in looks, together, over any hour; 1s..1h; default 60s
	Rest        time.Duration `yaml:"rest"`         // after three signs of overload in a row, doubled up to 16 times as long while they go on; 1s..1h; default 1m
}

// WithDefaults fills what is zero.
func (b Budget) WithDefaults() Budget {
	setDefault(&b.MinInterval, 10*time.Second)
	setDefault(&b.PerHour, time.Minute)
	setDefault(&b.Rest, time.Minute)
	return b
}

// Validate returns every fault of b, joined; each is a *setting.Error.
func (b Budget) Validate() error {
	var f setting.Faults
	within(&f, "min_interval", b.MinInterval, 100*time.Millisecond, time.Hour, "100ms..1h")
	within(&f, "per_hour", b.PerHour, time.Second, time.Hour, "1s..1h")
	within(&f, "rest", b.Rest, time.Second, time.Hour, "1s..1h")
	return f.Err()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// within takes zero too, which stands for the default.
func within[T int | int64 | float64 | time.Duration](f *setting.Faults, path string, v, low, high T, want string) {
	f.Check(v == 0 || v >= low && v <= high, path, v, want)
}

const (
	slots    = 60 // of a minute each
	patience = 3  // signs of overload in a row
	maxKeys  = 4096
	longest  = 16 // times Rest
)

// Spent is what a collector has done so far.
type Spent struct {
	Looks       uint64        `json:"looks"`
	Refused     uint64        `json:"refused"`      // by the budget or while resting
	Overloads   uint64        `json:"overloads"`    // signs of overload
	LastHour    time.Duration `json:"last_hour_ns"` // time spent in looks
	RestsUntil  time.Time     `json:"rests_until"`  // zero or past = it does not rest
	LastFailure string        `json:"last_failure,omitempty"`
}

// guard keeps a Budget. It is told the time; safe for concurrent use.
type guard struct {
	mu      sync.Mutex
	budget  Budget
	last    map[string]time.Time // by what was looked for
	slots   [slots]time.Duration
	minute  int64 // of the newest slot
	signs   int   // of overload, in a row
	rests   int   // in a row
	spent   Spent
	waiting bool // a look to see whether the server is well again
}

func newGuard(b Budget) *guard { return &guard{budget: b.WithDefaults(), last: map[string]time.Time{}} }

// begin asks for a look for key. After a rest one look at a time is let through until one goes well.
func (g *guard) begin(now time.Time, key string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn(now)
	err := g.refusal(now, key)
	if err != nil {
		g.spent.Refused++
		return err
	}
	if len(g.last) >= maxKeys {
		g.forget(now)
	}
	g.last[key] = now
	g.spent.Looks++
	g.waiting = g.rests > 0
	return nil
}

func (g *guard) refusal(now time.Time, key string) error {
	if now.Before(g.spent.RestsUntil) {
		return fmt.Errorf("%w; until %s", ErrResting, g.spent.RestsUntil.Format(time.TimeOnly))
	}
	if g.waiting {
		return fmt.Errorf("%w; one look is under way to see whether it is well again", ErrResting)
	}
	if last, ok := g.last[key]; ok && now.Sub(last) < g.budget.MinInterval {
		return fmt.Errorf("%w; again in %s", ErrTooSoon, (g.budget.MinInterval - now.Sub(last)).Round(time.Millisecond))
	}
	if s := g.hour(); s >= g.budget.PerHour {
		return fmt.Errorf("%w: %s of %s", ErrSpent, s.Round(time.Millisecond), g.budget.PerHour)
	}
	return nil
}

// forget makes room: keys that may be looked for again need no memory, and when there are none the oldest half does not.
func (g *guard) forget(now time.Time) {
	for k, at := range g.last {
		if now.Sub(at) >= g.budget.MinInterval {
			delete(g.last, k)
		}
	}
	for k := range g.last {
		if len(g.last) < maxKeys/2 {
			break
		}
		delete(g.last, k)
	}
}

// end says what a look cost and whether it showed that the server is overloaded.
func (g *guard) end(now time.Time, took time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn(now)
	g.slots[g.minute%slots] += max(took, 0)
	g.waiting = false
	if err != nil {
		g.spent.LastFailure = err.Error()
	}
	if errors.Is(err, context.Canceled) { // the caller left: no sign of anything
		return
	}
	if !overload(err) {
		g.signs, g.rests = 0, 0
		return
	}
	g.spent.Overloads++
	g.signs++
	if g.signs >= patience || g.rests > 0 {
		g.spent.RestsUntil = now.Add(g.budget.Rest * time.Duration(min(longest, 1<<min(g.rests, 10))))
		g.rests++
		g.signs = 0
	}
}

// turn empties the slots of minutes that are more than an hour old.
func (g *guard) turn(now time.Time) {
	minute := now.Unix() / 60
	if minute-g.minute >= slots || g.minute == 0 {
		g.slots = [slots]time.Duration{}
		g.minute = minute
	}
	for g.minute < minute {
		g.minute++
		g.slots[g.minute%slots] = 0
	}
}

func (g *guard) hour() (sum time.Duration) {
	for _, s := range g.slots {
		sum += s
	}
	return sum
}

func (g *guard) report(now time.Time) Spent {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn(now)
	s := g.spent
	s.LastHour = g.hour()
	return s
}

// errOverload marks failures that show an overloaded server.
var errOverload = errors.New("the server is overloaded")

func overload(err error) bool {
	return errors.Is(err, errOverload) || errors.Is(err, context.DeadlineExceeded)
}

// look runs f under g and a timeout. It owns the clock, so that guard needs none.
func (g *guard) look(ctx context.Context, key string, timeout time.Duration, f func(context.Context) error) error {
	start := time.Now()
	if err := g.begin(start, key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := f(ctx)
	g.end(time.Now(), time.Since(start), err)
	return err
}
