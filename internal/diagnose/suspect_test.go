package diagnose

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTwoKindsOfWorkAreToldApart(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(median, sigma float64) int64 { return int64(median * 1e6 * math.Exp(sigma*r.NormFloat64())) }
	for name, c := range map[string]struct {
		one  func(i int) int64
		tail bool
	}{
		"a third takes twenty times as long":  {func(i int) int64 { return draw([]float64{30, 30, 600}[i%3], 0.35) }, true},
		"one in ten":                          {func(i int) int64 { return draw([]float64{30, 600}[(i%10)/9], 0.35) }, true},
		"two in three take as long: as usual": {func(i int) int64 { return draw([]float64{600, 600, 30}[i%3], 0.35) }, false},
		"a third takes twice as long":         {func(i int) int64 { return draw([]float64{30, 30, 60}[i%3], 0.35) }, false},
		"one kind that varies widely":         {func(int) int64 { return draw(30, 1.2) }, false},
		"anything from 1 to 100 ms":           {func(int) int64 { return int64(1e6 * math.Pow(100, r.Float64())) }, false},
		"microseconds":                        {func(i int) int64 { return draw([]float64{0.01, 0.01, 0.4}[i%3], 0.35) }, false},
	} {
		for range 20 {
			list := make([]weighted, 300)
			for i := range list {
				list[i] = weighted{c.one(i), 1}
			}
			slices.SortFunc(list, byTime)
			if s := spreadOf(list); s.tailed() != c.tail {
				t.Errorf("%s: limit %d, %d beyond", name, s.limit, s.beyond)
				break
			}
		}
	}
}

func TestWhatFailsAtOnceTellsNothingOfTheWork(t *testing.T) {
	c := classCase{name: "bank", text: func(d dice, i int) string {
		if i%5 == 0 {
			return asks(0.05, "failed")
		}
		return asks(d.near(30), "")
	}}
	set := newSet(c.traces(t), ClockOptions{})
	v := set.views(set.named(), Options{}.withDefaults())[0]
	for at, works := range v.look().own {
		if at.service == "rates" {
			if took := v.took(works); len(took) != 160 || took[0].ns < 5e6 {
				t.Errorf("%d works, the shortest %d ns", len(took), took[0].ns)
			}
			return
		}
	}
	t.Error("no such place")
}

func TestOnePauseOfTheMachineIsNoCondition(t *testing.T) {
	pause := func(times int) func(d dice, i int) string { // ten requests a second; in a pause five of them wait for its end
		return func(d dice, i int) string {
			if k := i % (200 / times); k < 5 {
				return page(d.near(20)+500-100*float64(k), "")
			}
			return page(d.near(20), "")
		}
	}
	for times, want := range map[int]bool{1: true, 2: true, 4: false} {
		c := classCase{name: "pause", text: pause(times)}
		set := newSet(c.traces(t), ClockOptions{})
		for i := range set.trees { // one a second is too seldom for a pause
			t0 := int64(i) * 900e6
			for k := range set.trees[i].Spans {
				set.trees[i].Spans[k].Start -= t0
				set.trees[i].Spans[k].End -= t0
			}
		}
		o := Options{}.withDefaults()
		v := set.views(set.named(), o)[0]
		v.facts, v.world = &o.Facts, &world{set: set, clock: &o.Clock}
		seen := false
		for _, s := range v.look().suspects {
			if s.service == "pricing" && s.operation == "price" && !s.constant {
				if seen = true; v.once(&s) != want {
					t.Errorf("%d pauses: %v", times, !want)
				}
			}
		}
		if !seen {
			t.Errorf("%d pauses: not suspected", times)
		}
	}
}
