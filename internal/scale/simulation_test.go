package scale

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// The simulation: calls arrive at a gateway as a Poisson process, wait there for a permit in the order of their arrival,
// for a second at most, and are then served by replicas of four slots. The decider under test sees what a gateway counts,
// once a second, and its recommendations are carried out: replicas start after a time, and go at once.
const (
	simSlots   = 4
	simService = 50 * time.Millisecond // mean, lognormal
	simPerPod  = simSlots * 20.0       // calls a second when all slots are taken
)

type sim struct {
	*testing.T
	cfg     Config
	start   time.Duration // of a replica
	rate    func(at time.Duration) float64
	rand    *rand.Rand
	now     time.Duration
	ready   int
	orders  []time.Duration // when replicas that start will be ready
	busy    departures
	queue   []time.Duration // when waiting calls arrived
	arrived uint64
	calls   stats.Histogram
	tries   stats.Histogram
	halves  []stats.Histogram // what calls took that ended in each half minute
	desired []int             // by second
	readyAt []int
}

type departures []departure

type departure struct{ at, arrived, began time.Duration }

func (d departures) Len() int           { return len(d) }
func (d departures) Less(i, j int) bool { return d[i].at < d[j].at }
func (d departures) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *departures) Push(x any)        { *d = append(*d, x.(departure)) }
func (d *departures) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

var simBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// simulate runs for so long with this offered rate, and returns what happened.
func simulate(t *testing.T, c Config, replicas int, start, length time.Duration, seed uint64, rate func(time.Duration) float64) *sim {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s := &sim{T: t, cfg: c, start: start, rate: rate, rand: rand.New(rand.NewPCG(seed, 1)), ready: replicas, halves: make([]stats.Histogram, length/half)}
	d := New(c)
	next := s.gap()
	for tick := time.Second; tick <= length; tick += time.Second {
		for s.step(tick, &next) {
		}
		s.now = tick
		s.started()
		d.Observe(simBegin.Add(s.now), Sample{
			Arrivals: s.arrived, Ready: s.ready, Starting: len(s.orders), Limit: s.ready * simSlots, Calls: s.calls.Snapshot(), Attempts: s.tries.Snapshot(),
		})
		r := d.Recommend(simBegin.Add(s.now))
		s.desired, s.readyAt = append(s.desired, r.Desired), append(s.readyAt, s.ready)
		s.carryOut(r.Desired)
	}
	return s
}

// step handles the next event before until.
func (s *sim) step(until time.Duration, next *time.Duration) bool {
	if len(s.busy) > 0 && s.busy[0].at <= *next {
		if s.busy[0].at > until {
			return false
		}
		e := heap.Pop(&s.busy).(departure)
		s.now = e.at
		s.tries.Record(e.at - e.began)
		s.ended(e.at - e.arrived)
		s.serve()
		return true
	}
	if *next > until {
		return false
	}
	s.now = *next
	s.arrived++
	s.queue = append(s.queue, s.now)
	s.serve()
	*next = s.now + s.gap()
	return true
}

func (s *sim) gap() time.Duration {
	return time.Duration(s.rand.ExpFloat64() / s.rate(s.now) * float64(time.Second))
}

// serve gives free permits to those who wait, and drops those who waited for a second.
func (s *sim) serve() {
	for len(s.queue) > 0 && s.now-s.queue[0] > time.Second {
		s.ended(s.now - s.queue[0])
		s.queue = s.queue[1:]
	}
	for len(s.queue) > 0 && len(s.busy) < s.ready*simSlots {
		const sigma = 0.5
		took := float64(simService) * math.Exp(sigma*s.rand.NormFloat64()-sigma*sigma/2)
		heap.Push(&s.busy, departure{s.now + time.Duration(took), s.queue[0], s.now})
		s.queue = s.queue[1:]
	}
}

func (s *sim) started() {
	for len(s.orders) > 0 && s.orders[0] <= s.now {
		s.orders = s.orders[1:]
		s.ready++
	}
	s.serve()
}

func (s *sim) carryOut(desired int) {
	for s.ready+len(s.orders) < desired {
		s.orders = append(s.orders, s.now+s.start)
	}
	for s.ready+len(s.orders) > desired && len(s.orders) > 0 {
		s.orders = s.orders[:len(s.orders)-1]
	}
	s.ready = min(s.ready, desired)
}

// turns is how often the number of replicas that is wanted changed its direction.
func (s *sim) turns(from time.Duration) (n int) {
	direction := 0
	for i := int(from/time.Second) + 1; i < len(s.desired); i++ {
		step := s.desired[i] - s.desired[i-1]
		if step*direction < 0 {
			n++
		}
		if step != 0 {
			direction = step
		}
	}
	return n
}

const half = 30 * time.Second

func (s *sim) ended(took time.Duration) {
	s.calls.Record(took)
	s.halves[min(int(s.now/half), len(s.halves)-1)].Record(took)
}

// p99 of the calls that ended in the half minute from at on, which is a multiple of it.
func (s *sim) p99(at time.Duration) time.Duration { return s.halves[at/half].Snapshot().Quantile(0.99) }

// report logs the figures that docs/autoscaling.md quotes.
func (s *sim) report(from time.Duration) {
	over, all, worst := 0, 0, time.Duration(0)
	end := time.Duration(len(s.desired)) * time.Second
	for at := from; at+half <= end; at += half {
		all++
		p := s.p99(at)
		worst = max(worst, p)
		if p > s.cfg.Latency {
			over++
		}
	}
	sum := 0
	for _, n := range s.readyAt[from/time.Second:] {
		sum += n
	}
	s.Logf("from %v on: p99 over %v in %d of %d half minutes, worst %v; up to %d replicas, %.1f on average; %d turns",
		from, s.cfg.Latency, over, all, worst.Round(time.Millisecond), s.most(from, end), float64(sum)/float64(len(s.readyAt)-int(from/time.Second)), s.turns(from))
}

// kept fails for each half minute of a span in which the objective was missed.
func (s *sim) kept(from, to time.Duration) {
	s.Helper()
	for at := from; at+half <= to; at += half {
		if p := s.p99(at); p > s.cfg.Latency {
			s.Errorf("p99 is %v at %v with %d replicas; want %v", p, at, s.readyAt[at/time.Second], s.cfg.Latency)
		}
	}
}

func (s *sim) most(from, to time.Duration) (n int) {
	for _, d := range s.desired[from/time.Second : to/time.Second] {
		n = max(n, d)
	}
	return n
}

func simConfig() Config {
	return Config{Name: "orders", Max: 60, Latency: 250 * time.Millisecond, Start: 30 * time.Second}
}

func constant(perSecond float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return perSecond }
}

func stepAt(when time.Duration, before, after float64) func(time.Duration) float64 {
	return func(at time.Duration) float64 {
		if at < when {
			return before
		}
		return after
	}
}

// needed is what the formula gives for the true load.
func needed(perSecond float64) int { return int(math.Ceil(perSecond / simPerPod / 0.7)) }

func TestSteadyLoadKeepsItsReplicas(t *testing.T) {
	for seed := range uint64(3) {
		s := simulate(t, simConfig(), 5, 30*time.Second, 18*time.Minute, seed, constant(200))
		s.report(6 * time.Minute)
		s.kept(time.Minute, 18*time.Minute)
		if n := s.turns(6 * time.Minute); n > 2 {
			t.Errorf("seed %d: %d turns in 12 minutes of steady load", seed, n)
		}
		if most := s.most(6*time.Minute, 18*time.Minute); most > needed(200)+2 {
			t.Errorf("seed %d: up to %d replicas; %d are needed", seed, most, needed(200))
		}
	}
}

func TestAStepWithinTheHeadroomKeepsTheObjective(t *testing.T) {
	s := simulate(t, simConfig(), 5, 30*time.Second, 12*time.Minute, 1, stepAt(6*time.Minute, 250, 340))
	s.report(5 * time.Minute)
	s.kept(time.Minute, 12*time.Minute)
}

func TestABigStepIsCuredAsSoonAsReplicasStart(t *testing.T) {
	const at = 6 * time.Minute
	s := simulate(t, simConfig(), 5, 30*time.Second, 14*time.Minute, 2, stepAt(at, 200, 600))
	s.report(at)
	s.kept(time.Minute, at)
	s.kept(at+60*time.Second, 14*time.Minute)
	if n := s.turns(at); n > 1 {
		t.Errorf("%d turns after the step: it oscillates", n)
	}
	if got := s.desired[(at+8*time.Second)/time.Second]; got < needed(600)*9/10 {
		t.Errorf("8 s after the step %d replicas were wanted; want about %d", got, needed(600))
	}
}

func TestASpikeIsPaidForOnce(t *testing.T) {
	const at = 7 * time.Minute
	s := simulate(t, simConfig(), 5, 30*time.Second, 16*time.Minute, 3, func(now time.Duration) float64 {
		if now >= at && now < at+15*time.Second {
			return 800
		}
		return 200
	})
	s.report(at)
	if n := s.turns(at - time.Minute); n > 1 {
		t.Errorf("%d turns; want one: up, and down again", n)
	}
	if got := s.desired[len(s.desired)-1]; got > needed(200)+2 {
		t.Errorf("%d replicas at the end; %d are needed", got, needed(200))
	}
	s.kept(at+90*time.Second, 16*time.Minute)
}

func TestARampIsFollowedAhead(t *testing.T) {
	s := simulate(t, simConfig(), 5, 30*time.Second, 17*time.Minute, 4, func(now time.Duration) float64 {
		grown := min(max(now-5*time.Minute, 0), 10*time.Minute).Minutes()
		return 200 + 80*grown
	})
	s.report(5 * time.Minute)
	s.kept(time.Minute, 17*time.Minute)
	if n := s.turns(5 * time.Minute); n > 1 {
		t.Errorf("%d turns on a ramp", n)
	}
}

func TestSlowStartersAreOrderedOnce(t *testing.T) {
	c := simConfig()
	c.Start = 3 * time.Minute
	const at = 6 * time.Minute
	s := simulate(t, c, 5, 3*time.Minute, 18*time.Minute, 5, stepAt(at, 200, 500))
	s.report(at)
	if most := s.most(at, 18*time.Minute); most > 2*needed(500)+2 {
		t.Errorf("up to %d replicas were wanted while the first still started; %d are needed", most, needed(500))
	}
	s.kept(at+4*time.Minute, 18*time.Minute)
	if n := s.turns(at); n > 1 {
		t.Errorf("%d turns", n)
	}
}

func TestScaleInWaitsAndKeepsTheObjective(t *testing.T) {
	const at = 6 * time.Minute
	s := simulate(t, simConfig(), 18, 30*time.Second, 15*time.Minute, 6, stepAt(at, 800, 200))
	s.report(at)
	for second, n := range s.desired[at/time.Second : (at+4*time.Minute)/time.Second] {
		if n < needed(700) {
			t.Fatalf("%d replicas are wanted %d s after the load fell; want at least %d for five minutes", n, second, needed(700))
		}
	}
	if got := s.desired[len(s.desired)-1]; got > needed(200)+2 {
		t.Errorf("%d replicas at the end; %d are needed", got, needed(200))
	}
	s.kept(time.Minute, 15*time.Minute)
}
