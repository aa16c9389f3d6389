package diagnose

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

// slowNow is a service that takes 20 ms, and one time in 20 long ms.
func slowNow(long float64) func(d dice, i int) string {
	return func(d dice, i int) string {
		if i%20 == 7 {
			return page(d.near(long), "")
		}
		return page(d.near(20), "")
	}
}

func TestCPU(t *testing.T) {
	hot := evidence.ProfileFacts{Kind: "cpu", Top: []evidence.Function{{Name: "pricing.discount", Flat: 7, FlatShare: 0.7}, {Name: "runtime.mallocgc", FlatShare: 0.1}}}
	diff := evidence.ProfileFacts{Kind: "cpu", Diff: &evidence.ProfileDiff{
		Kind: "cpu", HealthyRate: 1e9, SuspectRate: 3e9, Changes: []evidence.FunctionChange{{Name: "regexp.backtrack", Healthy: 0.05, Suspect: 0.6, Confidence: 1}},
	}}
	checkClass(t, "LP106", "cpu", []classCase{
		{name: "now and then", text: slowNow(300), service: "pricing", verdict: Suspected, says: "without a profile"},
		{name: "always", text: func(d dice, _ int) string { return page(d.near(600), "") }, service: "pricing", says: "always long"},
		{name: "two in a hundred of many", n: 3000, text: func(d dice, i int) string {
			if i%50 == 7 {
				return page(d.near(300), "")
			}
			return page(d.near(20), "")
		}, service: "pricing"},
		{name: "called again and again, each time long", text: func(d dice, _ int) string {
			text := "page 0ms 6100ms service=shop kind=server\n"
			for k := range 6 {
				at := 1000 * float64(k)
				text += fmt.Sprintf("  call %.3fms %.3fms kind=client\n    price %.3fms %.3fms service=pricing kind=server\n", at+1, at+998, at+2, at+900+d.near(50))
			}
			return text
		}, service: "pricing"},
		{name: "without kinds", text: func(d dice, i int) string {
			work := d.near(20)
			if i%20 == 7 {
				work = d.near(400)
			}
			return "page 0ms " + ms3(work+4) + " service=shop\n  call 1ms " + ms3(work+3) + "\n    price 1.5ms " + ms3(work+2) + " service=pricing"
		}, service: "pricing"},
		{
			name: "confirmed: no processor is left, and the profile names the function", text: slowNow(300), service: "pricing", verdict: Confirmed, says: "pricing.discount",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(3.9), Procs: new(4.0)}, hot),
		},
		{
			name: "confirmed: throttled", text: slowNow(300), service: "pricing", verdict: Confirmed, says: "used up its limit",
			facts: ofService("pricing", evidence.RuntimeStats{Throttled: new(0.4)}),
		},
		{
			name: "confirmed: the profile differs from the healthy one", text: slowNow(300), service: "pricing", verdict: Confirmed, says: "regexp.backtrack",
			facts: ofService("pricing", evidence.RuntimeStats{}, diff),
		},
		{
			name: "the processors were idle, and yet used for as long as its spans took", text: slowNow(300), service: "pricing", verdict: Likely, says: "they compute",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.034), Procs: new(4.0)}, hot),
		},
		{
			name: "refuted: the processors were idle", text: slowNow(300), says: "LP105 unknown pricing",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.2), Procs: new(4.0)}), // with more than spans tell of, which may be anybody's
		},
		{
			name: "refuted: the processors were used for less than its spans took", text: slowNow(300), says: "it is not computing",
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(0.008), Procs: new(4.0)}),
		},
		{
			name: "confirmed: long for nobody, but the profile has tripled", text: func(d dice, _ int) string { return page(d.near(60), "") }, service: "pricing", verdict: Confirmed,
			says: "3.0 times the CPU", facts: ofService("pricing", evidence.RuntimeStats{}, diff),
		},
		{
			name: "near miss: the profile has tripled, as that of all others", text: func(d dice, _ int) string { return page(d.near(60), "") },
			facts: evidence.Facts{Services: []evidence.ServiceFacts{{Service: "pricing", Profiles: []evidence.ProfileFacts{diff}}, {Service: "shop", Profiles: []evidence.ProfileFacts{diff}}}},
		},
		{
			name: "near miss: the profile has grown by a half, and nothing is slow", text: func(d dice, _ int) string { return page(d.near(60), "") },
			facts: ofService("pricing", evidence.RuntimeStats{}, evidence.ProfileFacts{Kind: "cpu", Diff: &evidence.ProfileDiff{Kind: "cpu", HealthyRate: 1e9, SuspectRate: 1.5e9}}),
		},
		{
			name: "near miss: the processors are busy with work that takes no time", text: func(d dice, _ int) string { return page(d.near(3), "") },
			facts: ofService("pricing", evidence.RuntimeStats{CPU: new(3.9), Procs: new(4.0)}),
		},
		{name: "two in five take eight times as long", text: func(d dice, i int) string {
			if i%5 < 2 {
				return page(d.near(160), "")
			}
			return page(d.near(20), "")
		}, service: "pricing", verdict: Suspected},
		{name: "near miss: it varies as healthy work does", text: func(d dice, _ int) string { return page(d.near(80), "") }},
		{name: "near miss: slow, but too few of the time", text: func(d dice, i int) string {
			work := d.near(20)
			extra := 0.0
			if i%20 == 7 {
				extra = 4
			}
			return page(work+extra, "")
		}},
	})
}
