package advise

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/staging"
)

// advised is a report of one finding that a hedge and an index would cure.
func advised() Report {
	of := func(kind string) Action {
		i := Interval{P50: [2]float64{9, 11}, P95: [2]float64{36, 44}, P99: [2]float64{45, 55}}
		p := Predicted{P50: 10, P95: 40, P99: 50}
		return Action{Kind: kind, Predicted: &p, Interval: &i, Effects: []Effect{{Route: "orders", Predicted: p, Interval: i}}}
	}
	return Report{Routes: []Route{{Findings: []Finding{{Actions: []Action{of(KindHedge), of(KindIndex), {Kind: KindHedge}}}}}}}
}

func TestOnlyIntervalsOfTheKindAreWidened(t *testing.T) {
	r := advised()
	by := staging.Stretches{{Kind: KindHedge, Outcomes: 12, Covered: 0.5, Factor: 2}}
	r.Widen(by)
	actions := r.Routes[0].Findings[0].Actions
	hedge, index, plain := actions[0], actions[1], actions[2]
	if i := hedge.Interval; i.P50[0] >= 8.2 || i.P50[0] < 8 || i.P50[1] <= 12 || i.P99[1] <= 60 || i.P99[1] > 61 || hedge.Predicted.P99 != 50 {
		t.Errorf("%+v", hedge.Interval)
	}
	if hedge.Effects[0].Interval != *hedge.Interval || hedge.Widened.String() != "widened 2x after 12 outcomes" {
		t.Errorf("%+v %s", hedge.Effects[0], hedge.Widened)
	}
	if index.Widened != nil || index.Interval.P50 != [2]float64{9, 11} || plain.Widened != nil {
		t.Errorf("%+v %+v", index, plain)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"widened":{"kind":"hedge","outcomes":12,`) {
		t.Errorf("%v %s", err, text)
	}
	before := *hedge.Interval
	r.Widen(by)
	if *r.Routes[0].Findings[0].Actions[0].Interval != before {
		t.Error("it was widened twice")
	}
}
