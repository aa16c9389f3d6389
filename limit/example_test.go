package limit_test

import (
	"fmt"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

// An event loop drives a limiter by hand: nothing here blocks.
func Example() {
	l := limit.New(limit.Config{Algorithm: limit.Fixed, Limit: 1, Queue: &limit.Queue{}})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

	first := l.Admit(now, call.Info{}, now.Add(time.Second))
	fmt.Println("first admitted:", first.Admitted())

	second := l.Admit(now, call.Info{Priority: call.Critical}, now.Add(300*time.Millisecond))
	fmt.Println("second waits for up to", second.Expiry().Sub(now))

	now = now.Add(40 * time.Millisecond)
	l.Done(now, first, call.Outcome{Class: call.OK, Latency: 40 * time.Millisecond})
	<-second.Decided() // closed by now
	fmt.Println("second admitted:", second.Admitted())

	// Output:
	// first admitted: true
	// second waits for up to 100ms
	// second admitted: true
}
