package limit

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// second counts successes by the second of virtual time in which they ended.
type second map[int]int

func (s second) of(sim *sim) {
	sim.ended = func(c *simCall) {
		if c.class == call.OK {
			s[int(sim.now/time.Second)]++
		}
	}
}

// rate is the mean per second from one second to another.
func (s second) rate(from, to int) float64 {
	n := 0
	for i := from; i < to; i++ {
		n += s[i]
	}
	return float64(n) / float64(to-from)
}

func TestTheLimitConvergesWithinTenSecondsFromOneAndFromTenTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		workers int
		mean    time.Duration
		until   int
		seeds   uint64
	}{
		{40, 50 * ms, 18, 2}, {10, 10 * ms, 16, 2}, {4, 20 * ms, 30, 3}, {100, 100 * ms, 18, 1}, {50, 25 * ms, 15, 1},
	} {
		for _, start := range []int{1, 10 * c.workers} {
			for seed := range c.seeds {
				t.Run(fmt.Sprintf("%d workers of %v from %d, seed %d", c.workers, c.mean, start, seed), func(t *testing.T) {
					capacity := float64(c.workers) / c.mean.Seconds()
					l := New(Config{Limit: start, Max: 5000, Queue: &Queue{Length: 10}})
					s := newSim(l, c.workers, c.mean, 0, seed)
					s.arrive = steady(1.5 * capacity)
					ok := second{}
					ok.of(s)
					low, high := 1<<30, 0
					for at := 10 * time.Second; at < time.Duration(c.until)*time.Second; at += 100 * ms {
						s.after(at, func() { low, high = min(low, l.Limit()), max(high, l.Limit()) })
					}
					s.run(time.Duration(c.until) * time.Second)
					goodput := ok.rate(10, c.until) / capacity
					t.Logf("limit %d..%d, goodput %.3f", low, high, goodput)
					if low < c.workers/3 || high > max(5*c.workers/2, c.workers+12) {
						t.Errorf("limit %d..%d", low, high)
					}
					if goodput < 0.9 {
						t.Errorf("goodput %.3f of the capacity", goodput)
					}
				})
			}
		}
	}
}

func TestGoodputIsBackWithinASecondOfAStepTo1_4TimesTheCapacity(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		l := New(Config{Queue: &Queue{}})
		s := newSim(l, 40, 50*ms, time.Second, seed)
		s.arrive = func() (float64, call.Info) {
			if s.now < 20*time.Second {
				return 0.8 * 800, call.Info{}
			}
			return 1.4 * 800, call.Info{}
		}
		ok := second{}
		ok.of(s)
		s.run(26 * time.Second)
		t.Logf("%.3f %.3f", ok.rate(20, 21)/800, ok.rate(21, 26)/800)
		if first, then := ok.rate(21, 22), ok.rate(21, 26); first < 0.9*800 || then < 0.9*800 {
			t.Errorf("seed %d: goodput %.0f in the second after, %.0f in the five after; the peak is 800", seed, first, then)
		}
	}
}

func TestTheLimitDoesNotDriftUpInTenMinutesOfConstantSlowness(t *testing.T) {
	t.Parallel()
	const length = 10 * time.Minute
	for _, c := range []struct {
		name    string
		workers int
		service func(s *sim) time.Duration
		timeout time.Duration
		rate    float64
		start   int
		most    float64
	}{
		{"every call times out at the client", 1 << 30, func(*sim) time.Duration { return time.Hour }, 200 * ms, 100, 100, 1.5},
		{"saturated before we came", 5, func(s *sim) time.Duration { return s.lognormal(100*ms, 0.5) }, 0, 75, 20, 15},
		{"saturated, and what waits too long times out", 5, func(s *sim) time.Duration { return s.lognormal(100*ms, 0.5) }, 500 * ms, 75, 100, 15},
		{"saturated, each call takes exactly as long", 5, func(*sim) time.Duration { return 100 * ms }, 0, 75, 100, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New(Config{Limit: c.start})
			s := newSim(l, c.workers, 0, c.timeout, 3)
			s.hidden = true
			s.service = func(*simCall) time.Duration { return c.service(s) }
			s.arrive = steady(c.rate)
			var mean [10]float64 // by the minute
			for at := time.Duration(0); at < length; at += time.Second {
				s.after(at, func() { mean[at/time.Minute] += float64(l.Limit()) / 60 })
			}
			s.run(length)
			t.Logf("%.1f", mean)
			for i, m := range mean[1:] {
				if m > min(c.most, 1.5*mean[1]) {
					t.Errorf("the limit is %.1f in minute %d, was %.1f in the second; want at most %.0f", m, i+1, mean[1], c.most)
				}
			}
		})
	}
}

// The other side of it: what is not of our making is not answered with self-made scarcity.
func TestTimeoutsThatDoNotDependOnTheLoadDoNotStarveTheRoute(t *testing.T) {
	l := New(Config{})
	s := newSim(l, 1<<30, 0, 500*ms, 1)
	s.service = func(*simCall) time.Duration {
		if s.rand.Float64() < 0.3 {
			return time.Hour
		}
		return s.lognormal(50*ms, 0.5)
	}
	s.arrive = steady(100)
	ok := second{}
	ok.of(s)
	high := 0
	for at := range 120 {
		s.after(time.Duration(at)*time.Second, func() { high = max(high, l.Limit()) })
	}
	s.run(2 * time.Minute)
	t.Logf("goodput %.1f of 70, limit up to %d", ok.rate(10, 120), high)
	if got := ok.rate(10, 120); got < 0.9*70 || high > 80 {
		t.Errorf("goodput %.1f of 70 per second that do not time out, limit up to %d", got, high)
	}
}

func TestALatencyThatRisesForGoodBecomesTheBase(t *testing.T) {
	l := New(Config{})
	s := newSim(l, 1<<30, 0, 0, 1)
	s.service = func(*simCall) time.Duration {
		if s.now > 30*time.Second {
			return s.lognormal(200*ms, 0.5)
		}
		return s.lognormal(50*ms, 0.5)
	}
	s.arrive = steady(300) // needs 15 in flight, then 60
	ok := second{}
	ok.of(s)
	s.run(60 * time.Second)
	t.Logf("goodput %.1f in the first ten seconds, %.1f then", ok.rate(30, 40), ok.rate(40, 60))
	if got := ok.rate(40, 60); got < 0.95*300 {
		t.Errorf("goodput %.1f of 300 from ten seconds after", got)
	}
}

func TestTheLimitComesBackAfterAnOutage(t *testing.T) {
	l := New(Config{Queue: &Queue{}})
	s := newSim(l, 1<<30, 0, 300*ms, 1)
	s.service = func(*simCall) time.Duration {
		if s.now > 20*time.Second && s.now < 40*time.Second {
			return time.Hour
		}
		return s.lognormal(50*ms, 0.5)
	}
	s.arrive = steady(600)
	ok := second{}
	ok.of(s)
	lowest := 1 << 30
	for at := 20 * time.Second; at < 40*time.Second; at += 100 * ms {
		s.after(at, func() { lowest = min(lowest, l.Limit()) })
	}
	s.run(60 * time.Second)
	t.Logf("limit down to %d; goodput %.0f from 5 s, %.0f from 10 s after", lowest, ok.rate(45, 50), ok.rate(50, 60))
	if got := ok.rate(50, 60); lowest > 1 || got < 0.95*600 {
		t.Errorf("limit down to %d in the outage; goodput %.0f of 600 from 10 s after", lowest, got)
	}
}

func TestALimitThatIsNotUsedDoesNotGrow(t *testing.T) {
	for _, algorithm := range []string{Adaptive, Gradient2, Vegas, AIMD} {
		l := New(Config{Algorithm: algorithm, Limit: 100})
		s := newSim(l, 1<<30, 50*ms, 0, 1)
		s.arrive = steady(300) // 15 in flight
		s.run(time.Minute)
		if l.Limit() > 100 {
			t.Errorf("%s: the limit grew to %d with 15 in flight", algorithm, l.Limit())
		}
	}
}

// tiersUnder runs two tiers, the critical one at 0.7 of the capacity, and gives the shares that succeed.
func tiersUnder(load float64, seed uint64) (critical, other, goodput float64) {
	const capacity, from, to = 800.0, 12, 28
	l := New(Config{Queue: &Queue{}})
	s := newSim(l, 40, 50*ms, time.Second, seed)
	s.arrive = func() (float64, call.Info) {
		now := load
		if s.now < from*time.Second {
			now = 0.9
		}
		if s.rand.Float64() < 0.7/now {
			return now * capacity, call.Info{Priority: call.Critical}
		}
		return now * capacity, call.Info{Priority: call.Deferrable}
	}
	var n, ok [2]int
	s.ended = func(c *simCall) {
		if c.start < from*time.Second {
			return
		}
		tier := 0
		if c.info.Priority == call.Critical {
			tier = 1
		}
		n[tier]++
		if c.class == call.OK {
			ok[tier]++
		}
	}
	s.run(to * time.Second)
	return float64(ok[1]) / float64(n[1]), float64(ok[0]) / float64(n[0]), float64(ok[0]+ok[1]) / (to - from) / capacity
}

func TestUnderThreefoldOverloadTheCriticalTierSucceedsAndTheOtherAbsorbsAllShedding(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{0, 114} { // of seeds 0..999 the least is 99.7 %; in 114 a probe used to shed
		critical, other, _ := tiersUnder(3, seed)
		t.Logf("critical %.4f, other %.4f", critical, other)
		if critical < 0.994 {
			t.Errorf("seed %d: %.4f of the critical calls succeeded, %.4f of the others", seed, critical, other)
		}
	}
}

// A probe withholds permits for a moment. Calls that it keeps waiting are neither turned away for it, nor seen as an
// overload that is answered by shedding more tiers for half a second.
func TestAProbeShedsNothingThatWouldNotBeShedWithoutIt(t *testing.T) {
	for _, probing := range []bool{false, true} {
		l := New(Config{Limit: 40, Queue: &Queue{}})
		now := epoch
		for range 40 {
			l.Admit(now, call.Info{}, never)
		}
		for range kept {
			l.service.add(0, int64(50*ms))
		}
		if probing {
			a := l.alg.(*adaptive)
			a.begin(&seen{inFlight: 40, goodput: 800}, routine, probeDepth)
			l.limit = a.limit()
			for range 10 {
				now = now.Add(ms)
				l.Done(now, Ticket{ok: true}, call.Outcome{Class: call.Canceled})
			}
		}
		for range 50 {
			l.Admit(now, call.Info{}, never)
		}
		if want := map[bool]int{false: 20, true: 30}[probing]; l.Queued() != want {
			t.Errorf("probing %v: %d calls wait, want %d", probing, l.Queued(), want)
		}
		l.reject.pressing = patience
		l.Pressure(epoch.Add(time.Second))
		if rises := l.reject.share > 0; rises == probing {
			t.Errorf("probing %v: a share of %.3f is shed", probing, l.reject.share)
		}
	}
}

func TestTheGoodputPlateauIsFlatFromTwiceToFiveTimesTheCapacity(t *testing.T) {
	t.Parallel()
	for _, load := range []float64{2, 3, 4, 5} {
		critical, other, goodput := tiersUnder(load, 9)
		t.Logf("x%v: critical %.4f, other %.4f, goodput %.3f", load, critical, other, goodput)
		if goodput < 0.93 || critical < 0.994 {
			t.Errorf("x%v: goodput %.3f of the capacity, critical %.4f", load, goodput, critical)
		}
	}
}

// Without a limiter the same dependency does work that nobody waits for any more.
func TestWithoutALimiterTheGoodputCollapses(t *testing.T) {
	s := newSim(nil, 40, 50*ms, time.Second, 9)
	s.arrive = steady(2 * 800)
	ok := second{}
	ok.of(s)
	s.run(20 * time.Second)
	if got := ok.rate(10, 20); got > 0.1*800 {
		t.Errorf("goodput %.0f: the simulation is too kind to judge a limiter by", got)
	}
}

func TestWithinATierTheHighestCohortsGoFirst(t *testing.T) {
	l := New(Config{Queue: &Queue{}})
	s := newSim(l, 40, 50*ms, time.Second, 2)
	s.arrive = func() (float64, call.Info) { return 2 * 800, call.Info{Cohort: uint8(s.rand.IntN(128))} }
	var n, ok [4]int
	s.ended = func(c *simCall) {
		if c.start > 5*time.Second {
			n[c.info.Cohort/32]++
			if c.class == call.OK {
				ok[c.info.Cohort/32]++
			}
		}
	}
	s.run(25 * time.Second)
	share := func(i int) float64 { return float64(ok[i]) / float64(n[i]) }
	t.Logf("%.3f %.3f %.3f %.3f", share(0), share(1), share(2), share(3))
	if share(0) < 0.95 || share(3) > 0.03 {
		t.Errorf("at twice the capacity %.3f %.3f %.3f %.3f of the cohorts, by quarter, succeed; want the first whole and the last none", share(0), share(1), share(2), share(3))
	}
}

func TestATenantThatFloodsTakesNothingFromTheOthers(t *testing.T) {
	t.Parallel()
	l := New(Config{Queue: &Queue{}})
	s := newSim(l, 40, 50*ms, time.Second, 2)
	// Slots are found by a random hash; two tenants of one slot share their fate, which is not the claim.
	names, used := []string{}, map[uint8]bool{l.slot("flood"): true}
	for i := 0; len(names) < 9; i++ {
		if name := fmt.Sprint("modest ", i); !used[l.slot(name)] {
			used[l.slot(name)] = true
			names = append(names, name)
		}
	}
	const modest = 0.5 // of the capacity, of nine tenants together; the tenth asks for 2.5
	s.arrive = func() (float64, call.Info) {
		tenant := "flood"
		if s.rand.Float64() < modest/3 {
			tenant = names[s.rand.IntN(9)]
		}
		return 3 * 800, call.Info{Tenant: tenant}
	}
	var n, ok [2]int
	s.ended = func(c *simCall) {
		if c.start > 5*time.Second {
			who := 0
			if c.info.Tenant != "flood" {
				who = 1
			}
			n[who]++
			if c.class == call.OK {
				ok[who]++
			}
		}
	}
	s.run(25 * time.Second)
	others, flood := float64(ok[1])/float64(n[1]), float64(ok[0])/20/800
	t.Logf("modest %.4f, flood gets %.3f of the capacity", others, flood)
	if others < 0.98 || flood < 0.4 {
		t.Errorf("%.3f of the modest tenants' calls succeed, the flood gets %.3f of the capacity; want all, and the half that is left", others, flood)
	}
}

func TestHealthChecksAreNeverShed(t *testing.T) {
	t.Parallel()
	l := New(Config{Queue: &Queue{}, Rate: &Rate{PerSecond: 1e6}})
	s := newSim(l, 40, 50*ms, time.Second, 2)
	s.arrive = func() (float64, call.Info) {
		if s.rand.Float64() < 0.01 {
			return 5 * 800, call.Info{Priority: Exempt}
		}
		return 5 * 800, call.Info{Priority: call.Critical}
	}
	checks, others := 0, 0
	s.ended = func(c *simCall) {
		switch {
		case c.class != call.Shed:
		case c.info.Priority == Exempt:
			checks++
		default:
			others++
		}
	}
	s.run(20 * time.Second)
	if checks > 0 || others == 0 {
		t.Errorf("%d health checks and %d others were shed", checks, others)
	}
}

func TestAShedCallCostsTheDependencyNothing(t *testing.T) {
	t.Parallel()
	l := New(Config{Queue: &Queue{}})
	s := newSim(l, 40, 50*ms, time.Second, 2)
	s.arrive = steady(5 * 800)
	shed, all := 0, 0
	s.ended = func(c *simCall) {
		all++
		if c.class == call.Shed {
			shed++
		}
	}
	s.run(20 * time.Second)
	if s.made+shed != all || shed < all/2 {
		t.Errorf("%d calls, %d shed, %d reached the dependency", all, shed, s.made)
	}
	if n := l.Counts(); int(n.Shed+n.Doomed+n.Age) != shed || int(n.Admitted) != s.made {
		t.Errorf("%+v, but %d were shed and %d made", n, shed, s.made)
	}
}

func TestPressureRisesBeforeTheFirstCallIsShed(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{Fixed, Adaptive} {
		l := New(Config{Algorithm: algorithm, Limit: 40, Queue: &Queue{}})
		s := newSim(l, 40, 50*ms, time.Second, 2)
		s.arrive = func() (float64, call.Info) { return 80 + 1500*s.now.Seconds()/300, call.Info{} }
		var fired, first time.Duration
		s.ended = func(c *simCall) {
			if first == 0 && c.class == call.Shed {
				first = s.now
			}
			if fired == 0 && l.Pressure(s.clock()) > 0.8 {
				fired = s.now
			}
		}
		s.run(150 * time.Second)
		t.Logf("%s: 0.8 at %v, first shed at %v", algorithm, fired, first)
		if fired == 0 || first == 0 || fired > first {
			t.Errorf("%s: pressure passed 0.8 at %v, the first call was shed at %v", algorithm, fired, first)
		}
	}
}

func TestSheddingIsReportedForHedges(t *testing.T) {
	l := New(Config{Algorithm: Fixed, Limit: 1})
	held := l.Admit(epoch, call.Info{}, time.Time{})
	if l.Shedding(epoch) {
		t.Error("shedding before anything was refused")
	}
	l.Admit(epoch, call.Info{}, time.Time{})
	if !l.Shedding(epoch.Add(900 * ms)) {
		t.Error("not shedding 0.9 s after a refusal")
	}
	l.Done(epoch.Add(900*ms), held, call.Outcome{})
	if l.Shedding(epoch.Add(1100 * ms)) {
		t.Error("still shedding 1.1 s after the latest refusal")
	}
}
