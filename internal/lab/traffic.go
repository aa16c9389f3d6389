package lab

import (
	"fmt"
	"math/rand/v2"

	"github.com/longpole/longpole/internal/load"
)

// Rates are how many calls a second the traffic has. The zero value means the defaults, which keep two cores less
// than half busy with system, gateway and analysis together.
type Rates struct {
	CheckoutPerSecond float64 // 0 = 40
	BrowsePerSecond   float64 // 0 = 30
}

// users is how many different users check out.
const users = 5000

// Plan is Poisson traffic for a gateway at that base URL: checkouts by users drawn evenly, and categories browsed as
// shops see it, the first far more often than the last (weights 1/rank).
func Plan(gateway string, r Rates, seed uint64) load.Plan {
	if r.CheckoutPerSecond == 0 {
		r.CheckoutPerSecond = 40
	}
	if r.BrowsePerSecond == 0 {
		r.BrowsePerSecond = 30
	}
	var browse []load.Choice
	for i, c := range Categories {
		browse = append(browse, load.Choice{URL: gateway + "/browse?category=" + c, Weight: 1 / float64(i+1)})
	}
	return load.Plan{
		Arrivals: load.Poisson, Seed: seed, MaxInFlight: 256,
		Targets: []load.Target{
			{Name: "checkout", Template: "/checkout", PerSecond: r.CheckoutPerSecond, URL: func(rng *rand.Rand) string {
				return fmt.Sprintf("%s/checkout?user=%d", gateway, 1+rng.IntN(users))
			}},
			{Name: "browse", Template: "/browse", PerSecond: r.BrowsePerSecond, URL: load.Weighted(browse...)},
		},
	}
}
