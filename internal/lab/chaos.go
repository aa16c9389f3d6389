package lab

import (
	"context"
	_ "embed" // the system that chaos is let loose on unless told otherwise
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
)

//go:embed chaos/shop.yaml
var chaosShop []byte

// ChaosShop is a system with several replicas of each service and every protective policy on.
func ChaosShop() (scenario.Scenario, error) { return ReadScenario("chaos/shop.yaml", chaosShop) }

// ChaosReport is what came of a schedule.
type ChaosReport struct {
	Scenario    string        `json:"scenario"`
	Seed        uint64        `json:"seed"`
	Real        bool          `json:"real,omitempty"` // servers and processes of their own
	Started     time.Time     `json:"started"`
	Calm        ChaosFigures  `json:"calm"`   // of the beginning, without any fault
	Faults      []ChaosResult `json:"faults"` // in the order of their time
	Held        int           `json:"held"`   // hypotheses
	Interrupted bool          `json:"interrupted,omitempty"`
	Doubts      []string      `json:"doubts,omitempty"` // of the load generator about its figures
	Timeline    []ChaosPoint  `json:"timeline"`         // what clients saw, from the calm on
	Seconds     float64       `json:"seconds"`
}

const (
	calmTime   = 8 * time.Second // that all hypotheses are relative to
	glanceTime = 500 * time.Millisecond
	watchTime  = 50 * time.Millisecond // between two looks at the policies
)

// ErrCalm says that the system is in trouble without any fault, so that hypotheses mean nothing.
var ErrCalm = errors.New("lab: the system is not calm before the first fault")

// Chaos runs a system with its load, lets the faults of a drawn schedule strike it, and says which hypotheses held. The faults of
// the scenario itself are left out. When ctx ends, all faults are taken away, and the report tells of the slots that were over; it is
// marked as interrupted, and err is nil.
func Chaos(ctx context.Context, spec scenario.Scenario, o ChaosOptions) (ChaosReport, error) {
	if err := o.Validate(); err != nil {
		return ChaosReport{}, err
	}
	o = o.WithDefaults()
	began := time.Now()
	slots := DrawChaos(&spec, chaosPolicies(&spec), o)
	spec.Faults = nil
	for _, s := range slots {
		for _, x := range s.Faults {
			if x.fault.Kind != "" {
				spec.Faults = append(spec.Faults, x.fault)
			}
		}
	}
	c := &chaos{o: o, slots: slots, report: ChaosReport{
		Scenario: spec.Name, Seed: o.Seed, Real: o.Real != nil, Started: began, Faults: []ChaosResult{}, Timeline: []ChaosPoint{},
	}}
	c.trial = &trial{spec: spec, o: TrialOptions{Seed: o.Seed, Progress: o.Progress, Real: o.Real}}
	err := c.run(ctx, c.play)
	if ctx.Err() != nil {
		c.report.Interrupted, err = true, nil
	}
	for _, x := range c.report.Faults {
		one(&c.report.Held, x.Held)
	}
	c.report.Seconds = time.Since(began).Seconds()
	return c.report, err
}

// chaosPolicies are those of the services behind the gateway; a text that is not valid is left to the run to complain of.
func chaosPolicies(spec *scenario.Scenario) map[string]longpole.Config {
	policies := map[string]longpole.Config{}
	for _, e := range spec.Gateway {
		if cfg, err := gateway.Load(e.Service, edgeYAML(e)); err == nil {
			policies[e.Service] = cfg.Routes[0].Policy
		}
	}
	return policies
}

// chaos is one run of a schedule.
type chaos struct {
	*trial
	o      ChaosOptions
	slots  []Slot
	report ChaosReport

	began   time.Time // of the schedule, or of the calm before it
	shift   time.Duration
	dead    map[string]bool // what stands in servers that were killed
	seen    tape            // of the slot at hand
	before  load.Snapshot
	glanced time.Duration // when before was taken
}

// play goes through the schedule.
func (c *chaos) play(ctx context.Context) error {
	if err := c.system.Begin(ctx, false); err != nil {
		return err
	}
	if err := c.wait(ctx, c.spec.Load.Warmup, "warming up"); err != nil {
		return err
	}
	defer c.clear(context.WithoutCancel(ctx))
	c.began, c.before, c.shift, c.dead = time.Now(), c.traffic.Snapshot(), -calmTime, map[string]bool{}
	c.o.Progress(fmt.Sprintf("calm, %s", calmTime))
	watched := newWatcher(protectionsOf(c.gateway.Routes()))
	if err := c.until(ctx, calmTime, func(at time.Duration) { watched.look(protectionsOf(c.gateway.Routes()), at) }); err != nil {
		return err
	}
	calm := c.seen.between(0, calmTime+time.Hour)
	c.report.Calm = calm.figures()
	if calm.calls < fewCalls || calm.errors() > fewFail {
		return fmt.Errorf("%w: %d calls, %.3g %% of them failed", ErrCalm, calm.calls, 100*calm.errors())
	}
	c.began, c.glanced, c.shift = time.Now(), 0, 0
	for i, s := range c.slots {
		c.seen = nil
		e := &episode{slot: s, calm: calm, usual: watched.rates(calmTime)}
		if err := c.slot(ctx, e, i); err != nil {
			return err
		}
		e.seen = c.seen
		results := e.judge()
		c.report.Faults = append(c.report.Faults, results...)
		c.o.Ended(results)
	}
	c.report.Doubts = c.traffic.Snapshot().Doubts()
	return nil
}

// slot plays one piece of the schedule.
func (c *chaos) slot(ctx context.Context, e *episode, number int) error {
	s := e.slot
	tell := func(what string) {
		c.o.Progress(fmt.Sprintf("slot %d of %d: %s", number+1, len(c.slots), what))
	}
	tell("calm")
	if err := c.until(ctx, s.On, func(time.Duration) {}); err != nil {
		return err
	}
	var names []string
	for _, x := range s.Faults {
		names = append(names, x.Kind+" at "+x.Where)
	}
	tell(strings.Join(names, ", "))
	on := map[string]bool{} // by name, of the system's faults
	e.watched, e.out = newWatcher(protectionsOf(c.gateway.Routes())), c.ejected()
	watch, looked := newGuard(c.o), len(c.seen)
	err := c.until(ctx, s.Off, func(at time.Duration) {
		e.watched.look(protectionsOf(c.gateway.Routes()), at-s.On)
		for ; looked < len(c.seen) && e.stopped == ""; looked++ {
			e.stopped = watch.look(c.seen[looked])
		}
		for _, x := range s.Faults {
			c.strike(ctx, x, at-s.On, e.stopped == "", on)
		}
		if e.stopped != "" && e.off == 0 {
			e.off = at
			tell(strings.Join(names, ", ") + " taken away: " + e.stopped)
		}
	})
	c.clear(context.WithoutCancel(ctx))
	if e.off == 0 {
		e.off = time.Since(c.began)
	}
	if err != nil {
		return err
	}
	tell("recovering")
	return c.until(ctx, s.End, func(at time.Duration) { e.watched.look(protectionsOf(c.gateway.Routes()), at-s.On) })
}

// strike makes one fault what it should be so long after the beginning of its slot's faults.
func (c *chaos) strike(ctx context.Context, x Drawn, at time.Duration, wanted bool, on map[string]bool) {
	name := x.fault.Name + x.own.Name
	want := wanted && (!x.flaps || at/flapTime%2 == 0) && (x.most == 0 || at < x.most)
	if want == on[name] {
		return
	}
	on[name] = want
	switch {
	case x.crashes != "":
		c.crash(ctx, x.crashes, want)
	case x.own.Share == 0:
		c.complain(c.system.Switch(ctx, name, want))
	case want:
		c.inject(x)
	default:
		c.withdraw(name)
	}
}

// ejected is the replicas that no calls are sent to now, by name.
func (c *chaos) ejected() map[string]bool {
	at := map[string]string{} // names by address
	for _, x := range c.spec.Services {
		for i, url := range c.system.Endpoints(x.Name) {
			at[strings.TrimPrefix(url, "http://")] = instanceName(x.Name, i+1)
		}
	}
	out := map[string]bool{}
	for _, r := range c.gateway.Routes() {
		for _, e := range r.Endpoints {
			if e.Ejected || !e.Healthy {
				out[at[e.Name]] = true
			}
		}
	}
	return out
}

// crash kills a server, or starts it again.
func (c *chaos) crash(ctx context.Context, what string, on bool) {
	err := c.system.crash(ctx, what, on)
	c.dead[what] = on && err == nil
	c.complain(err)
}

// inject starts a fault of the gateway's own on all routes of the service that it is about.
func (c *chaos) inject(x Drawn) {
	own := x.own
	own.TTL = c.o.Every
	if list := c.system.Endpoints(x.fault.Service); x.fault.Replica >= 1 && x.fault.Replica <= len(list) {
		own.Endpoint = strings.TrimPrefix(list[x.fault.Replica-1], "http://")
	}
	for i, r := range c.gateway.Routes() {
		if serviceOf(r.Name) == x.fault.Service {
			own.Name = fmt.Sprintf("%s.%d", x.own.Name, i)
			c.complain(c.gateway.StartFault(r.Name, own))
		}
	}
}

// withdraw stops the gateway's own faults whose names begin so.
func (c *chaos) withdraw(prefix string) {
	for _, f := range c.gateway.Faults() {
		if f.Running() && strings.HasPrefix(f.Name, prefix+".") {
			c.complain(c.gateway.StopFault(f.Name, "the end of its time"))
		}
	}
}

// complain keeps an error for the report: a fault that did not begin has proved nothing.
func (c *chaos) complain(err error) {
	if err != nil {
		c.report.Doubts = append(c.report.Doubts, err.Error())
	}
}

// clear takes every fault away. The servers come first: other faults may need them.
func (c *chaos) clear(ctx context.Context) {
	for what, dead := range c.dead {
		if dead {
			c.crash(ctx, what, false)
		}
	}
	for _, name := range c.system.Active() {
		c.complain(c.system.Switch(ctx, name, false))
	}
	for _, slot := range c.slots {
		for _, x := range slot.Faults {
			if x.own.Share > 0 {
				c.withdraw(x.own.Name)
			}
		}
	}
}

// until watches clients until that time of the schedule, and calls look again and again.
func (c *chaos) until(ctx context.Context, end time.Duration, look func(at time.Duration)) error {
	for {
		at := time.Since(c.began)
		if at-c.glanced >= glanceTime || at >= end {
			c.glance(at)
		}
		if at >= end {
			return nil
		}
		look(at)
		if err := pause(ctx, min(watchTime, end-at)); err != nil {
			return err
		}
	}
}

// glance takes in what clients saw since the last one. The spans are nobody's concern here.
func (c *chaos) glance(at time.Duration) {
	now := c.traffic.Snapshot()
	g := glance{from: c.glanced, to: at}
	for _, r := range now.Sub(c.before).Results {
		g.calls += r.Calls
		g.failed += r.Failed
		g.latency, g.lag = g.latency.Merge(r.Response), g.lag.Merge(r.Lag)
	}
	c.before, c.glanced = now, at
	c.seen = append(c.seen, g)
	c.report.Timeline = addPoint(c.report.Timeline, ChaosPoint{At: g.from + c.shift, Took: g.to - g.from, Calls: g.calls, Errors: g.errors(), P99: g.figures().P99})
	c.spans.forget()
}

// forget drops all spans.
func (c *collection) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = nil
}
