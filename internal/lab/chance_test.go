package lab

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

func TestWorkingTimesHaveTheirQuantiles(t *testing.T) {
	for name, l := range map[string]Lognormal{
		"orders": ordersWork, "pricing": pricingWork, "inventory": inventoryWork,
		"validate": validateWork, "receipt": receiptWork, "page": pageWork, "disk": {ms(80), ms(170)},
	} {
		s := newSource(1, name)
		drawn := make([]time.Duration, 50_000)
		for i := range drawn {
			drawn[i] = s.draw(l)
		}
		slices.Sort(drawn)
		for q, want := range map[float64]time.Duration{0.5: l.Median, 0.99: l.P99} {
			if got := stats.ExactQuantile(drawn, q); math.Abs(float64(got)/float64(want)-1) > 0.04 {
				t.Errorf("%s: quantile %g is %s; want %s", name, q, got, want)
			}
		}
	}
}

func TestWorkingTimeOfNothingIsNothing(t *testing.T) {
	if got := (Lognormal{}).At(3); got != 0 {
		t.Errorf("got %s; want 0", got)
	}
}

func TestDrawsDependOnSeedAndInstance(t *testing.T) {
	draw := func(seed uint64, instance string) time.Duration { return newSource(seed, instance).draw(ordersWork) }
	if draw(1, "orders-1") != draw(1, "orders-1") {
		t.Error("equal seeds draw differently")
	}
	if draw(1, "orders-1") == draw(1, "orders-2") || draw(1, "orders-1") == draw(2, "orders-1") {
		t.Error("another instance or seed draws the same")
	}
}
