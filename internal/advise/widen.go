package advise

import "github.com/longpole/longpole/internal/staging"

// Widen widens the intervals of r's forecasts by what became of earlier forecasts for actions of the same kinds, and says so
// in each action that it touches. An action that was widened before is left alone. The forecasts themselves stay.
func (r *Report) Widen(by staging.Stretches) {
	for i := range r.Routes {
		for k := range r.Routes[i].Findings {
			for n := range r.Routes[i].Findings[k].Actions {
				a := &r.Routes[i].Findings[k].Actions[n]
				if s := by.Of(a.Kind); s.Widens() && a.Widened == nil {
					a.widen(s)
				}
			}
		}
	}
}

func (a *Action) widen(s staging.Stretch) {
	if a.Interval != nil && a.Predicted != nil {
		wider := a.Interval.widened(*a.Predicted, s)
		a.Interval, a.Widened = &wider, &s
	}
	for i := range a.Effects {
		e := &a.Effects[i]
		e.Interval, a.Widened = e.Interval.widened(e.Predicted, s), &s
	}
}

func (i Interval) widened(p Predicted, s staging.Stretch) Interval {
	i.P50[0], i.P50[1] = s.Interval(p.P50, i.P50[0], i.P50[1])
	i.P95[0], i.P95[1] = s.Interval(p.P95, i.P95[0], i.P95[1])
	i.P99[0], i.P99[1] = s.Interval(p.P99, i.P99[0], i.P99[1])
	return i
}
