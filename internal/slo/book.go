package slo

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Book holds objectives, what was counted for them, and their alerts. Make one with New. All methods are safe for
// concurrent use; times must not run backwards by more than a bucket to be counted where they belong.
type Book struct {
	mu    sync.Mutex
	order []*tracker // as configured
	named map[string]*tracker
}

// tracker is one objective.
type tracker struct {
	o      Objective // with its defaults
	ring   ring
	ledger ledger
	alerts []Alert // one of each severity, in the order of severities

	begin    time.Time // of what was counted; zero = nothing was
	last     Counts    // the latest cumulative counts
	observed bool      // there are any
}

// New is a Book of these objectives; its error is that of ValidateAll.
func New(all []Objective) (*Book, error) {
	if err := ValidateAll(all); err != nil {
		return nil, err
	}
	b := &Book{named: make(map[string]*tracker, len(all))}
	for _, o := range all {
		t := newTracker(o.WithDefaults())
		b.order = append(b.order, t)
		b.named[o.Name] = t
	}
	return b, nil
}

func newTracker(o Objective) *tracker {
	t := &tracker{o: o, ring: newRing(o.Period), ledger: newLedger(o.Period)}
	for _, s := range severities {
		t.alerts = append(t.alerts, Alert{Severity: s, State: Inactive})
	}
	return t
}

// Reconfigure replaces the objectives. Those that still measure the same keep what was counted, as with Restore. On an error,
// that of ValidateAll, nothing changes.
func (b *Book) Reconfigure(now time.Time, all []Objective) error {
	fresh, err := New(all)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range fresh.order {
		old := b.named[t.o.Name]
		if old != nil && t.restore(now, old.keep()) == nil { // what is measured in another way begins anew
			t.last, t.observed = old.last, old.observed
			t.ledger.shares, t.ledger.at = old.ledger.shares, old.ledger.at
		}
	}
	b.order, b.named = fresh.order, fresh.named
	return nil
}

// Objectives are those of the book with their defaults, in the order they were given.
func (b *Book) Objectives() []Objective {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Objective, 0, len(b.order))
	for _, t := range b.order {
		all = append(all, t.o)
	}
	return all
}

// Observe counts what was added to cumulative counts since they were last observed. The first time tells nothing but where
// they stand. Counts that shrank began anew, and all of them is added. An unknown name is ignored.
func (b *Book) Observe(now time.Time, name string, cumulative Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.named[name]
	if t == nil {
		return
	}
	added := Counts{Total: cumulative.Total - t.last.Total, Bad: cumulative.Bad - t.last.Bad}
	if cumulative.Total < t.last.Total || cumulative.Bad < t.last.Bad {
		added = cumulative
	}
	first := !t.observed
	t.last, t.observed = cumulative, true
	if first {
		added = Counts{}
	}
	t.add(now, added)
}

// Add counts c at now, for a caller that knows what is new. An unknown name is ignored.
func (b *Book) Add(now time.Time, name string, c Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.named[name]; t != nil {
		t.add(now, c)
	}
}

func (t *tracker) add(now time.Time, c Counts) {
	c.Bad = min(c.Bad, c.Total)
	if t.begin.IsZero() {
		t.begin = now
	}
	t.ring.add(now, c)
	t.ledger.add(now, c.Bad)
}

// Explain says what the bad calls of an objective are put down to from now on, until the next Explain, for 15 minutes at
// most. The shares are copied; those beyond 64 are ignored, as is an unknown name.
func (b *Book) Explain(now time.Time, name string, shares []Share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.named[name]; t != nil {
		t.ledger.explain(now, shares)
	}
}

// Evaluate moves all alerts on, and returns those that began or ended, in the order of the objectives.
func (b *Book) Evaluate(now time.Time) []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	var news []Event
	for _, t := range b.order {
		burns := t.burns(now)
		for i := range t.alerts {
			a := &t.alerts[i]
			if a.step(now, slices.ContainsFunc(burns, func(w Burn) bool { return w.Severity == a.Severity && w.Holds })) {
				news = append(news, Event{At: now, Alert: *a, Status: t.status(now)})
			}
		}
	}
	return news
}

func (t *tracker) burns(now time.Time) []Burn {
	all := make([]Burn, 0, len(t.o.Windows))
	for _, w := range t.o.Windows {
		all = append(all, t.o.burnOf(w, t.ring.window(now, w.Long), t.ring.window(now, w.Short)))
	}
	return all
}

// Status is one objective at one moment. Ratios are 0..1, but Remaining, which is below 0 when more was used than there was.
type Status struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Route       string     `json:"route"`
	Kind        Kind       `json:"kind"`
	Target      float64    `json:"target"`
	ThresholdMS float64    `json:"threshold_ms,omitempty"`
	Period      Period     `json:"period"`
	Calls       uint64     `json:"calls"` // in the period, as all that follows
	Bad         uint64     `json:"bad"`
	Good        float64    `json:"good"`      // share of the calls; 1 without any
	Allowed     float64    `json:"allowed"`   // bad calls that so many calls may hold
	Remaining   float64    `json:"remaining"` // share of the error budget
	Counted     time.Time  `json:"counted"`   // since when calls are counted: later than a period ago in the first period; zero = not yet
	Exhausted   *time.Time `json:"exhausted"` // when nothing will remain, if all goes on as in the last hour; null = it will last
	Burns       []Burn     `json:"burns"`     // as configured
	Alerts      []Alert    `json:"alerts"`    // page, ticket
	BurnedBy    []Burned   `json:"burned_by"` // what used the budget, the most first
}

func (t *tracker) status(now time.Time) Status {
	c := t.ring.window(now, t.o.Period.Duration())
	s := Status{
		Name: t.o.Name, Description: t.o.Description, Route: t.o.Route, Kind: t.o.Kind, Target: t.o.Target, Period: t.o.Period,
		ThresholdMS: float64(t.o.Threshold) / float64(time.Millisecond),
		Calls:       c.Total, Bad: c.Bad, Good: 1, Allowed: float64(c.Total) * t.o.Allowed(), Remaining: t.o.Remaining(c),
		Counted: t.begin, Burns: t.burns(now), Alerts: slices.Clone(t.alerts), BurnedBy: t.ledger.burned(now),
	}
	if c.Total > 0 {
		s.Good = float64(c.Total-c.Bad) / float64(c.Total)
	}
	if at, ok := t.exhaustion(now); ok {
		s.Exhausted = &at
	}
	return s
}

// Status of all objectives, as configured.
func (b *Book) Status(now time.Time) []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Status, 0, len(b.order))
	for _, t := range b.order {
		all = append(all, t.status(now))
	}
	return all
}

// Hold says whether a change to a route should wait, and why: one of its objectives pages, or has no error budget left. The
// alerts are those of the latest Evaluate.
func (b *Book) Hold(now time.Time, route string) (reason string, hold bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.order {
		if t.o.Route != route {
			continue
		}
		for _, a := range t.alerts {
			if a.Severity == Page && a.State == Firing {
				return fmt.Sprintf("objective %s burns its error budget fast, since %s", t.o.Name, a.Since.UTC().Format(time.RFC3339)), true
			}
		}
		if c := t.ring.window(now, t.o.Period.Duration()); t.excess(float64(c.Total), float64(c.Bad)) > 0 {
			return fmt.Sprintf("objective %s has used up its error budget: %d of %d calls were bad, %.4g were allowed", t.o.Name, c.Bad, c.Total, float64(c.Total)*t.o.Allowed()), true
		}
	}
	return "", false
}
