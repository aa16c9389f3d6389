package diagnose

import (
	"fmt"
	"testing"
)

func TestHedgeLoser(t *testing.T) {
	hedge := func(every int, after float64) func(d dice, i int) string {
		return func(d dice, i int) string {
			took := d.near(30)
			text := fmt.Sprintf("get 0ms %.3fms service=edge kind=server\n  try 1ms %.3fms kind=client\n    order 2ms %.3fms service=orders kind=server\n", took+4, took+3, took+2)
			if i%every == 0 {
				text += fmt.Sprintf("  try 11ms %.3fms kind=client canceled=true\n    order 12ms %.3fms service=orders kind=server\n", took+3.1, took+3+after)
			}
			return text
		}
	}
	checkClass(t, "LP113", "hedge_loser", []classCase{
		{name: "every other call has a copy", text: hedge(2, -1), service: "edge", says: "50 %"},
		{name: "the callee does not notice that it was called off", text: hedge(3, 40), service: "edge", says: "does not notice"},
		{name: "near miss: one in 20", text: hedge(20, -1)},
		{name: "near miss: two calls at once, both wanted", text: func(dice, int) string {
			return "get 0ms 40ms service=edge kind=server\n  try 1ms 30ms kind=client peer.service=orders\n  try 1ms 31ms kind=client peer.service=orders"
		}},
		{name: "near miss: called off after a failure, with no copy", text: func(dice, int) string {
			return "get 0ms 40ms service=edge kind=server\n  try 1ms 30ms kind=client peer.service=orders\n  rate 1ms 30ms kind=client peer.service=rates canceled=true"
		}},
	})
}
