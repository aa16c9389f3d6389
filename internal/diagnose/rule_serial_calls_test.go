package diagnose

import "testing"

func TestSerialCalls(t *testing.T) {
	const (
		oneByOne  = "buy 0ms 100ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server\n  call 50ms 98ms kind=client\n    stock 51ms 97ms service=inventory kind=server"
		otherWay  = "buy 0ms 100ms service=shop kind=server\n  call 1ms 49ms kind=client\n    stock 2ms 48ms service=inventory kind=server\n  call 50ms 98ms kind=client\n    price 51ms 97ms service=pricing kind=server"
		atOnce    = "buy 0ms 100ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server\n  call 2ms 98ms kind=client\n    stock 3ms 97ms service=inventory kind=server"
		firstOnly = "buy 0ms 60ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server"
		withWork  = "buy 0ms 130ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server\n  call 80ms 128ms kind=client\n    stock 81ms 127ms service=inventory kind=server"
		equal     = "buy 0ms 100ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server\n  call 50ms 98ms kind=client\n    price 51ms 97ms service=pricing kind=server"
		local     = "buy 0ms 100ms service=shop kind=server\n  parse 1ms 49ms\n  render 50ms 98ms"
		noKinds   = "buy 0ms 100ms service=shop\n  call 1ms 49ms\n    price 2ms 48ms service=pricing\n  call 50ms 98ms\n    stock 51ms 97ms service=inventory"
		wrapped   = "buy 0ms 100ms service=shop\n  prices 1ms 49ms\n    db.get 2ms 48ms kind=client db.system.name=postgresql\n  stocks 50ms 98ms\n    db.find 51ms 97ms kind=client db.system.name=postgresql"
		cheap     = "buy 0ms 1000ms service=shop kind=server\n  call 1ms 9ms kind=client\n    price 2ms 8ms service=pricing kind=server\n  call 10ms 18ms kind=client\n    stock 11ms 17ms service=inventory kind=server"
		seldomOne = "buy 0ms 60ms service=shop kind=server\n  call 1ms 49ms kind=client\n    price 2ms 48ms service=pricing kind=server\n  note 50ms 51ms kind=client peer.service=log"
	)
	checkRule(t, "LP101", []ruleCase{
		{name: "two different calls, one after the other", text: same(oneByOne), at: "shop buy", share: 0.48, says: "may need the answer"},
		{name: "the order changes: neither waits for the other's answer", text: alternating(oneByOne, otherWay), at: "shop buy", share: 0.48, says: "the order changes"},
		{name: "the second one only at times, but in either order", text: func(i int) string { return []string{oneByOne, otherWay, firstOnly}[i%3] }, at: "shop buy", share: 0.48, says: "the order changes"},
		{name: "without kinds", text: same(noKinds), at: "shop buy", share: 0.48, says: "pricing price"},
		{name: "wrapped in local spans", text: same(wrapped), at: "shop buy", share: 0.48, says: "db.get"},
		{name: "near miss: the second one only after some answers of the first", text: alternating(oneByOne, firstOnly)},
		{name: "near miss: a write, and what is told of it", text: same("buy 0ms 100ms service=shop kind=server\n  save 1ms 49ms kind=client db.system.name=postgresql db.query.text=\"INSERT INTO orders VALUES (1)\"\n  call 50ms 98ms kind=client\n    tell 51ms 97ms service=partner kind=server")},
		{name: "near miss: they run at once", text: same(atOnce)},
		{name: "near miss: work of its own between them", text: same(withWork)},
		{name: "near miss: equal calls are a loop", text: same(equal)},
		{name: "near miss: local work only", text: same(local)},
		{name: "near miss: too little to gain", text: same(cheap)},
		{name: "near miss: the second call is short", text: same(seldomOne)},
	})
}
