package diagnose

import (
	"fmt"
	"testing"
)

func TestRepeatedReads(t *testing.T) {
	get := func(path func(i int) string, more string) func(int) string {
		return func(i int) string {
			return fmt.Sprintf("page 0ms 100ms service=shop kind=server\n  call 10ms 90ms kind=client\n    catalogue 11ms 89ms service=catalogue kind=server http.request.method=GET url.path=%s %s\n      work 12ms 88ms", path(i), more)
		}
	}
	few := func(i int) string { return fmt.Sprintf("/items/%d", i%4) }
	fresh := func(i int) string { return fmt.Sprintf("/items/%d", i) }
	query := func(text string) func(int) string {
		return func(i int) string {
			return fmt.Sprintf("page 0ms 100ms service=shop kind=server\n  db 10ms 90ms kind=client db.system=sqlite db.statement=%q", fmt.Sprintf(text, i%3))
		}
	}
	checkRule(t, "LP104", []ruleCase{
		{name: "the same few things by GET", n: 60, text: get(few, ""), at: "catalogue catalogue", share: 0.78, says: "4 different things"},
		{name: "by old attributes", n: 60, text: func(i int) string {
			return fmt.Sprintf("page 0ms 100ms service=shop kind=server\n  call 10ms 90ms kind=client http.method=GET http.url=http://files/%d", i%3)
		}, at: "shop call", share: 0.8, says: "3 different things"},
		{name: "the same query", n: 60, text: query("SELECT * FROM a WHERE b = %d"), at: "shop db", share: 0.8, says: "hit ratio"},
		{name: "near miss: only the first read of each takes long, as what it reads is kept already", n: 60, text: func(i int) string {
			took := 4
			if i < 4 {
				took = 88
			}
			return fmt.Sprintf("page 0ms %dms service=shop kind=server\n  call 1ms %dms kind=client\n    catalogue 1ms %dms service=catalogue kind=server http.request.method=GET url.path=%s\n      work 2ms %dms",
				took+12, took+2, took+2, few(i), took+1)
		}},
		{name: "near miss: ever new keys", n: 60, text: get(fresh, "")},
		{name: "near miss: no read", n: 60, text: func(i int) string {
			return "page 0ms 100ms service=shop kind=server\n  call 10ms 90ms kind=client http.method=POST http.url=http://files/1"
		}},
		{name: "near miss: a write", n: 60, text: query("UPDATE a SET b = %d")},
		{name: "near miss: a GET that writes on its way", n: 60, text: func(i int) string {
			return get(few, "")(i) + "\n      save 20ms 21ms kind=client db.system.name=postgresql db.query.text=\"UPDATE seen SET n = n + 1\""
		}},
		{name: "near miss: a locking read", n: 60, text: query("SELECT * FROM a WHERE b = %d FOR UPDATE")},
		{name: "near miss: placeholders hide the key", n: 60, text: query("SELECT * FROM a WHERE b = ? /* %d */")},
		{name: "near miss: meant for one user", n: 60, text: get(few, "enduser.id=7")},
		{name: "near miss: few calls", n: 12, text: get(few, "")},
		{name: "near miss: cheap", n: 60, text: func(i int) string {
			return "page 0ms 1000ms service=shop kind=server\n  call 10ms 12ms kind=client http.method=GET http.url=http://files/1"
		}},
		{name: "near miss: a page of several services", n: 60, text: func(i int) string {
			return "page 0ms 100ms service=shop kind=server http.method=GET http.target=/\n  call 10ms 40ms kind=client\n    a 11ms 39ms service=a\n  call 50ms 90ms kind=client\n    b 51ms 89ms service=b"
		}},
	})
}
