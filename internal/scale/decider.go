package scale

import (
	"fmt"
	"math"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Sample is what was counted of a workload so far, by all gateways in front of it together.
type Sample struct {
	Arrivals uint64         // cumulative: calls that wanted a permit, those that were shed as well; without cache hits
	Ready    int            // replicas that take calls
	Starting int            // replicas that were ordered and take none yet
	Limit    int            // permits of the limiters, for all that are ready together; 0 = not known
	Calls    stats.Snapshot // cumulative: time of calls as their callers see it, with the wait for a permit
	Attempts stats.Snapshot // cumulative: time of attempts, which begin when there is a permit
	CPU      float64        // mean share of what a replica may use; 0 = not known
	Memory   float64        // the same of memory
}

// Recommendation is how many replicas there should be, and why.
type Recommendation struct {
	Name      string    `json:"name"`
	At        time.Time `json:"at"`
	Current   int       `json:"current"` // ready and starting
	Ready     int       `json:"ready"`
	Desired   int       `json:"desired"`
	Bound     Bound     `json:"bound"`  // what decided
	Reason    string    `json:"reason"` // in words
	DryRun    bool      `json:"dry_run"`
	Active    bool      `json:"active"`          // calls came within the last minute
	PerSecond float64   `json:"per_second"`      // calls that are expected
	ServiceMS float64   `json:"service_ms"`      // of one call in a replica; 0 = nothing was measured yet
	Slots     float64   `json:"slots"`           // calls at once in one replica, at the knee; 0 = not known yet
	FewerMS   *float64  `json:"p_with_fewer_ms"` // what the quantile would be with one replica fewer, in milliseconds; null = they could not keep up, or nothing is known
}

// Bound is what decided a Recommendation.
type Bound string

// The bounds.
const (
	ByLoad    Bound = "load"    // calls, their time, and the limiter's knee
	ByQueue   Bound = "queue"   // calls wait for permits although the load says that there is room
	ByCPU     Bound = "cpu"     // what replicas use of it
	ByMemory  Bound = "memory"  // the same
	ByLatency Bound = "latency" // the quantile would not hold with fewer
	ByHold    Bound = "stabilisation"
	ByMin     Bound = "min"
	ByMax     Bound = "max"
	ByNothing Bound = "unknown" // nothing was measured yet: it stays as it is
)

const (
	tolerance  = 0.1              // of CPU and memory: a share this close to what is fine is fine
	settledFor = 10 * time.Second // how long the limiter needs for new replicas
)

// Decider follows one workload. Make one with New; it is not safe for concurrent use.
type Decider struct {
	cfg      Config
	arrivals arrivals
	calls    window
	attempts window
	one      replica
	now      Sample
	changed  time.Time // when the number of replicas, ready or starting, last was another one
	settled  time.Time // when the number of ready ones last was another one
	begin    time.Time
	wanted   []wish // of the last ScaleInAfter, the newest last; each below those before it
}

// wish is what was wanted at one moment.
type wish struct {
	at       time.Time
	replicas int
}

// New is a Decider of this Config, which must be valid.
func New(c Config) *Decider { return &Decider{cfg: c.WithDefaults()} }

// Observe takes what was counted until now. Call it every second or two: a forecast of six seconds cannot be had from less.
func (d *Decider) Observe(now time.Time, s Sample) {
	if d.begin.IsZero() {
		d.begin, d.changed, d.settled = now, now, now
	}
	if s.Ready != d.now.Ready {
		d.settled = now
	}
	if s.Ready+s.Starting != d.now.Ready+d.now.Starting {
		d.changed = now
	}
	d.now = s
	d.arrivals.observe(now, s.Arrivals)
	d.calls.observe(now, s.Calls)
	d.attempts.observe(now, s.Attempts)
	if now.Sub(d.settled) < settledFor && d.one.slots > 0 {
		return // a limit that was learned with other replicas says nothing about these
	}
	if mean, spread := serviceOf(d.attempts.snapshot(now)); mean > 0 {
		d.one.service, d.one.spread = mean, spread
	}
	if s.Limit > 0 && s.Ready > 0 {
		slots := float64(s.Limit) / float64(s.Ready)
		if d.one.slots == 0 {
			d.one.slots = slots
		}
		d.one.slots += 0.1 * (slots - d.one.slots)
	}
}

// Recommend says how many replicas there should be, for what was observed so far.
func (d *Decider) Recommend(now time.Time) Recommendation {
	s := d.now
	perSecond, rule := d.arrivals.forecast(now, d.cfg.Start)
	r := Recommendation{
		Name: d.cfg.Name, At: now, Current: s.Ready + s.Starting, Ready: s.Ready, DryRun: d.cfg.DryRun, Active: d.active(now),
		PerSecond: perSecond, ServiceMS: ms(d.one.service), Slots: d.one.slots,
	}
	want, bound, why := d.need(now, perSecond, rule)
	if want < r.Current {
		want, bound, why = d.fewer(now, want, perSecond, bound, why)
	}
	if p, ok := d.whatIf(now, r.Current-1, perSecond); ok && d.known() {
		fewer := ms(p)
		r.FewerMS = &fewer
	}
	if want < d.cfg.Min {
		want, bound, why = d.cfg.Min, ByMin, "it is the least that is allowed; "+why
	}
	if held := d.remember(now, min(want, d.cfg.Max)); want < r.Current && held > want {
		want, bound = min(held, r.Current), ByHold
		why = fmt.Sprintf("fewer would do now, but have not for %s: %s", d.cfg.ScaleInAfter, why)
	}
	if want > d.cfg.Max {
		want, bound, why = d.cfg.Max, ByMax, "it is the most that is allowed; "+why
	}
	r.Desired, r.Bound = want, bound
	r.Reason = fmt.Sprintf("%s: %s", count(want), why)
	return r
}

func count(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

func (d *Decider) known() bool { return d.one.slots > 0 && d.one.service > 0 }

func (d *Decider) active(now time.Time) bool {
	for _, s := range d.arrivals.seconds {
		if s.calls > 0 && now.Unix()-s.number < int64(memory/time.Second) {
			return true
		}
	}
	return false
}

// need is how many replicas are wanted by the highest of all signals.
func (d *Decider) need(now time.Time, perSecond float64, rule string) (n int, by Bound, why string) {
	current := d.now.Ready + d.now.Starting
	n, by, why = current, ByNothing, "it stays so until calls were measured and the limiter found how many a replica holds"
	if d.known() {
		exact := perSecond * d.one.service.Seconds() / (d.one.slots * d.cfg.Utilization)
		n, by = int(math.Ceil(exact-1e-9)), ByLoad
		why = fmt.Sprintf("%.4g calls/s are expected (%s), each takes %.4g ms, and a replica should have %.0f %% of its %.3g permits in use",
			perSecond, rule, ms(d.one.service), d.cfg.Utilization*100, d.one.slots)
		if wait := d.waiting(now); n <= current && wait > d.cfg.Latency/10 && now.Sub(d.changed) >= d.cfg.Start+memory/2 {
			n, by = current+1+current/10, ByQueue
			why = fmt.Sprintf("one call in %.0f waits %.4g ms for a permit, though the load says that there is room", 1/(1-d.cfg.Quantile), ms(wait))
		}
	}
	for _, bound := range []struct {
		by         Bound
		name       string
		used, fine float64
	}{{ByCPU, "CPU", d.now.CPU, d.cfg.CPU}, {ByMemory, "memory", d.now.Memory, d.cfg.Memory}} {
		m := current
		if ratio := bound.used / bound.fine; ratio > 1+tolerance || ratio < 1-tolerance {
			m = int(math.Ceil(float64(d.now.Ready)*ratio - 1e-9))
		}
		if bound.used > 0 && m > n {
			n, by = m, bound.by
			why = fmt.Sprintf("replicas use %.0f %% of their %s on average, %.0f %% would be fine", bound.used*100, bound.name, bound.fine*100)
		}
	}
	return n, by, why
}

// waiting is how much longer calls take than their attempts, at the quantile.
func (d *Decider) waiting(now time.Time) time.Duration {
	q := d.cfg.Quantile
	return d.calls.snapshot(now).Quantile(q) - d.attempts.snapshot(now).Quantile(q)
}

// fewer takes away replicas, down to want, as far as the quantile holds without them.
func (d *Decider) fewer(now time.Time, want int, perSecond float64, by Bound, why string) (int, Bound, string) {
	current := d.now.Ready + d.now.Starting
	want = max(want, d.cfg.Min)
	for n := want; n < current; n++ {
		p, ok := d.whatIf(now, n, perSecond)
		if ok && p <= d.cfg.Latency {
			if n == want {
				return n, by, why
			}
			return n, ByLatency, d.wouldBe(now, n-1, perSecond)
		}
	}
	return current, ByLatency, d.wouldBe(now, current-1, perSecond)
}

func (d *Decider) wouldBe(now time.Time, n int, perSecond float64) string {
	p, ok := d.whatIf(now, n, perSecond)
	if !ok {
		return fmt.Sprintf("%s could not keep up with %.4g calls/s", count(n), perSecond)
	}
	return fmt.Sprintf("with %s p%.4g would be %.4g ms; %.4g ms must hold", count(n), d.cfg.Quantile*100, ms(p), ms(d.cfg.Latency))
}

// whatIf is what the quantile would be with n replicas: what it is, and how much longer the model says that calls would wait
// than with those that are ready. ok is false when n could not keep up.
func (d *Decider) whatIf(now time.Time, n int, perSecond float64) (p time.Duration, ok bool) {
	q := d.cfg.Quantile
	then, ok := d.one.wait(perSecond, n, q)
	if !ok {
		return 0, false
	}
	today, ok := d.one.wait(perSecond, max(d.now.Ready, 1), q)
	if !ok {
		today = 0
	}
	return d.calls.snapshot(now).Quantile(q) + max(then-today, 0), true
}

// remember notes what is wanted, and gives the most that was within ScaleInAfter: what is held. Before so much time has
// passed, what there was at the begin counts as wanted.
func (d *Decider) remember(now time.Time, want int) (held int) {
	for len(d.wanted) > 0 && d.wanted[len(d.wanted)-1].replicas <= want {
		d.wanted = d.wanted[:len(d.wanted)-1]
	}
	d.wanted = append(d.wanted, wish{now, want})
	for now.Sub(d.wanted[0].at) >= d.cfg.ScaleInAfter {
		d.wanted = d.wanted[1:]
	}
	if now.Sub(d.begin) < d.cfg.ScaleInAfter {
		return max(d.wanted[0].replicas, d.now.Ready+d.now.Starting)
	}
	return d.wanted[0].replicas
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
