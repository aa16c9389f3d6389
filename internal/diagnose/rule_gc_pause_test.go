package diagnose

import (
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

func TestGCPause(t *testing.T) {
	// 100 requests a second; the process stands still for 200 ms every second second, so that those in work then last longer, and
	// those that come wait for its end.
	const every, pause = 2000.0, 200.0
	arrives := func(i int) float64 { return float64(i) * 10 }
	stands := func(d dice, i int) float64 {
		work, from := d.near(15), arrives(i)
		next := float64(int(from/every)+1)*every - pause
		if from >= next {
			return next + pause - from + work
		}
		if from+work > next {
			return work + pause
		}
		return work
	}
	at := func(_ dice, i int) time.Duration { return time.Duration(arrives(i)) * time.Millisecond }
	still := func(d dice, i int) string {
		name := "GET/a"
		if i%2 == 1 {
			name = "GET/b"
		}
		return name + " 0ms " + ms3(stands(d, i)) + " service=shop kind=server host=pod-1"
	}
	one := func(d dice, i int) string {
		return "GET/a 0ms " + ms3(stands(d, i)) + " service=shop kind=server host=pod-1"
	}
	checkClass(t, "LP117", "gc_pause", []classCase{
		{name: "a process stands still", n: 1000, text: one, at: at, service: "shop", verdict: Suspected, says: "stood still together"},
		{name: "all its operations do", n: 1000, text: still, at: at, service: "shop"},
		{
			name: "confirmed: the runtime counts the pauses", n: 1000, text: one, at: at, service: "shop", verdict: Confirmed, says: "stands still for garbage collection 8.0 %",
			facts: ofService("shop", evidence.RuntimeStats{GCPause: new(0.08), GCRuns: new(0.5)}),
		},
		{
			name: "refuted: the runtime counts none", n: 1000, text: one, at: at,
			facts: ofService("shop", evidence.RuntimeStats{GCPause: new(0.00001)}),
		},
		{name: "near miss: slow at times, and others end meanwhile", n: 1000, text: func(d dice, i int) string {
			work := d.near(15)
			if i%50 == 7 {
				work = 200
			}
			return "GET/a 0ms " + ms3(work) + " service=shop kind=server host=pod-1"
		}, at: at},
		{name: "near miss: one after the other", text: slowNow(300)},
	})
}
