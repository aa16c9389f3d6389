package advise

import (
	"slices"
	"strings"
	"testing"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// hang replaces every twentieth checkout of a shop by one whose call of orders is given up after so long.
func hang(traces []trace.Trace, after time.Duration) {
	for i := 7; i < len(traces); i += 20 {
		traces[i] = hung(i, after)
	}
}

// hung is the ith checkout, whose call of orders is given up after so long.
func hung(i int, after time.Duration) trace.Trace {
	t := checkout(i, i%3, after, 5*time.Millisecond, 5*time.Millisecond)
	for k := 3; k < 6; k++ { // the gateway's span of orders, its attempt, and the upstream's
		t.Spans[k].Failed = true
	}
	return t
}

// quick is a shop whose endpoints are all well, but for calls that hang.
func quick(after time.Duration) []trace.Trace {
	traces := slices.DeleteFunc(shop(1, 600), func(t trace.Trace) bool { return t.Spans[5].End-t.Spans[5].Start > int64(150*time.Millisecond) })
	hang(traces, after)
	return traces
}

func timeoutFor(t *testing.T, traces []trace.Trace, today time.Duration) (Action, string) {
	t.Helper()
	return timeouts(lost(traces, today))
}

// lost is the situation in which calls of orders hang until they are given up.
func lost(traces []trace.Trace, today time.Duration) *situation {
	f := diagnose.Finding{
		Code: "LP118", Service: "frontend", Operation: "GET /checkout",
		Detail: diagnose.Detail{Callees: []string{"orders"}, Latency: 40 * time.Millisecond, Timeout: today},
	}
	current := map[string]longpole.Config{"orders": {Timeout: 5 * time.Second}}
	return &situation{corpus: load(traces, diagnose.ClockOptions{}), finding: &f, route: routeKey{gatewayService, "checkout"}, current: current}
}

func TestTimeoutIsWellAboveEveryAnswer(t *testing.T) {
	traces := quick(3 * time.Second)
	a, reason := timeoutFor(t, traces, 3*time.Second)
	if a.Change == nil {
		t.Fatalf("%+v, %q", a, reason)
	}
	var slowest time.Duration
	for _, tr := range traces {
		if s := tr.Spans[3]; !s.Failed {
			slowest = max(slowest, time.Duration(s.End-s.Start))
		}
	}
	if got := a.Change.To.TryTimeout; got < slowest*3/2 || got > slowest*5/2 {
		t.Errorf("an attempt is given up after %s; the slowest answer took %s", got, slowest)
	}
	if a.ExtraLoad < 0.045 || a.ExtraLoad > 0.07 {
		t.Errorf("%.3f more attempts; want one for each call in twenty that hangs", a.ExtraLoad)
	}
	if e := a.on(routeKey{gatewayService, "checkout"}); e == nil || e.Predicted.P99 > e.Before.P99/10 {
		t.Errorf("the forecast is %+v", e)
	}
}

func TestCallsThatHangAreAskedForElsewhere(t *testing.T) {
	hedgeFor := func(traces []trace.Trace) (Action, string) {
		return hedge(lost(traces, 3*time.Second))
	}
	a, reason := hedgeFor(quick(3 * time.Second))
	if a.Change == nil || a.Change.To.Retry.Hedge == nil {
		t.Fatalf("%+v, %q", a, reason)
	}
	if after := a.Change.To.Retry.Hedge.After; after < 30*time.Millisecond || after > 60*time.Millisecond || a.ExtraLoad < 0.045 || a.ExtraLoad > 0.07 {
		t.Errorf("a copy after %s, %.3f more calls; want one later than 99%% of the answers, for them and one call in twenty that hangs", after, a.ExtraLoad)
	}
	// Both copies hang in one of 400 calls, so that the p99 is that of a copy that answers.
	if e := a.on(routeKey{gatewayService, "checkout"}); e == nil || e.Predicted.P99 > 200 || e.Before.P99 < 3000 {
		t.Errorf("the forecast is %+v", e)
	}
	often := quick(3 * time.Second)
	for i := 0; i < len(often); i += 4 {
		often[i] = hung(i, 3*time.Second)
	}
	if a, reason := hedgeFor(often); a.Change != nil || !strings.Contains(reason, "no hedge") {
		t.Errorf("one call in four hangs, and copies of all are proposed: %+v, %q", a, reason)
	}
}

func TestAnswersThatAreSlowAreNotGivenUp(t *testing.T) {
	a, reason := timeoutFor(t, shop(1, 600), 10*time.Second) // one endpoint takes up to half a second, and answers
	if a.Change != nil || !strings.Contains(reason, "no timeout") {
		t.Errorf("%+v, %q", a, reason)
	}
}

func TestTimeoutThatLeavesNoRoomForASecondAttemptIsNone(t *testing.T) {
	a, reason := timeoutFor(t, quick(150*time.Millisecond), 150*time.Millisecond)
	if a.Change != nil || !strings.Contains(reason, "do not fit into the 150ms") {
		t.Errorf("%+v, %q", a, reason)
	}
}

func TestFewAnswersGiveNoTimeout(t *testing.T) {
	a, reason := timeoutFor(t, quick(3 * time.Second)[:minCalls/2], 3*time.Second)
	if a.Change != nil || !strings.Contains(reason, "too few") {
		t.Errorf("%+v, %q", a, reason)
	}
}
