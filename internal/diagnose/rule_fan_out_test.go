package diagnose

import (
	"fmt"
	"strings"
	"testing"
)

func TestFanOut(t *testing.T) {
	fan := func(leaves int, slow float64) func(d dice, i int) string {
		return func(d dice, _ int) string {
			var b strings.Builder
			last := 0.0
			for range leaves {
				took := d.near(20)
				if d.Float64() < 0.02 {
					took = slow
				}
				last = max(last, took)
				fmt.Fprintf(&b, "  get 1ms %.3fms kind=client\n    shard 2ms %.3fms service=index kind=server\n", took+3, took+2)
			}
			return fmt.Sprintf("search 0ms %.3fms service=search kind=server\n", last+5) + b.String()
		}
	}
	checkClass(t, "LP121", "fan_out", []classCase{
		{name: "forty leaves, two in a hundred slow", text: fan(40, 200), service: "search", says: "if one leaf in a hundred is slow, 33 %"},
		{name: "a hundred alike, the slowest counts", text: fan(100, 60), service: "search"},
		{name: "near miss: four leaves", text: fan(4, 25)},
		{name: "near miss: one after the other", text: func(d dice, _ int) string {
			return "search 0ms 420ms service=search kind=server\n  get 1ms 11ms x40 kind=client peer.service=index"
		}},
		{name: "near miss: the time is spent elsewhere", text: func(d dice, i int) string {
			return strings.Replace(fan(40, 20)(d, i), "search 0ms", "search -3000ms", 1)
		}},
	})
}
