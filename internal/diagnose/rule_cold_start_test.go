package diagnose

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

func TestColdStart(t *testing.T) {
	on := func(host string, work float64, more string) string {
		return page(work, "host="+host+" "+more)
	}
	// A new process every 50 requests; its first two are slow.
	fresh := func(d dice, i int) string {
		if i >= 50 && i%50 < 2 {
			return on(fmt.Sprintf("pod-%d", i/50), d.near(900), "")
		}
		return on(fmt.Sprintf("pod-%d", i/50), d.near(20), "")
	}
	// Two processes, of which the second is away before its requests 50 and 130, and takes slow ms for the first of them.
	twice := func(first int, slow float64) func(d dice, i int) string {
		return func(d dice, i int) string {
			if k := i / 2; i%2 == 1 && (k >= 50 && k < 50+first || k >= 130 && k < 130+first) {
				return on("pod-1", d.near(slow), "")
			}
			return on(fmt.Sprintf("pod-%d", i%2), d.near(20), "")
		}
	}
	away := func(sibling bool) func(_ dice, i int) time.Duration {
		return func(_ dice, i int) time.Duration {
			at := time.Duration(i) * 20 * time.Millisecond
			for _, k := range []int{50, 130} {
				if i >= 2*k && (i%2 == 1 || !sibling) {
					at += 800 * time.Millisecond
				}
			}
			return at
		}
	}
	checkClass(t, "LP116", "cold_start", []classCase{
		{name: "the first requests of new processes", n: 300, text: fresh, service: "pricing", verdict: Likely, says: "among the first 5 requests"},
		{name: "the spans tell it", text: func(d dice, i int) string {
			if i%20 == 7 {
				return on("fn", d.near(900), "faas.coldstart=true")
			}
			return on("fn", d.near(20), "faas.coldstart=false")
		}, service: "pricing", verdict: Likely, says: "tell that it was a cold start"},
		{name: "the first request after a pause", text: func(d dice, i int) string {
			if i > 0 && i%20 == 0 {
				return on("pod", d.near(900), "")
			}
			return on("pod", d.near(20), "")
		}, at: func(_ dice, i int) time.Duration {
			return time.Duration(i)*time.Second + time.Duration(i/20)*5*time.Minute
		}, service: "pricing"},
		{
			name: "confirmed: it was started anew", n: 300, text: fresh, service: "pricing", verdict: Confirmed, says: "was started anew",
			facts: ofService("pricing", evidence.RuntimeStats{Restarted: true}),
		},
		{name: "a process comes back under its name while its sibling serves", n: 400, text: twice(15, 300), at: away(true), service: "pricing", verdict: Likely, says: "among the first 20 requests"},
		{
			name: "confirmed: it was started anew under its name", n: 400, text: twice(15, 300), at: away(true), service: "pricing", verdict: Confirmed, says: "was started anew",
			facts: evidence.Facts{Services: []evidence.ServiceFacts{{Service: "pricing", Instance: "pod-1", Runtime: &evidence.RuntimeStats{Restarted: true}}}},
		},
		{name: "it takes forty requests to get warm", n: 1000, text: twice(40, 300), at: away(true), service: "pricing", verdict: Likely, says: "among the first 60 requests"},
		{name: "near miss: it comes back, and never gets warm", n: 300, text: twice(1000, 300), at: away(true)},
		{name: "near miss: it comes back and is as fast as ever", n: 400, text: twice(15, 20), at: away(true)},
		{name: "near miss: nobody called anybody, and then it is slow", n: 400, text: twice(15, 300), at: away(false)},
		{name: "near miss: slow at times on a process that runs", text: slowNow(900)},
		{name: "near miss: new processes that are fast at once", n: 300, text: func(d dice, i int) string { return on(fmt.Sprintf("pod-%d", i/50), d.near(20), "") }},
	})
}
