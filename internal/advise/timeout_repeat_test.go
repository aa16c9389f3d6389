package advise

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// TestACallGivenUpSoonerIsNotMadeAgainTwice: the front's caller waited 3 s for a call that never came, failed, and was asked again.
// With a limit the call itself is made again, and the front is asked once.
func TestACallGivenUpSoonerIsNotMadeAgainTwice(t *testing.T) {
	const ms = time.Millisecond
	var traces []trace.Trace
	for i := range 400 {
		b := &builder{trace.Trace{ID: fmt.Sprintf("%05d", i)}}
		at, stall := time.Duration(i)*5*time.Second, 3000*ms
		root := b.span(-1, trace.Client, "client", "GET /front", at, at+30*ms)
		attempt := func(begin, took, inner time.Duration, failed bool) {
			ask := b.span(root, trace.Client, "client", "attempt", begin, begin+took)
			front := b.span(ask, trace.Server, "front", "GET /front", begin, begin+took)
			call := b.span(front, trace.Client, "front", "GET /slow", begin+5*ms, begin+5*ms+inner)
			for _, k := range []int{ask, front, call} {
				b.Spans[k].Failed = failed
			}
			if !failed {
				b.span(call, trace.Server, "slow", "GET /slow", begin+5*ms, begin+5*ms+inner)
			}
		}
		if i%10 == 0 {
			attempt(at, 5*ms+stall, stall, true)
			at += 5*ms + stall + 10*ms
		}
		attempt(at, 30*ms, 20*ms, false)
		b.Spans[root].End = int64(at + 30*ms)
		traces = append(traces, b.Trace)
	}
	f, err := WhatIf(traces, `timeout "front/GET /slow" 100ms tries=2`)
	if err != nil {
		t.Fatal(err)
	}
	if e := f.Effects[len(f.Effects)-1]; e.Before.P99 < 3000 || e.Predicted.P99 != 140 {
		t.Errorf("p99 from %.0f ms to %.0f ms, want 100 ms, a pause of 10 ms and 30 ms", e.Before.P99, e.Predicted.P99)
	}
}

// A gateway whose client hangs up calls its own attempt off, which is no failure of it, and no answer either.
func TestWhatACallerGaveUpIsNoAnswer(t *testing.T) {
	text := `ask 0ms 905ms service=hall kind=server
  get 1ms 901ms kind=client failed error.type=timeout
    seats.pick 2ms 901ms service=longpole-gateway kind=server
      GET 3ms 901ms kind=client service.peer.name=seats longpole.endpoint=a:1`
	var traces []trace.Trace
	for i := range 60 {
		one := text
		if i%20 > 0 {
			one = strings.NewReplacer("905", "15", "901", "11", "failed error.type=timeout", "").Replace(text) + "\n        pick 4ms 10ms service=seats kind=server"
		}
		got := parse(t, one)
		got.ID = fmt.Sprint(i)
		for k := range got.Spans {
			got.Spans[k].TraceID = got.ID
		}
		traces = append(traces, got)
	}
	c := load(traces, diagnose.ClockOptions{})
	if p := c.attempts("seats.pick"); len(p.tries) != 60 || p.took["a:1"].quantile(1) > int64(10*time.Millisecond) {
		t.Errorf("of %d attempts the slowest answer took %s; want 60, and 8ms", len(p.tries), short(p.took["a:1"].quantile(1)))
	}
	f := diagnose.Finding{Code: "LP118", Service: "hall", Operation: "ask", Detail: diagnose.Detail{Callees: []string{"seats"}}}
	if calls := (&situation{corpus: c, finding: &f, route: routeKey{"hall", "ask"}}).calls(); len(calls) != 60 {
		t.Errorf("%d of 60 calls of seats are found, answered or not", len(calls))
	}
}
