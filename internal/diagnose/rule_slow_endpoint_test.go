package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

func TestSlowEndpoint(t *testing.T) {
	// Each endpoint serves every third call; one in every 15 calls of the first one is slow.
	call := func(attribute string, slow int) func(int) string {
		return func(i int) string {
			took := 20 + i%7
			if i%3 == 0 && i%45 == 0 {
				took = slow
			}
			return fmt.Sprintf("get 0ms %dms service=gateway kind=server\n  try 1ms %dms kind=client "+attribute+"\n    order 2ms %dms service=orders kind=server", took+2, took+1, i%3, took)
		}
	}
	replica := func(slow int) func(int) string {
		return func(i int) string {
			took := 20 + i%7
			if i%3 == 0 {
				took = slow
			}
			return fmt.Sprintf("get 0ms %dms service=gateway\n  try 1ms %dms\n    order 2ms %dms service=orders host=pod-%d", took+2, took+1, took, i%3)
		}
	}
	silent := func(lost func(i int) bool) func(int) string {
		return func(i int) string {
			if lost(i) {
				return fmt.Sprintf("get 0ms 1003ms service=gateway kind=server\n  try 1ms 1001ms kind=client longpole.endpoint=http://10.0.0.%d:80 failed error.type=timeout", i%3)
			}
			return call("longpole.endpoint=http://10.0.0.%d:80", 25)(i)
		}
	}
	checkRule(t, "LP103", []ruleCase{
		{name: "the gateway's endpoint with a bad tail", n: 900, text: call("longpole.endpoint=http://10.0.0.%d:80", 400), at: "orders order", share: 0.94, says: "the tail alone is ill"},
		{name: "by address and port", n: 900, text: call("server.address=orders server.port=900%d", 400), at: "orders order", share: 0.94, says: "endpoint orders:9000"},
		{name: "by the callee's host, slow always", n: 300, text: replica(200), at: "orders order", share: 0.88, says: "pod-0"},
		{name: "calls of one endpoint are never answered", n: 300, text: silent(func(i int) bool { return i%3 == 0 && i%2 == 0 }), at: "orders order", share: 0.97, says: "given up without an answer"},
		{name: "near miss: calls of all endpoints are not answered now and then", n: 300, text: silent(func(i int) bool { return i%10 == 0 })},
		{name: "near miss: all alike", n: 900, text: call("longpole.endpoint=http://10.0.0.%d:80", 25)},
		{name: "near miss: somewhat slower", n: 900, text: replica(40)},
		{name: "near miss: too few calls", n: 30, text: replica(200)},
		{name: "near miss: all endpoints have the tail", n: 900, text: func(i int) string {
			took := 20
			if i%20 == 0 {
				took = 400
			}
			return fmt.Sprintf("get 0ms %dms service=gateway\n  try 1ms %dms\n    order 2ms %dms service=orders host=pod-%d", took+2, took+1, took, i%3)
		}},
		{name: "near miss: one endpoint only", n: 300, text: func(i int) string {
			return "get 0ms 100ms service=gateway\n  try 1ms 99ms\n    order 2ms 98ms service=orders host=pod-0"
		}},
		{name: "near miss: failed calls are quick", n: 300, text: func(i int) string {
			if i%3 > 0 {
				return fmt.Sprintf("get 0ms 3ms service=gateway\n  try 1ms 2ms kind=client server.address=a%d failed", i%3)
			}
			return "get 0ms 100ms service=gateway\n  try 1ms 99ms kind=client server.address=a0"
		}},
	})
}

// Few of an endpoint's calls are slow, and yet far slower than any of its siblings, whose own tail is near.
func TestSlowEndpointByItsFarTail(t *testing.T) {
	stuck := func(share int) []trace.Trace {
		return many(t, 360, func(i int) string {
			took := 10 + i%11
			if i%3 == 1 && i%share == 4 {
				took = 300
			}
			return fmt.Sprintf("get 0ms %dms service=gateway kind=server\n  try 1ms %dms kind=client longpole.endpoint=http://10.0.0.%d:80\n    order 2ms %dms service=orders kind=server", took+2, took+1, i%3, took)
		})
	}
	for share, want := range map[int]bool{30: true, 60: false} { // 12 and 6 of its 120 calls
		got := slices.ContainsFunc(Run(stuck(share), Options{}).Routes[0].Findings, func(f Finding) bool { return f.Code == "LP103" && f.Detail.Endpoint == "http://10.0.0.1:80" })
		if got != want {
			t.Errorf("one call in %d: found %v, want %v", share/3, got, want)
		}
	}
}

// A sample that prefers slow traces has most of its calls above the siblings' tail, and few of each endpoint below it.
func TestSlowEndpointInASampleOfTraces(t *testing.T) {
	for _, c := range []struct {
		name string
		slow func(i int) bool
		want int
	}{
		{"one endpoint has the tail", func(i int) bool { return i%3 == 0 && i%5 == 0 }, 1},
		{"near miss: all endpoints have it", func(i int) bool { return i%15 < 3 && i%5 < 3 && i%15 == i%5 }, 0},
	} {
		var traces []trace.Trace
		for i, x := range many(t, 1800, func(i int) string {
			took := 20 + i%7
			if c.slow(i) {
				took = 300 + i%100
			}
			return fmt.Sprintf("get 0ms %dms service=gateway kind=server\n  try 1ms %dms kind=client longpole.endpoint=http://10.0.0.%d:80\n    order 2ms %dms service=orders kind=server", took+2, took+1, i%3, took)
		}) {
			if !c.slow(i) && i%40 != 7 {
				continue
			}
			if x.Weight = 1; !c.slow(i) {
				x.Weight = 40
			}
			traces = append(traces, x)
		}
		found := 0
		for _, f := range Run(traces, Options{}).Routes[0].Findings {
			if f.Code == "LP103" {
				found++
				if f.Detail.Endpoint != "http://10.0.0.0:80" || slices.ContainsFunc(f.CounterEvidence, func(x string) bool { return strings.Contains(x, "unevenly") }) {
					t.Errorf("%s: %+v", c.name, f)
				}
			}
		}
		if found != c.want {
			t.Errorf("%s: %d findings of %d traces, want %d", c.name, found, len(traces), c.want)
		}
	}
}
