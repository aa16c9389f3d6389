package main

import (
	"sync"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/judge/peers"
	"github.com/longpole/longpole/internal/stats"
)

const (
	pointEvery  = 5 * time.Second
	minuteEvery = time.Minute
)

// tape lets other rules see what the judge sees of one rollout, from the end of its warm-up on. The zero value waits for begin.
type tape struct {
	mu              sync.Mutex
	from            time.Time // when the rules begin; zero = not yet
	flagger         peers.Flagger
	kayenta         peers.Kayenta
	point, minute   [2]stats.Tally // of both cohorts when the last one ended
	points, minutes time.Time      // when it did
	flagged, high   time.Duration  // after from, when a rule would have rolled back; 0 = not
	calls           uint64         // of the candidate, since its counters began
}

// begin lets the rules see what follows.
func (p *tape) begin(at time.Time, usual time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from, p.points, p.minutes = at, at, at
	p.flagger.Usual = float64(usual)
}

// restart tells that the cohorts' counters begin anew.
func (p *tape) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.point, p.minute = [2]stats.Tally{}, [2]stats.Tally{}
}

// see takes what the cohorts did since their counters began.
func (p *tape) see(now time.Time, baseline, candidate stats.Tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	both := [2]stats.Tally{baseline, candidate}
	p.calls = candidate.Calls
	if p.from.IsZero() || now.Before(p.from) {
		p.point, p.minute = both, both
		return
	}
	if now.Sub(p.points) >= pointEvery {
		p.kayenta.Add(figuresOf(baseline.Sub(p.point[0])), figuresOf(candidate.Sub(p.point[1])))
		p.point, p.points = both, p.points.Add(pointEvery)
	}
	if now.Sub(p.minutes) < minuteEvery {
		return
	}
	f := figuresOf(candidate.Sub(p.minute[1]))
	p.minute, p.minutes = both, p.minutes.Add(minuteEvery)
	if p.flagger.Minute(f[2], f[3]) && p.flagged == 0 {
		p.flagged = p.minutes.Sub(p.from)
	}
	if p.kayenta.High() && p.high == 0 {
		p.high = p.minutes.Sub(p.from)
	}
}

func (p *tape) seen() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

func (p *tape) found() (flagged, high time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flagged, p.high
}

func figuresOf(t stats.Tally) peers.Figures {
	return peers.Figures{
		float64(t.Latency.Quantile(.5)), float64(t.Latency.Quantile(.95)), float64(t.Latency.Quantile(.99)),
		float64(t.Failed+t.Shed) / float64(max(t.Calls, 1)),
	}
}

// taped is a gateway whose rollouts are seen by tapes, by route. Its map does not change once it runs.
type taped struct {
	*gateway.Gateway
	tapes map[string]*tape
}

// Tallies implements rollout.Target.
func (t taped) Tallies(route string) (baseline, candidate stats.Tally, err error) {
	baseline, candidate, err = t.Gateway.Tallies(route)
	if err == nil {
		t.tapes[route].see(time.Now(), baseline, candidate)
	}
	return baseline, candidate, err
}
