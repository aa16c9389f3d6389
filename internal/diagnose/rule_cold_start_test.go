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
		{name: "near miss: slow at times on a process that runs", text: slowNow(900)},
		{name: "near miss: new processes that are fast at once", n: 300, text: func(d dice, i int) string { return on(fmt.Sprintf("pod-%d", i/50), d.near(20), "") }},
	})
}
