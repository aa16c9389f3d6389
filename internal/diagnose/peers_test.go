package diagnose

import (
	"fmt"
	"testing"
)

func TestCallsThatNobodyAnswersAreNamedByWhoAnswersAtTheirAddress(t *testing.T) {
	answered := func(service string, port int) string {
		return fmt.Sprintf("get 0ms 22ms service=edge kind=server\n  try 1ms 21ms kind=client server.address=10.1.1.1 server.port=%d\n    order 2ms 20ms service=%s kind=server", port, service)
	}
	lost := func(port int, more string) string {
		return fmt.Sprintf("get 0ms 902ms service=edge kind=server\n  try 1ms 901ms kind=client server.address=10.1.1.1 server.port=%d failed error.type=timeout %s", port, more)
	}
	for name, c := range map[string]struct {
		text func(i int) string
		want string
	}{
		"one service answers there":        {func(i int) string { return []string{answered("orders", 80), lost(80, "")}[i%2] }, "orders"},
		"its other port is somebody else":  {func(i int) string { return []string{answered("orders", 81), lost(80, "")}[i%2] }, "10.1.1.1"},
		"two services answer there":        {func(i int) string { return []string{answered("orders", 80), answered("carts", 80), lost(80, "")}[i%3] }, "10.1.1.1"},
		"the caller tells whom it called":  {func(i int) string { return []string{answered("orders", 80), lost(80, "service.peer.name=bank")}[i%2] }, "bank"},
		"nobody ever answers, and no name": {func(int) string { return lost(80, "") }, "10.1.1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := false
			for _, tree := range Trees(many(t, 30, c.text), ClockOptions{}) {
				for i := range tree.Spans {
					if served, ok := calls(tree, i); ok && served < 0 {
						seen = true
						if got := locate(tree, i).service; got != c.want {
							t.Fatalf("got %q, want %q", got, c.want)
						}
					}
				}
			}
			if !seen {
				t.Error("no such call")
			}
		})
	}
}

func TestAddressesAreToldFromNames(t *testing.T) {
	for host, want := range map[string][2]bool{
		"127.0.0.1": {true, true}, "localhost": {false, true}, "::1": {true, true}, "10.0.0.1": {true, false}, "0.0.0.0": {true, true}, "orders": {false, false}, "1password.com": {false, false}, "": {false, false},
	} {
		if numeric(host) != want[0] || local(host) != want[1] {
			t.Errorf("%q: %v %v", host, numeric(host), local(host))
		}
	}
}
