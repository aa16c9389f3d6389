package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A gateway has little alive and makes much garbage: at the usual pace of 100% a heap of 10 MiB is collected every
// 10 MiB. Below this size a heap need not be collected at all. Twice the floor would save 1% of the CPU of a call, and cost
// 32 MiB.
const heapFloor = 32 << 20

// easeCollector sets the pace of the garbage collector so that it begins no sooner than at heapFloor, until ctx is done.
// It leaves alone who has set GOGC.
func easeCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 0; ; {
		metrics.Read(live)
		if next := paceFor(live[0].Value.Uint64()); next != now {
			debug.SetGCPercent(next)
			now = next
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// paceFor is the GC percentage for a live heap: 100 and more, so that the next collection begins at heapFloor or later.
// It goes in steps of a quarter, since each change stops the world for a moment.
func paceFor(live uint64) int {
	live = max(live, heapFloor/16)
	percent := 100
	for next := percent; uint64(next+100)*live <= heapFloor*100; next += 25 {
		percent = next
	}
	return percent
}
