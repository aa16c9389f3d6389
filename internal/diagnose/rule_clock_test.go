package diagnose

import (
	"fmt"
	"testing"
)

func TestClock(t *testing.T) {
	off := func(skew, jitter float64) func(d dice, i int) string {
		return func(d dice, _ int) string {
			work := d.near(20)
			by := skew + jitter*d.NormFloat64()
			return fmt.Sprintf("page 0ms %.3fms service=shop host=a kind=server\n  call 1ms %.3fms kind=client\n    price %.3fms %.3fms service=pricing host=b kind=server", work+8, work+7, by+3, by+3+work)
		}
	}
	checkClass(t, "LP124", "clock", []classCase{
		{name: "ahead by a second, always", text: off(1000, 0.1), service: "pricing", says: "ahead"},
		{name: "behind by ever more", text: off(-300, 60), service: "pricing", says: "behind"},
		{name: "near miss: off by a millisecond", text: off(-4, 0)},
		{name: "near miss: right", text: off(0, 0.5)},
	})
}
