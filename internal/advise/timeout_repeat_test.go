package advise

import (
	"fmt"
	"testing"
	"time"

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
