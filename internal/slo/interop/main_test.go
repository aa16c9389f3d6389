package interop_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longpole/longpole/internal/slo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// objectives are one of each kind, each on a route of its own.
func objectives() []slo.Objective {
	return []slo.Objective{
		{Name: "orders-there", Route: "orders", Target: 0.999, Description: `Orders are answered: "quotes", {{ braces }}: and colons # too.`},
		{Name: "things-fast", Route: "catalogue", Target: 0.999, Threshold: 250 * time.Millisecond, Period: slo.Period(28 * slo.Day)},
	}
}
