package staging

import (
	"cmp"
	"math"
	"slices"
)

// Effect is by how much a change moved percentiles: the logarithm of after over before, so that -0.69 is half. It is NaN-free;
// what was not measured is 0.
type Effect struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// EffectOf compares two latencies.
func EffectOf(before, after Latency) Effect {
	of := func(b, a float64) float64 {
		if !(b > 0) || !(a > 0) {
			return 0
		}
		return math.Log(a / b)
	}
	return Effect{of(before.P50, after.P50), of(before.P95, after.P95), of(before.P99, after.P99)}
}

// Percent is an effect as people say it: -50 = half.
func Percent(effect float64) float64 { return 100 * math.Expm1(effect) }

// Carried is one change in both environments.
type Carried struct {
	Hash       string  `json:"hash"`
	Route      string  `json:"route"`
	Class      string  `json:"class"` // of the segment; "other" = not said
	Predicted  *Effect `json:"predicted,omitempty"`
	Staging    Effect  `json:"staging"`
	Production Effect  `json:"production"`
}

// Factor is what is left of an effect on the way to production: 1 = all, 0.5 = half, below 0 = it turned round.
type Factor struct {
	Class   string  `json:"class"`
	Value   float64 `json:"value"`
	Changes int     `json:"changes"` // that it was learned from
}

// Transfer says how effects carried over.
type Transfer struct {
	Changes []Carried `json:"changes"` // the newest in production first; never nil
	Factors []Factor  `json:"factors"` // by class, "all" first; never nil
}

const otherClass = "other"

// Compare pairs the records of two environments by the change, each with its newest record, and learns the factors: the
// slope through the origin of production's effects on staging's, p50, p95 and p99 alike.
func Compare(staging, production []Record) Transfer {
	t := Transfer{Changes: []Carried{}, Factors: []Factor{}}
	seen := map[string]bool{}
	for _, p := range Newest(production, len(production)) {
		if seen[p.Hash] {
			continue
		}
		seen[p.Hash] = true
		for _, s := range Newest(staging, len(staging)) {
			if s.Hash != p.Hash {
				continue
			}
			c := Carried{
				Hash: p.Hash, Route: p.Route, Class: cmp.Or(p.Class, s.Class, otherClass),
				Staging: EffectOf(s.Before, s.After), Production: EffectOf(p.Before, p.After),
			}
			if p.Predicted != nil {
				e := EffectOf(p.Before, *p.Predicted)
				c.Predicted = &e
			}
			t.Changes = append(t.Changes, c)
			break
		}
	}
	t.learn()
	return t
}

func (t *Transfer) learn() {
	type sums struct {
		cross, square float64
		n             int
	}
	by := map[string]*sums{}
	for _, c := range t.Changes {
		for _, class := range []string{"all", c.Class} {
			s := by[class]
			if s == nil {
				s = &sums{}
				by[class] = s
			}
			s.n++
			for _, pair := range [][2]float64{{c.Staging.P50, c.Production.P50}, {c.Staging.P95, c.Production.P95}, {c.Staging.P99, c.Production.P99}} {
				s.cross += pair[0] * pair[1]
				s.square += pair[0] * pair[0]
			}
		}
	}
	for class, s := range by {
		if s.square > 0 {
			t.Factors = append(t.Factors, Factor{Class: class, Value: s.cross / s.square, Changes: s.n})
		}
	}
	slices.SortFunc(t.Factors, func(a, b Factor) int {
		if a.Class == "all" || b.Class == "all" {
			return cmp.Compare(flag(a.Class != "all"), flag(b.Class != "all"))
		}
		return cmp.Compare(a.Class, b.Class)
	})
}

// Expect is what a change that did so much in staging will do in production, by the factor of its class, or else of all;
// as it is when nothing was learned.
func (t *Transfer) Expect(class string, e Effect) Effect {
	f := 1.0
	for _, one := range t.Factors {
		if one.Class == class {
			f = one.Value
			break
		}
		if one.Class == "all" {
			f = one.Value
		}
	}
	return Effect{f * e.P50, f * e.P95, f * e.P99}
}
