package diagnose

import "testing"

func TestDominant(t *testing.T) {
	cases := []ruleCase{
		{name: "a database", text: same("page 0ms 50ms\n  SELECT 5ms 45ms kind=client db.system=mysql"), at: "svc SELECT", share: 0.8, says: "database"},
		{name: "a statement without attributes", text: same("page 0ms 50ms\n  \"SELECT items\" 5ms 45ms"), at: "svc SELECT items", share: 0.8, says: "database"},
		{name: "a call nobody recorded on the far side", text: same("page 0ms 100ms\n  pay 10ms 90ms kind=client peer.service=bank"), at: "bank pay", share: 0.8, says: "dependency"},
		{name: "an edge", text: same("page 0ms 40ms\n  call 4ms 36ms kind=client\n    pay 18ms 22ms service=bank kind=server"), at: "bank pay", share: 0.7, says: "network"},
		{name: "the work of another service", text: same("page 0ms 100ms\n  call 10ms 90ms kind=client\n    pay 11ms 89ms service=bank kind=server"), at: "bank pay", share: 0.78, says: "dependency"},
		{name: "its own work", text: same("page 0ms 100ms"), at: "svc page", share: 1, says: "unknown"},
		{name: "near miss: no segment takes much", text: same("page 0ms 100ms\n  a 0ms 25ms kind=client peer.service=a\n  b 25ms 50ms kind=client peer.service=b\n  c 50ms 75ms kind=client peer.service=c")},
		{name: "near miss: a loop explains it", text: same("page 0ms 100ms\n  SELECT 10ms 14ms x20 kind=client db.system=mysql")},
	}
	for i := range cases {
		cases[i].n = 12
	}
	checkRule(t, "LP105", cases)
}

func TestTheLargestSegmentIsNoFindingByItself(t *testing.T) {
	checkRule(t, "LP105", []ruleCase{
		{name: "always as long, and not long", n: 60, text: same("page 0ms 100ms\n  pay 10ms 90ms kind=client peer.service=bank")},
		{name: "half a second is long", n: 60, text: same("page 0ms 1000ms service=browser"), at: "browser page", share: 1, says: "unknown"},
	})
}
