package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

// server is a running Longpole: data plane, receivers, analysis, rollouts and the admin page.
type server struct {
	log      *slog.Logger
	gateway  *gateway.Gateway
	rollouts *rollout.Controller
	analysis *analysis
	store    *store.Store  // nil = nothing outlives the process
	every    time.Duration // between two analyses; 0 = only when asked
	reload   func() error  // reads the configuration file again; nil = there is none
	profile  bool          // offer the profiles of the Go runtime on the admin side
	receiver *ingest.Receiver
	front    []net.Listener // of the data plane, in the order of the configuration
	admin    net.Listener   // nil = off, as those that follow
	otlpHTTP net.Listener
	otlpGRPC net.Listener
	zipkin   net.Listener
	jaeger   net.Listener
	keda     net.Listener

	signals      *signals
	usage        *usage
	calibrations *calibrations
	keeper       *keeper // nil = there is no store
	reviewer     *reviewer
	gatherer     *gatherer
	lab          web.Lab // nil = the system is nobody's lab
}

// newServer binds every address that cfg names, so that a busy port is known before anything runs.
func newServer(ctx context.Context, cfg gateway.Config, log *slog.Logger) (_ *server, err error) {
	s := &server{log: log, every: analysisEvery}
	defer func() {
		if err != nil {
			s.closeListeners()
			if s.store != nil {
				_ = s.store.Close()
			}
		}
	}()
	if err := guardAdmin(cfg.Admin); err != nil {
		return nil, err
	}
	s.analysis = newAnalysis(log, s.policies, cfg.Tracing)
	s.usage = newUsage()
	s.receiver = ingest.NewReceiver(ingest.Sinks{Spans: s.receive, Logs: s.receiveLogs, Points: s.receivePoints})
	for _, l := range []struct {
		to      *net.Listener
		address string
	}{{&s.admin, cfg.Admin}, {&s.otlpHTTP, cfg.OTLP.HTTP}, {&s.otlpGRPC, cfg.OTLP.GRPC}, {&s.zipkin, cfg.Zipkin}, {&s.jaeger, cfg.Jaeger}, {&s.keda, cfg.KEDA}} {
		if *l.to, err = listen(ctx, l.address); err != nil {
			return nil, err
		}
	}
	for _, l := range cfg.Listen {
		bound, err := listen(ctx, l.Address)
		if err != nil {
			return nil, err
		}
		s.front = append(s.front, bound)
	}
	next := 0
	o := gateway.Options{Log: log, Spans: s.analysis.Offer, Listen: func(_, _ string) (net.Listener, error) {
		next++
		return s.front[next-1], nil
	}}
	if s.gateway, err = gateway.New(cfg, o); err != nil {
		return nil, err
	}
	if s.signals, err = newSignals(cfg, s.gateway.Routes, func() advise.Report { return s.analysis.Newest().Report }, log); err != nil {
		return nil, err
	}
	s.gatherer = newGatherer(func() *probe.Config { return s.gateway.Config().Evidence }, s.analysis.Window, log)
	s.analysis.facts = s.gatherer.Facts
	s.signals.usage = func(workload string) (cpu, memory float64) { return s.usage.Of(time.Now(), workload) }
	s.calibrations = newCalibrations(s.gateway, func() gateway.Judge { return s.gateway.Config().Judge }, log)
	if err = s.restore(ctx, cfg); err != nil {
		return nil, err
	}
	s.reviewer = newReviewer(ctx, s)
	return s, nil
}

// short reports whether the gateway has nothing left for telemetry: calls go before what is told of them.
func (s *server) short() bool { return s.gateway.Overload().Pressure >= 1 }

// receive takes spans of others.
func (s *server) receive(spans []trace.Span) (rejected int) {
	if s.short() {
		return ingest.Full
	}
	return s.analysis.Receive(spans)
}

// receivePoints takes metrics of others.
func (s *server) receivePoints(points []ingest.Point) (rejected int) {
	if s.short() {
		return ingest.Full
	}
	return s.usage.Receive(time.Now(), points)
}

// receiveLogs takes what others logged.
func (s *server) receiveLogs(logs []trace.Log) (rejected int) {
	if s.short() {
		return ingest.Full
	}
	return s.analysis.ReceiveLogs(logs)
}

// restore makes the rollouts, with what the state folder knows of earlier ones.
func (s *server) restore(ctx context.Context, cfg gateway.Config) (err error) {
	o := rollout.Options{Target: s.gateway, Log: s.log, Gate: s.signals.hold, Verified: s.verified, Calibration: s.calibrations.Of}
	if cfg.State == nil {
		s.rollouts = rollout.NewController(o)
		return nil
	}
	if s.store, err = store.Open(ctx, *cfg.State); err != nil {
		return &failure{code: exitError, err: err, hint: "state.dir must be a folder of one longpole alone, on a disk with room"}
	}
	s.calibrations.load(ctx, s.store)
	live := newRecorder(s.analysis.Window, s.analysis.quiet, time.Now())
	s.keeper = newKeeper(s.store, s.gateway.Routes, live, func() gateway.Tracing { return s.gateway.Config().Tracing }, s.log)
	j := journal{s.store}
	entries, err := j.read(ctx)
	if err != nil {
		return err
	}
	o.Journal = j
	s.rollouts = rollout.NewController(o)
	for _, doubt := range s.rollouts.Restore(entries) {
		s.log.Warn("not restored", "what", doubt)
	}
	return nil
}

// tokenVariable holds the token of the admin side, for the gateway and for the commands that speak to it.
const tokenVariable = "LONGPOLE_ADMIN_TOKEN"

// guardAdmin refuses to offer the admin side to a network without a token: it can change every policy.
func guardAdmin(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" || os.Getenv(tokenVariable) != "" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return nil
	}
	return &failure{
		code: exitConfig, err: fmt.Errorf("admin: %s is not a loopback address, and there is no token", address),
		hint: "set " + tokenVariable + ", or use 127.0.0.1:9901",
	}
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	if address == gateway.Off || address == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		hint := "it must be an address of this machine"
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = "another program uses the address; choose another in the configuration"
		}
		return nil, &failure{code: exitError, err: err, hint: hint}
	}
	return l, nil
}

func (s *server) closeListeners() {
	for _, l := range append(s.front, s.admin, s.otlpHTTP, s.otlpGRPC, s.zipkin, s.jaeger, s.keda) {
		if l != nil {
			_ = l.Close()
		}
	}
}

// policies is each route's policy in force.
func (s *server) policies() map[string]longpole.Config {
	all := map[string]longpole.Config{}
	for _, r := range s.gateway.Routes() {
		if p, err := s.gateway.Policy(r.Name); err == nil {
			all[r.Name] = p
		}
	}
	return all
}

// totals is what each route did since it began.
func (s *server) totals() map[string]stats.Tally {
	all := map[string]stats.Tally{}
	for _, r := range s.gateway.Routes() {
		all[r.Name] = r.Tally
	}
	return all
}

// Run serves until ctx ends. Rollouts end before the gateway does, so that none is left half way; the receivers end
// last, so that the last spans still arrive.
func (s *server) Run(ctx context.Context) error {
	defer s.closeListeners()
	if s.store != nil {
		defer func() { _ = s.store.Close() }() // what was written is synced already
	}
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	var g errgroup.Group
	g.Go(func() error { return s.analysis.Run(back, s.every) })
	if s.store != nil {
		g.Go(func() error { return s.keeper.Run(back) })
	}
	g.Go(func() error { return s.reviewer.Run(back) })
	g.Go(func() error { return s.gatherer.Run(back) })
	g.Go(func() error { return serveHTTP(back, s.otlpHTTP, s.receiver.HTTP()) })
	g.Go(func() error { return serveHTTP(back, s.zipkin, s.receiver.Zipkin()) })
	g.Go(func() error { return s.serveGRPC(back, s.otlpGRPC) })
	g.Go(func() error { return s.serveGRPC(back, s.jaeger) })
	g.Go(func() error { return s.signals.serveKEDA(back, s.keda) })
	g.Go(func() error { return s.signals.Run(back) })
	g.Go(func() error { return s.calibrations.Run(back) })
	g.Go(func() error { return serveHTTP(back, s.admin, s.adminHandler()) })
	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return s.rollouts.Run(frontCtx) })
	front.Go(func() error { return s.gateway.Run(frontCtx) })
	err := front.Wait()
	stopBack()
	return errors.Join(err, g.Wait())
}

func (s *server) adminHandler() http.Handler {
	return web.New(web.Options{
		Gateway: s.gateway, Rollouts: s.rollouts, Findings: s.analysis.Newest, Dropped: s.analysis.Dropped,
		Version: version, Token: os.Getenv(tokenVariable), Log: s.log, Schema: schema, Reload: s.reload, Profile: s.profile, Store: s.store, Reviews: s.reviewer,
		Live: s.live(), Lab: s.lab,
	})
}

// live is what the admin side shows beside the gateway.
func (s *server) live() web.Live {
	l := web.Live{
		SLOs:         func() []slo.Status { return byBudget(s.signals.book.Status(time.Now())) },
		Scale:        s.signals.board.All,
		Calibrations: s.calibrations.List,
		Received:     s.receiver.Received,
		Metrics:      s.signals.Collector(),
		Sources:      s.gatherer.Status,
		Compare:      s.analysis.Compare,
	}
	if s.keeper != nil {
		l.Kept = s.keeper.Kept
	}
	return l
}

// serveHTTP serves h on l until ctx ends, then lets running requests end for a moment.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	if l == nil {
		return nil
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *server) serveGRPC(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	srv := s.receiver.GRPC()
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(l)
}

// pageOf is where a browser finds the admin side, or "off".
func pageOf(admin net.Listener) string {
	if admin == nil {
		return gateway.Off
	}
	return "http://" + admin.Addr().String() + "/"
}

// address is where l listens, or "off".
func address(l net.Listener) string {
	if l == nil {
		return gateway.Off
	}
	return l.Addr().String()
}
