package diagnose

import "testing"

func TestNPlusOne(t *testing.T) {
	const db = " kind=client db.system.name=postgresql "
	checkRule(t, "LP102", []ruleCase{
		{
			name: "the same query again and again", at: "svc list", share: 0.75, says: "20 times in a row",
			text: same("list 0ms 100ms\n  select 10ms 14ms x20" + db),
		},
		{
			name: "queries that differ in their literals", at: "svc list", share: 0.6, says: "id = ?",
			text: same("list 0ms 100ms\n" +
				"  q 10ms 25ms" + db + "db.query.text=\"SELECT * FROM a WHERE id = 1\"\n  q 25ms 40ms" + db + "db.query.text=\"SELECT * FROM a WHERE id = 2\"\n" +
				"  q 40ms 55ms" + db + "db.query.text=\"SELECT * FROM a WHERE id = 3\"\n  q 55ms 70ms" + db + "db.query.text=\"SELECT * FROM a WHERE id = 4\"\n" +
				"  q 70ms 85ms" + db + "db.query.text=\"SELECT * FROM a WHERE id = 5\""),
		},
		{
			name: "calls of a service, without kinds, wrapped and with others between", at: "shop list", share: 0.5, says: "catalogue item",
			text: same("list 0ms 100ms service=shop\n" +
				"  load 10ms 20ms\n    call 10ms 20ms\n      item 11ms 19ms service=catalogue\n  load 20ms 30ms\n    call 20ms 30ms\n      item 21ms 29ms service=catalogue\n" +
				"  other 30ms 40ms\n    rate 30ms 40ms service=money\n" +
				"  load 40ms 50ms\n    call 40ms 50ms\n      item 41ms 49ms service=catalogue\n  load 50ms 60ms\n    call 50ms 60ms\n      item 51ms 59ms service=catalogue\n" +
				"  load 60ms 70ms\n    call 60ms 70ms\n      item 61ms 69ms service=catalogue\n  load 70ms 80ms\n    call 70ms 80ms\n      item 71ms 79ms service=catalogue"),
		},
		{name: "near miss: four are few", text: same("list 0ms 100ms\n  select 10ms 30ms x4" + db)},
		{name: "near miss: all at once", text: same("list 0ms 100ms\n  select 10ms 90ms x20 every=0ms" + db)},
		{name: "near miss: local work", text: same("list 0ms 100ms\n  step 10ms 14ms x20")},
		{name: "near miss: no time to speak of", text: same("list 0ms 1000ms\n  select 10ms 11ms x20" + db)},
		{name: "near miss: under different parents", text: same("list 0ms 100ms\n  a 0ms 40ms\n    select 1ms 10ms x3" + db + "\n  b 50ms 90ms\n    select 51ms 60ms x3" + db)},
	})
}
