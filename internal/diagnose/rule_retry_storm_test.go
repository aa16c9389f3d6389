package diagnose

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// triedAgain is a request whose call fails n times before it succeeds, each try taking took ms, with a pause between them.
func triedAgain(n int, took float64, attribute string) string {
	var b strings.Builder
	at := 1.0
	for k := range n + 1 {
		mark := ""
		if k < n {
			mark = "failed"
		}
		fmt.Fprintf(&b, "  call %.3fms %.3fms kind=client %s\n    order %.3fms %.3fms service=orders kind=server %s\n", at, at+took, mark+" "+fmt.Sprintf(attribute, k), at+0.5, at+took-0.5, mark)
		at += took + 10
	}
	return fmt.Sprintf("buy 0ms %.3fms service=shop kind=server\n%s", at, b.String())
}

func TestRetryStorm(t *testing.T) {
	storm := func(d dice, i int) string {
		if i%3 == 0 {
			return triedAgain(2, d.near(20), "try=%d")
		}
		return triedAgain(0, d.near(20), "try=%d")
	}
	checkClass(t, "LP112", "retry_storm", []classCase{
		{name: "a third of the calls is tried three times", text: storm, service: "shop", says: "1.67 tries a call"},
		{name: "behind a gateway, which only passes them on", text: func(d dice, i int) string {
			return regexp.MustCompile(`(?m)^    order (\S+) (\S+) service=orders kind=server(.*)$`).ReplaceAllString(storm(d, i),
				"    route $1 $2 service=longpole-gateway kind=server longpole.segment=gateway$3\n      try $1 $2 kind=client service.peer.name=orders$3")
		}, service: "shop", says: "tries calls of orders route"},
		{name: "told by the count of resends, without errors", text: func(d dice, i int) string {
			if i%3 > 0 {
				return triedAgain(0, d.near(20), "x=%d")
			}
			return strings.ReplaceAll(triedAgain(2, d.near(20), "http.request.resend_count=%d"), "failed", "")
		}, service: "shop"},
		{name: "the callee is recorded by no span", text: func(d dice, i int) string {
			if i%2 > 0 {
				return "buy 0ms 30ms service=shop kind=server\n  POST 1ms 21ms kind=client peer.service=bank"
			}
			return "buy 0ms 90ms service=shop kind=server\n  POST 1ms 21ms kind=client peer.service=bank failed\n  POST 31ms 51ms kind=client peer.service=bank failed\n  POST 61ms 81ms kind=client peer.service=bank"
		}, service: "shop"},
		{name: "tries within tries", text: func(d dice, i int) string {
			if i%3 > 0 {
				return triedAgain(0, d.near(20), "x=%d")
			}
			inner := func(at int) string {
				return fmt.Sprintf("  call %dms %dms kind=client failed\n    order %dms %dms service=orders kind=server failed\n", at, at+40, at+1, at+39) +
					fmt.Sprintf("      q %dms %dms kind=client peer.service=stock failed\n      q %dms %dms kind=client peer.service=stock failed\n", at+2, at+10, at+20, at+30)
			}
			return "buy 0ms 150ms service=shop kind=server\n" + inner(1) + inner(50) + "  call 100ms 120ms kind=client\n    order 101ms 119ms service=orders kind=server\n"
		}, service: "shop"},
		{name: "every call is tried three times: the storm comes before who fails in it", text: func(d dice, _ int) string { return triedAgain(2, d.near(3), "x=%d") }, service: "shop"},
		{name: "near miss: one call in 20 is tried again", text: func(d dice, i int) string {
			if i%20 == 0 {
				return triedAgain(1, d.near(20), "x=%d")
			}
			return triedAgain(0, d.near(20), "x=%d")
		}},
		{name: "near miss: a loop of equal calls, none of which fails", text: func(d dice, _ int) string {
			return strings.ReplaceAll(triedAgain(3, d.near(20), "x=%d"), "failed", "")
		}},
		{name: "near miss: another call follows one that failed", text: func(dice, int) string {
			return "buy 0ms 90ms service=shop kind=server\n  a 1ms 21ms kind=client peer.service=a failed\n  b 31ms 81ms kind=client peer.service=b"
		}},
	})
}
