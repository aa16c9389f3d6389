package probe

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

// samples is how often within a window is looked at what comes and goes: sessions, pools.
const samples = 5

// source is one system that is looked at.
type source interface {
	// collect looks at the system over window. It gives what it saw as a function that adds it to facts, nil = nothing, and
	// beside that what failed.
	collect(ctx context.Context, window time.Duration, ask func() []Query) (add func(*evidence.Facts), err error)
	spent() Spent
	close()
}

// Status is how one source fares.
type Status struct {
	Kind  string    `json:"kind"` // postgres, redis, queue, profiles, metrics, prometheus
	Name  string    `json:"name"`
	At    time.Time `json:"at"`              // of the last collection that went well; zero = none did
	Fault string    `json:"fault,omitempty"` // of the last collection; "" = none
	Spent Spent     `json:"spent"`
}

// member is a source and how it fares.
type member struct {
	kind, name string
	source     source
	at         time.Time
	fault      string
}

// Collector collects evidence from all systems of a Config. Safe for concurrent use; collections follow one another.
type Collector struct {
	cfg     Config
	turn    sync.Mutex // held by the collection that is under way
	mu      sync.Mutex // guards what members tell of themselves
	members []*member

	// Services tells of which services evidence is wanted, where a source knows of many; nil or none = of all. It is called at the end of
	// a window, and set before the first one.
	Services func() []string
}

// NewCollector makes a collector; nothing is dialled before the first collection. The error joins the faults of c, each a
// *setting.Error, or is that of a file that c names.
func NewCollector(c Config) (*Collector, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	out := &Collector{cfg: c}
	client := &http.Client{
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	add := func(kind, name string, s source) {
		out.members = append(out.members, &member{kind: kind, name: name, source: s})
	}
	for _, p := range c.Postgres {
		dial, err := DialPostgres(p.DSN)
		if err != nil {
			return nil, err
		}
		reader, err := NewPostgres(p, dial)
		if err != nil {
			return nil, err
		}
		add("postgres", p.title(), &postgresSource{name: p.title(), reader: reader, budget: p.Budget})
	}
	for _, r := range c.Redis {
		reader, err := NewRedis(r, nil)
		if err != nil {
			return nil, err
		}
		add("redis", r.title(), &redisSource{cfg: r, reader: reader})
	}
	for _, q := range c.Queues {
		reader, err := NewQueue(q, nil)
		if err != nil {
			return nil, err
		}
		add("queue", plainURL(q.URL), &queueSource{cfg: q, reader: reader})
	}
	for _, p := range c.Profiles {
		s, err := newProfileSource(p, client)
		if err != nil {
			return nil, err
		}
		add("profiles", plainURL(p.URL), s)
	}
	for _, m := range c.Metrics {
		reader, err := NewMetrics(m, client)
		if err != nil {
			return nil, err
		}
		add("metrics", plainURL(m.URLs[0]), &metricsSource{cfg: m, reader: reader})
	}
	for _, p := range c.Prometheus {
		reader, err := NewPrometheus(p, client)
		if err != nil {
			return nil, err
		}
		add("prometheus", plainURL(p.URL), &prometheusSource{reader: reader, services: out.services})
	}
	return out, nil
}

// Collect looks at all systems side by side over window, and asks databases about the statements that ask gives; it is
// called once, at the end of the window, and nil = none. What could not be read is a Gap; what fails does not stop the
// rest. The first collection begins with a look of its own, later ones go on from the last. It returns early when ctx
// ends, with what there is.
func (c *Collector) Collect(ctx context.Context, window time.Duration, ask func() []Query) evidence.Facts {
	c.turn.Lock()
	defer c.turn.Unlock()
	if ask == nil {
		ask = func() []Query { return nil }
	}
	ask = sync.OnceValue(ask)
	facts := evidence.Facts{From: time.Now()}
	adds := make([]func(*evidence.Facts), len(c.members))
	faults := make([]error, len(c.members))
	var all sync.WaitGroup
	for i, m := range c.members {
		all.Go(func() {
			adds[i], faults[i] = m.source.collect(ctx, window, ask)
			c.note(m, faults[i])
		})
	}
	all.Wait()
	facts.To = time.Now()
	for i, m := range c.members {
		if adds[i] != nil {
			adds[i](&facts)
		}
		if faults[i] != nil {
			facts.Gaps = append(facts.Gaps, evidence.Gap{What: m.kind + " " + m.name, Why: faults[i].Error()})
		}
	}
	facts.Bound()
	return facts
}

func (c *Collector) services() []string {
	if c.Services == nil {
		return nil
	}
	return c.Services()
}

func (c *Collector) note(m *member, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.fault = ""
	switch {
	case err == nil:
		m.at = time.Now()
	case !errors.Is(err, context.Canceled):
		m.fault = err.Error()
	}
}

// Run collects until ctx ends, one window after the other, and hands what was read to keep.
func (c *Collector) Run(ctx context.Context, ask func() []Query, keep func(evidence.Facts)) {
	for ctx.Err() == nil {
		began := time.Now()
		facts := c.Collect(ctx, c.cfg.Every, ask)
		if ctx.Err() != nil {
			return
		}
		keep(facts)
		pause(ctx, c.cfg.Every-time.Since(began)) // nothing where the window was waited for
	}
}

// Most is how many statements of traces a collection asks about.
func (c *Collector) Most() int { return c.cfg.Statements }

// Status tells how each source fares, in the order of the configuration.
func (c *Collector) Status() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Status, len(c.members))
	for i, m := range c.members {
		out[i] = Status{Kind: m.kind, Name: m.name, At: m.at, Fault: m.fault, Spent: m.source.spent()}
	}
	return out
}

// Close ends all connections, after the collection that is under way.
func (c *Collector) Close() {
	c.turn.Lock()
	defer c.turn.Unlock()
	for _, m := range c.members {
		m.source.close()
	}
}

// pause waits for d; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// beats yields at once, then again and again until window is over, the last time at its end; or until ctx is. Between two
// lies a part of the window, but at least least.
func beats(ctx context.Context, window, least time.Duration) iter.Seq[int] {
	return func(yield func(int) bool) {
		step, end := max(window/samples, least, time.Millisecond), time.Now().Add(window)
		for n := 0; yield(n); n++ {
			left := time.Until(end)
			if left <= 0 || !pause(ctx, min(step, left)) {
				return
			}
		}
	}
}

// quietly drops the failure of a look that the budget holds back: an earlier one stands for it.
func quietly(err error) error {
	if errors.Is(err, ErrTooSoon) {
		return nil
	}
	return err
}

// healthyProfile reads the profile that a configuration names; "" = nil.
func healthyProfile(c ProfilesConfig) (*evidence.Profile, error) {
	if c.Healthy == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.Healthy)
	if err != nil {
		return nil, fmt.Errorf("probe: healthy profile of %s: %w", c.Service, err)
	}
	p, err := ParseProfile(data, "cpu", c.Service, c.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("probe: healthy profile %s: %w", c.Healthy, err)
	}
	return &p, nil
}
