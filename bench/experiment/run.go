package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/rollout"
)

const (
	perRoute = 100.0           // calls a second; at half of the calls each, 50 an arm
	inFlight = 100             // of a route: when the machine stands still for a second, calls wait
	settle   = 5 * time.Second // of load, before a rollout
	look     = 250 * time.Millisecond
)

// bench is what runs.
type bench struct {
	o        options
	gateway  *gateway.Gateway
	rollouts *rollout.Controller
	front    net.Listener
	services []*service
	taped    taped
	usual    time.Duration // p99 of the services where all is well, through the gateway

	mu      sync.Mutex
	results []result
}

// result is what became of a job.
type result struct {
	job
	status        rollout.Status
	calls         uint64        // of the candidate, when it ended
	flagged, high time.Duration // when the other rules would have rolled back, from the end of the warm-up; 0 = not
	doubt         string        // why the traffic is not to be trusted; "" = it is
	lag           time.Duration // p99 of the traffic's
}

// run carries all jobs out. What came of those that ended stands in results, after an error too.
func (b *bench) run(ctx context.Context, all []job) error {
	if len(all) == 0 {
		return errors.New("no case has that name")
	}
	if err := b.build(all); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range b.services {
		g.Go(s.serve)
	}
	g.Go(func() error {
		<-gctx.Done()
		for _, s := range b.services {
			_ = s.server.Close()
		}
		return nil
	})
	g.Go(func() error { return b.gateway.Run(gctx) })
	g.Go(func() error { return b.rollouts.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return b.play(gctx, all)
	})
	return g.Wait()
}

// build opens the services of all jobs, and makes the gateway in front of them.
func (b *bench) build(all []job) error {
	var upstreams, routes strings.Builder
	open := func(name string, list []conduct) error {
		var urls []string
		for _, c := range list {
			s, err := newService(c, rand.Uint64())
			if err != nil {
				return err
			}
			b.services = append(b.services, s)
			urls = append(urls, s.url())
		}
		fmt.Fprintf(&upstreams, "  %s: {endpoints: [%s]}\n", name, strings.Join(urls, ", "))
		return nil
	}
	b.taped.tapes = map[string]*tape{}
	for _, j := range all {
		name := j.route()
		b.taped.tapes[name] = new(tape)
		if err := open(name+"-now", j.stable); err != nil {
			return err
		}
		to := "upstream: " + name + "-now"
		if j.next != nil {
			if err := open(name+"-next", []conduct{*j.next}); err != nil {
				return err
			}
			to = fmt.Sprintf("split: [{upstream: %s-now, weight: 1}, {upstream: %s-next, weight: 0}]", name, name)
		}
		fmt.Fprintf(&routes, "- {name: %s, match: {path: /%s/}, %s, policy: %s}\n", name, name, to, j.policy)
	}
	if err := open("usual", []conduct{usual()}); err != nil {
		return err
	}
	file := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: off\nupstreams:\n%sroutes:\n%s- {name: usual, match: {path: /usual/}, upstream: usual}\n", upstreams.String(), routes.String())
	cfg, err := gateway.Load("the experiment's gateway", []byte(file))
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	if b.front, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	b.gateway, err = gateway.New(cfg, gateway.Options{Log: quiet, Listen: func(_, _ string) (net.Listener, error) { return b.front, nil }})
	if err != nil {
		return err
	}
	b.taped.Gateway = b.gateway
	b.rollouts = rollout.NewController(rollout.Options{Target: b.taped, Log: quiet})
	return nil
}

func (j job) route() string { return fmt.Sprintf("r%d", j.index) }

// traffic is a stream of calls of one route.
func (b *bench) traffic(route string, seed uint64) (*load.Generator, error) {
	return load.New(load.Plan{
		Seed: seed, Timeout: 10 * time.Second, MaxInFlight: inFlight,
		Targets: []load.Target{{Name: route, PerSecond: perRoute, URL: load.Fixed("http://" + b.front.Addr().String() + "/" + route + "/")}},
	}, load.Options{})
}

// play runs all jobs, as many at a time as the rate allows.
func (b *bench) play(ctx context.Context, all []job) error {
	if err := b.measureUsual(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(max(int(b.o.rate/perRoute), 1))
	for i, j := range all {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			r, err := b.one(ctx, j)
			if err != nil || ctx.Err() != nil {
				return err
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.results = append(b.results, r)
			fmt.Fprintf(os.Stderr, "%s  %d of %d  %s: %s after %s: %s\n", time.Now().Format(time.TimeOnly), len(b.results), len(all), j.name,
				r.status.Phase, r.took().Round(time.Second), r.status.Outcome)
			return nil
		})
		if i < int(b.o.rate/perRoute) { // not all in step
			if err := wait(ctx, 700*time.Millisecond); err != nil {
				break
			}
		}
	}
	return g.Wait()
}

// measureUsual takes the p99 that the other rules hold a candidate against: that of a route beside the others' load.
func (b *bench) measureUsual(ctx context.Context) error {
	if b.o.before == 0 {
		return nil
	}
	t, err := b.traffic("usual", 1)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, b.o.before)
	defer stop()
	if err := t.Run(ctx); err != nil {
		return err
	}
	b.usual = t.Snapshot().Results[0].Service.Quantile(.99)
	fmt.Fprintf(os.Stderr, "usual p99: %s\n", b.usual)
	return nil
}

// one runs a rollout under load.
func (b *bench) one(ctx context.Context, j job) (r result, err error) {
	r.job = j
	t, err := b.traffic(j.route(), uint64(j.index)+2)
	if err != nil {
		return r, err
	}
	calling, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return t.Run(calling) })
	defer func() {
		stop()
		err = errors.Join(err, g.Wait())
		seen := t.Snapshot().Results[0]
		r.doubt, r.lag = seen.Doubt(), seen.Lag.Quantile(.99)
	}()
	if err := wait(ctx, settle); err != nil {
		return r, nil
	}
	id, err := b.rollouts.Start(b.spec(j))
	if err != nil {
		return r, fmt.Errorf("%s: %w", j.name, err)
	}
	p := b.taped.tapes[j.route()]
	p.begin(time.Now().Add(b.o.warmup), b.usual)
	for {
		if r.status, _ = b.rollouts.Get(id); r.status.Phase.Final() {
			break
		}
		if err := wait(ctx, look); err != nil {
			return r, nil
		}
	}
	r.calls = p.seen()
	if !j.apart && j.kind == harms && r.status.Phase != rollout.Promoted {
		if err := b.goOn(ctx, j, p); err != nil {
			return r, err
		}
	}
	r.flagged, r.high = p.found()
	return r, nil
}

func (b *bench) spec(j job) rollout.Spec {
	s := rollout.Spec{
		Change: longpole.Change{Route: j.route(), To: j.to}, Goal: j.goal, Target: j.target, Steps: []float64{0.5},
		Warmup: b.o.warmup, MaxDuration: b.o.most, Reason: j.name,
	}
	if j.next != nil {
		s.Version = j.route() + "-next"
	}
	if j.ramp {
		s.Steps = nil
	}
	if j.most > 0 {
		s.MaxDuration = j.most
	}
	return s
}

// goOn gives the candidate half of the calls again after it was rolled back, so that the slower rules may see it too.
func (b *bench) goOn(ctx context.Context, j job, p *tape) (err error) {
	if j.next != nil {
		err = b.gateway.StageVersion(j.route(), j.route()+"-next")
	} else {
		err = b.gateway.Stage(j.route(), j.to)
	}
	if err != nil {
		return err
	}
	p.restart()
	defer func() { err = errors.Join(err, b.gateway.Discard(j.route())) }()
	if err := b.gateway.Weight(j.route(), 0.5); err != nil {
		return err
	}
	for end := p.from.Add(b.o.follow); time.Now().Before(end.Add(look)); {
		if flagged, high := p.found(); flagged > 0 && high > 0 {
			return nil
		}
		if wait(ctx, time.Second) != nil {
			return nil
		}
		if _, _, err := b.taped.Tallies(j.route()); err != nil {
			return err
		}
	}
	return nil
}

// wait lets d pass; an error when ctx ended before.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
