package lab

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/discover"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/systemtest"
)

const growingYAML = `
name: growing
about: services whose replicas come and go
services:
  - {name: a, operations: [{name: x, steps: [{cpu: {fixed: 2ms}}, {call: {to: b.y}}]}]}
  - {name: b, protocol: grpc, operations: [{name: y, steps: [{cpu: {fixed: 2ms}}]}]}
gateway:
  - {service: a, policy: "{retry: {off: true}, breaker: {off: true}}"}
  - {service: b, policy: "{retry: {off: true}, breaker: {off: true}}"}
load: {routes: [{to: a.x, rate: 40}]}
truth: {healthy: true}
`

func growing(t *testing.T) *System {
	t.Helper()
	spec, err := ReadScenario("growing.yaml", []byte(growingYAML))
	if err != nil {
		t.Fatal(err)
	}
	return NewSystem(spec, 1)
}

// TestReplicasThatComeAndGoLoseNoCall calls services over HTTP and gRPC through a gateway that finds their replicas in files and
// never calls twice, while replicas are added and removed.
func TestReplicasThatComeAndGoLoseNoCall(t *testing.T) {
	s := growing(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	lists := t.TempDir()
	tell := func(service string, endpoints []string) error {
		list := filepath.Join(lists, service)
		data, err := json.Marshal(endpoints)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(list+".new", data, 0o600), os.Rename(list+".new", list))
	}
	s.Announce(tell)
	if err := errors.Join(tell("a", s.Endpoints("a")), tell("b", s.Endpoints("b"))); err != nil {
		t.Fatal(err)
	}
	front := behindGateway(t, s, lists)
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return s.Run(ctx) })
	s.Connect(front, "")

	var calls, lost atomic.Int64
	var callers sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			for !closed(over) {
				calls.Add(1)
				if status := get(t, front+"/a/x"); status != http.StatusOK {
					lost.Add(1)
				}
			}
		})
	}
	for _, step := range []func(context.Context, string) error{s.AddReplica, s.AddReplica, s.RemoveReplica, s.AddReplica, s.RemoveReplica, s.RemoveReplica} {
		before := calls.Load()
		if err := errors.Join(step(t.Context(), "a"), step(t.Context(), "b")); err != nil {
			t.Error(err)
		}
		systemtest.Eventually(t, "calls go on", func() bool { return calls.Load() >= before+20 })
	}
	close(over)
	callers.Wait()
	if a, b := len(s.Endpoints("a")), len(s.Endpoints("b")); a != 1 || b != 1 || lost.Load() > 0 {
		t.Errorf("%d and %d replicas are left, and %d of %d calls were lost", a, b, lost.Load(), calls.Load())
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// behindGateway runs a gateway that finds all services in files of a folder, and is its base URL.
func behindGateway(t *testing.T, s *System, lists string) string {
	t.Helper()
	cfg, err := gateway.Load("growing", s.GatewayYAML("127.0.0.1:0", gateway.Off, gateway.Off))
	if err != nil {
		t.Fatal(err)
	}
	for service, up := range cfg.Upstreams {
		up.Discover = &discover.Config{File: &discover.File{Path: filepath.Join(lists, service), Interval: 100 * time.Millisecond}}
		cfg.Upstreams[service] = up
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Options{Log: slog.New(slog.DiscardHandler), Listen: func(_, _ string) (net.Listener, error) { return l, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func get(t *testing.T, url string) (status int) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

func TestReplicasStayWithinTheirBounds(t *testing.T) {
	s := growing(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return s.Run(ctx) })
	var told []int
	full := errors.New("the disk is full")
	s.Announce(func(_ string, endpoints []string) error {
		if len(endpoints) == scenario.MaxReplicas {
			return full
		}
		told = append(told, len(endpoints))
		return nil
	})
	if err := s.RemoveReplica(ctx, "a"); !errors.Is(err, ErrReplicas) {
		t.Errorf("the last one goes: %v", err)
	}
	if err := s.AddReplica(ctx, "c"); !errors.Is(err, ErrNoService) {
		t.Errorf("a service that is not there grows: %v", err)
	}
	for range scenario.MaxReplicas - 2 {
		if err := s.AddReplica(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddReplica(ctx, "a"); !errors.Is(err, full) || len(s.Endpoints("a")) != scenario.MaxReplicas-1 {
		t.Errorf("one that nobody could be told of stays: %v", err)
	}
	if len(told) != scenario.MaxReplicas-2 {
		t.Errorf("told were %v", told)
	}
	s.Announce(func(string, []string) error { return nil })
	if err := s.AddReplica(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := s.AddReplica(ctx, "a"); !errors.Is(err, ErrReplicas) {
		t.Errorf("one too many comes: %v", err)
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := NewSystemOn(&Real{}, s.spec, 1).AddReplica(t.Context(), "a"); !errors.Is(err, ErrElsewhere) {
		t.Errorf("a process is added: %v", err)
	}
}
