package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// TrialOptions are how scenarios are run. The zero value is ready to use.
type TrialOptions struct {
	Seed     uint64                                       // of all draws
	Progress func(phase string)                           // told what is being done; nil = nobody listens
	Canary   time.Duration                                // longest time of the trial of a cure; 0 = what the calls of the route need for a verdict, 60s..240s, in turns 300s
	Traces   func(traces []trace.Trace, f evidence.Facts) // takes what was diagnosed; nil = nobody wants it
	Report   func(advise.Report)                          // takes the diagnosis with its advice; nil = nobody wants it
	Real     *Real                                        // servers and processes of their own; nil = all in this process
}

// settleTime is what spans are given to arrive after a phase.
const settleTime = 1200 * time.Millisecond

// trial is one run of a scenario: system, gateway, load, and what they tell.
type trial struct {
	spec     scenario.Scenario
	o        TrialOptions
	system   *System
	gateway  *gateway.Gateway
	rollouts *rollout.Controller
	traffic  *load.Generator
	spans    collection
	front    net.Listener
	receiver net.Listener
	outcome  Outcome
	arrivals map[string]float64 // calls of each route of the gateway in the phase that was measured last

	surge Surge
}

// Run plays a scenario: what is measured before, the diagnosis with all facts, the advice, the trial of the first cure of
// ours, what is measured after. An error says that it could not be run, not that something was not found.
func Run(ctx context.Context, spec scenario.Scenario, o TrialOptions) (Outcome, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	began := time.Now()
	t := &trial{spec: spec, o: o, outcome: Outcome{Scenario: spec.Name, Seed: o.Seed, Truth: spec.Truth}}
	err := t.run(ctx, t.play)
	t.outcome.Seconds = time.Since(began).Seconds()
	t.outcome.judge()
	return t.outcome, err
}

// run starts everything, plays, and ends everything.
func (t *trial) run(ctx context.Context, play func(context.Context) error) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	t.system.Overloaded(func(factor float64) {
		t.surge.Set(gctx, &t.spec, "http://"+t.front.Addr().String(), factor, t.o.Seed, t.spans.add)
	})
	g.Go(func() error { return t.system.Run(gctx) })
	g.Go(func() error { return t.receive(gctx) })
	g.Go(func() error { return t.gateway.Run(gctx) })
	g.Go(func() error { return t.rollouts.Run(gctx) })
	g.Go(func() error { return t.traffic.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return play(gctx)
	})
	err := g.Wait()
	t.surge.Wait() // ctx has ended, and its calls with it
	return err
}

// start opens every listener.
func (t *trial) start(ctx context.Context) (err error) {
	t.system = NewSystemOn(t.o.Real, t.spec, t.o.Seed)
	if err = t.system.Start(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.system.Close()
			for _, l := range []net.Listener{t.front, t.receiver} {
				if l != nil {
					_ = l.Close()
				}
			}
		}
	}()
	cfg, err := gateway.Load(t.spec.Name+"'s gateway", t.system.GatewayYAML("127.0.0.1:0", gateway.Off, gateway.Off))
	if err != nil {
		return fmt.Errorf("lab: the scenario's policies: %w", err)
	}
	var lc net.ListenConfig
	for _, to := range []*net.Listener{&t.front, &t.receiver} {
		if *to, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	o := gateway.Options{Log: quiet, Spans: t.spans.add, Listen: func(_, _ string) (net.Listener, error) { return t.front, nil }}
	if t.gateway, err = gateway.New(cfg, o); err != nil {
		return err
	}
	t.rollouts = rollout.NewController(rollout.Options{Target: t.gateway, Log: quiet})
	front := "http://" + t.front.Addr().String()
	t.system.Connect(front, "http://"+t.receiver.Addr().String()+"/v1/traces")
	t.traffic, err = load.New(Traffic(&t.spec, front, 1, t.o.Seed), load.Options{Spans: t.spans.add})
	return err
}

// receive takes the spans of the services as a collector does.
func (t *trial) receive(ctx context.Context) error {
	r := ingest.NewReceiver(ingest.Sinks{Spans: func(spans []trace.Span) int { t.spans.add(spans); return 0 }})
	srv := &http.Server{Handler: r.HTTP(), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // the services send what they have left first, or lose it with the run
	if err := srv.Serve(t.receiver); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("lab: receiver: %w", err)
	}
	return nil
}

// play goes through the phases.
func (t *trial) play(ctx context.Context) error {
	if err := t.system.Begin(ctx, false); err != nil {
		return err
	}
	if err := t.wait(ctx, t.spec.Load.Warmup, "warming up"); err != nil {
		return err
	}
	healthy := t.system.Profiles()
	if len(t.spec.Faults) == 0 {
		healthy = nil
	}
	from := time.Now()
	before, err := t.measure(ctx, "before")
	if err != nil {
		return err
	}
	facts := t.system.Facts(ctx, healthy)
	to := time.Now()
	slow := time.Duration(before.P99 * float64(time.Millisecond)) // that began last
	if err := t.wait(ctx, settleTime+slow, "collecting the last spans"); err != nil {
		return err
	}
	t.outcome.Before = before
	report := t.diagnose(from, to, facts)
	cure, ours := cureOf(report)
	if !ours || t.spec.Truth.Healthy {
		return nil
	}
	promoted, err := t.try(ctx, cure)
	if err != nil || !promoted {
		return err
	}
	if cure.Turns { // as in the washout of a turn
		if err := t.wait(ctx, canaryTurn, "working off what is queued"); err != nil {
			return err
		}
	}
	after, err := t.measure(ctx, "after")
	if err != nil {
		return err
	}
	t.outcome.After = &after
	return nil
}

func (t *trial) diagnose(from, to time.Time, facts evidence.Facts) advise.Report {
	t.o.Progress("diagnosing")
	traces := t.spans.window(from, to)
	if t.o.Traces != nil {
		t.o.Traces(traces, facts)
	}
	policies := map[string]longpole.Config{}
	for _, r := range t.gateway.Routes() {
		if p, err := t.gateway.Policy(r.Name); err == nil {
			policies[r.Name] = p
		}
	}
	report := advise.Run(traces, diagnose.Options{Facts: facts}, policies)
	t.outcome.Traces = len(traces)
	t.outcome.diagnosed(report)
	if t.o.Report != nil {
		t.o.Report(report)
	}
	return report
}

// wait lets d pass.
func (t *trial) wait(ctx context.Context, d time.Duration, what string) error {
	t.o.Progress(fmt.Sprintf("%s, %s", what, d.Round(time.Second)))
	return pause(ctx, d)
}

// attempts is how many calls the gateway sent so far.
func (t *trial) attempts() (n uint64) {
	for _, r := range t.gateway.Routes() {
		n += r.Tally.Attempts
	}
	return n
}

// measure lets the load run for a phase, with the faults from the beginning of their time line.
func (t *trial) measure(ctx context.Context, phase string) (Measure, error) {
	if err := t.system.Begin(ctx, true); err != nil {
		return Measure{}, err
	}
	if err := t.traffic.Begin(phase); err != nil {
		return Measure{}, err
	}
	sent, began := t.attempts(), t.gateway.Routes()
	if err := t.wait(ctx, t.spec.Load.Duration, "measuring "+phase); err != nil {
		return Measure{}, err
	}
	sent = t.attempts() - sent
	t.arrivals = map[string]float64{}
	for i, r := range t.gateway.Routes() {
		t.arrivals[r.Name] = float64(r.Calls - began[i].Calls)
	}
	seen, _ := t.traffic.Phase(phase)
	calls := uint64(0)
	for _, r := range seen.Results {
		calls += r.Calls
		if r.Calls == 0 {
			t.outcome.Doubts = append(t.outcome.Doubts, fmt.Sprintf("%s: %s: none of its calls ended, so that there is nothing to measure", phase, r.Target))
		}
	}
	m := measureOf(seen.Results[0])
	m.Cost = float64(sent) / float64(max(calls, 1))
	t.outcome.Doubts = append(t.outcome.Doubts, seen.Doubts()...)
	return m, t.traffic.Begin("after " + phase)
}

// The pace of the trial of a cure: as fast as the judge allows.
var canarySteps = []float64{0.5}

const (
	canarySlice  = 500 * time.Millisecond
	canaryWarmup = 2 * time.Second
)

// The turns of a cure whose canary's arms would feel each other, as those of a limit do that share what they protect. What one arm
// has queued is worked off in the washout.
const (
	canaryTurn    = 4500 * time.Millisecond
	canaryWashout = 2 * time.Second
	judgedInTurns = float64(canaryTurn-canaryWashout) / float64(2*canaryTurn) // of all calls, by each arm
)

// What a canary is given. That a candidate whose calls never fail is no worse in errors than a baseline whose calls never fail
// takes the judge some 1400 calls of each; the rest is for those that do fail. One that is not decided by then goes on as
// long as the judge sees an end.
const (
	verdictCalls  = 2000
	leastCalls    = 600 // of each, fewer of which decide nothing whatever they show
	canaryTimeMin = 60 * time.Second
	canaryTimeMax = 240 * time.Second
	turnsTimeMax  = 300 * time.Second // in turns, of whose calls fewer are judged
)

// canaryTimes are how long a canary of a cure is planned to go on, and how long at most, by the calls that came to its route while
// it was measured; doubt says that these are too few for a verdict.
func (t *trial) canaryTimes(cure *advise.Action) (planned, longest time.Duration, doubt string) {
	route := cmp.Or(cure.Observe, cure.Change.Route)
	perSecond, judged := t.arrivals[route]/t.spec.Load.Duration.Seconds(), canarySteps[0]
	if cure.Turns {
		judged = judgedInTurns
	}
	planned, enough := canaryTime(perSecond * judged)
	longest = canaryTimeMax
	if cure.Turns {
		longest = turnsTimeMax
	}
	if t.o.Canary > 0 {
		longest = t.o.Canary
	}
	if cure.Turns || t.o.Canary > 0 { // few pairs of turns do not tell how many more it takes
		planned = longest
	}
	if !enough {
		doubt = fmt.Sprintf("canary on %s: %.3g calls a second are too few for a verdict, which takes some %d of each arm", route, perSecond, verdictCalls)
	}
	return planned, longest, doubt
}

// canaryTime is how long a canary may need each of whose arms gets so many calls a second that are judged, and whether that is within
// what it is given at most.
func canaryTime(perSecond float64) (longest time.Duration, enough bool) {
	need := canaryTimeMax + 1
	if perSecond > 0 {
		need = canaryWarmup + time.Duration(min(verdictCalls/perSecond, 3600)*float64(time.Second))
	}
	return min(max(need, canaryTimeMin), canaryTimeMax), need <= canaryTimeMax
}

// vainFactor is by how much what the judge foresees must be beyond what can still come for a canary to be given up: a difference
// close to a margin makes it see no end one minute, and be sure the next.
const vainFactor = 10

// vain says why a canary that has gone on for so long, of a time that was planned for it, will not be decided in the time that is
// left; "" = it may be.
func vain(g judge.Judgement, gone, planned, left time.Duration) string {
	calls := float64(min(g.BaselineCalls, g.CandidateCalls))
	coming := calls / gone.Seconds() * left.Seconds()
	few := gone >= canaryTimeMin && calls+coming < leastCalls
	far := gone >= planned && float64(g.CallsNeeded) > vainFactor*coming
	if g.Verdict == judge.Inconclusive && (few || far) {
		return fmt.Sprintf("given up after %s, since some %.0f calls of each would come in the %s that are left. %s", gone.Round(time.Second), coming, left.Round(time.Second), g.Sentence)
	}
	return ""
}

// try rolls a cure out and reports whether it was promoted.
func (t *trial) try(ctx context.Context, cure advise.Action) (bool, error) {
	path := "/" + strings.Replace(t.spec.Load.Routes[0].To, ".", "/", 1)
	t.outcome.Forecast, t.outcome.Interval = forecast(cure, path)
	planned, longest, doubt := t.canaryTimes(&cure)
	if doubt != "" {
		t.outcome.Doubts = append(t.outcome.Doubts, doubt)
	}
	t.outcome.Cure = &Cure{Kind: cure.Kind, Route: cure.Change.Route, Summary: cure.Summary}
	spec := rollout.Spec{Change: *cure.Change, Steps: canarySteps, Slice: canarySlice, Warmup: canaryWarmup, MaxDuration: longest, Risk: 1, Reason: "lab: " + cure.Summary}
	if cure.Turns {
		spec.Switchback, spec.Washout = canaryTurn, canaryWashout
	}
	spec.Shed, spec.Observe = cure.Shed, cure.Observe
	if cure.Predicted == nil {
		spec.Goal = rollout.GoalNoWorse // a guard that promises no shorter time is tried for harm alone
	}
	if err := t.system.Begin(ctx, true); err != nil {
		return false, err
	}
	id, err := t.rollouts.Start(spec)
	if err != nil {
		return false, fmt.Errorf("lab: %s: %w", t.spec.Name, err)
	}
	return t.await(ctx, id, planned, longest)
}

// await lets a canary come to its end, and ends it when that cannot come in time.
func (t *trial) await(ctx context.Context, id string, planned, longest time.Duration) (promoted bool, err error) {
	began, cure := time.Now(), t.outcome.Cure
	for {
		s, _ := t.rollouts.Get(id)
		if s.Phase.Final() {
			if cure.Phase == "" {
				cure.Phase, cure.Why = string(s.Phase), s.Outcome
			}
			return s.Phase == rollout.Promoted, nil
		}
		gone := time.Since(began)
		if why := vain(s.Judgement, gone, planned, longest-gone); why != "" && cure.Phase == "" {
			if t.rollouts.Abort(id, why) == nil {
				cure.Phase, cure.Why = string(rollout.InconclusiveEnd), why
			}
		}
		t.o.Progress(fmt.Sprintf("canary of %s on %s: %s, %d+%d calls", cure.Kind, cure.Route, s.Phase, s.Judgement.CandidateCalls, s.Judgement.BaselineCalls))
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return false, err
		}
	}
}
