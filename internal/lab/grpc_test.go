package lab

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// overGRPC is a chain: HTTP, gRPC through the gateway, gRPC directly. One of the two replicas in the middle fails at once.
const overGRPC = `
name: over-grpc
about: one replica of seats fails
services:
  - name: site
    operations: [{name: book, steps: [{call: {to: seats.find, timeout: 5s}}]}]
  - name: seats
    protocol: grpc
    replicas: 2
    operations: [{name: find, answer: 4KiB, steps: [{call: {to: fares.get, retries: 1}}]}]
  - name: fares
    protocol: grpc
    operations: [{name: get, steps: [{name: add up, cpu: {fixed: 1ms}}]}]
gateway: [{service: site}, {service: seats}]
load:
  warmup: 500ms
  duration: 2s
  routes: [{to: site.book, rate: 25}]
faults: [{kind: error, service: seats, replica: 2, status: 503}]
truth: {class: dependency, service: seats, action: retry}
`

func TestServicesCallEachOtherOverGRPC(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole system on real sockets")
	}
	spec, err := scenario.Read("grpc.yaml", []byte(overGRPC))
	if err != nil {
		t.Fatal(err)
	}
	traces := played(t, spec)
	failed, whole, rescued := 0, 0, 0
	for _, tr := range traces {
		byID := map[string]trace.Span{}
		for _, s := range tr.Spans {
			byID[s.ID] = s
		}
		before := failed
		for _, s := range tr.Spans {
			switch s.Service + " " + s.Kind.String() + " " + s.Name {
			case "seats server seats/find":
				if s.Attr("rpc.response.status_code") == "UNAVAILABLE" && s.Failed && s.Attr("service.instance.id") == "seats-2" {
					failed++
				} else if s.Attr("rpc.server.response.size") != "4096" || s.Attr("rpc.system.name") != "grpc" || s.Attr("rpc.method") != "seats/find" {
					t.Fatalf("it is told as %+v", s)
				}
			case "fares server fares/get":
				client := byID[s.Parent]
				if client.Service == "seats" && client.Name == "fares/get" && client.Kind == trace.Client && client.Attr("rpc.response.status_code") == "OK" &&
					byID[client.Parent].Name == "seats/find" {
					whole++
				}
			}
		}
		if failed > before && slices.ContainsFunc(tr.Spans, func(s trace.Span) bool {
			return s.Service == "site" && s.Name == "seats/find" && s.Attr("rpc.response.status_code") == "OK"
		}) {
			rescued++ // by the gateway, which may repeat a call that says that it is idempotent
		}
	}
	if failed < 1 || whole < 5 || rescued == 0 {
		t.Errorf("in %d traces %d failed calls of the second replica, %d of them tried again with success, and %d whole chains; want 1, 1 and 5", len(traces), failed, rescued, whole)
	}
}

// played runs a scenario without the trial of a cure and gives its traces.
func played(t *testing.T, spec scenario.Scenario) (traces []trace.Trace) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, err := Run(ctx, spec, TrialOptions{Seed: 1, Canary: time.Second, Traces: func(all []trace.Trace, _ evidence.Facts) { traces = all; stop() }})
	if ctx.Err() == nil && err != nil {
		t.Fatal(err)
	}
	return traces
}

func TestStatusesOfTheTwoProtocolsArePaired(t *testing.T) {
	for status, want := range map[int]string{200: "OK", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 429: "RESOURCE_EXHAUSTED", clientGone: "CANCELLED", 418: "INTERNAL"} {
		if got := nameOf(codeOf(status)); got != want {
			t.Errorf("%d is %s; want %s", status, got, want)
		}
	}
	if nameOf(codes.Unknown) != "UNKNOWN" {
		t.Error("a code is misspelt")
	}
}
