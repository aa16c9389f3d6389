package diagnose

import (
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

// aside is a request that asks a cache, and when that misses, a database.
func aside(miss bool, read float64, lookup, statement string) string {
	if !miss {
		return "page 0ms 5ms service=shop kind=server\n  GET 1ms 1.5ms kind=client db.system.name=redis " + lookup
	}
	return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms 1.5ms kind=client db.system.name=redis %s\n  find 2ms %.3fms kind=client db.system.name=postgresql %s", read+5, lookup, read+2, statement)
}

func TestCacheMiss(t *testing.T) {
	most := func(d dice, i int) string { return aside(i%10 < 7, d.near(30), "", "") }
	// Ten requests at the same time find the key gone, and the database slow because of it.
	crowd := func(d dice, i int) string {
		return aside(i%40 >= 30, d.near(200), "db.query.text=\"GET home\"", "db.query.text=\"SELECT * FROM home WHERE id = 1\"")
	}
	at, _ := bursts(1, 1)
	redis := func(ratio float64) evidence.Facts {
		return evidence.Facts{Redis: []evidence.RedisFacts{{Name: "cache", Stats: evidence.RedisStats{Lookups: 100, HitRatio: ratio, Evicted: 50}}}}
	}
	hot := func(took float64) func(d dice, i int) string {
		return func(d dice, i int) string {
			key, took := "home", d.near(took)
			if i%10 > 7 {
				key, took = fmt.Sprintf("item:%d", i), d.near(20)
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server url.path=/home\n  GET 1ms %.3fms kind=client db.system.name=redis db.query.text=\"GET %s\"", took+5, took+1, key)
		}
	}
	// Two lookups, of which the first hits in nine of ten, and the second misses in three of five, before the same source or another one.
	two := func(first, source string) func(d dice, i int) string {
		return func(d dice, i int) string {
			list := "cache.hit=true"
			if i%10 == 3 {
				list = fmt.Sprintf("cache.hit=false\n  call 2ms 5ms kind=client peer.service=%s", first)
			}
			page := "page 0ms %.3fms service=shop kind=server\n  GET 1ms 1.5ms kind=client db.system.name=redis server.address=texts " + list + "\n  GET 6ms 6.5ms kind=client db.system.name=redis server.address=prices "
			if i%5 < 3 {
				took := d.near(40)
				return fmt.Sprintf(page+"cache.hit=false\n  call 7ms %.3fms kind=client peer.service=%s", took+9, took+7, source)
			}
			return fmt.Sprintf(page+"cache.hit=true", 9.0)
		}
	}
	checkClass(t, "LP115", "cache_miss", []classCase{
		{name: "most lookups miss", text: most, service: "shop", variant: "misses", says: "70 %"},
		{name: "the spans tell it, and all miss", text: func(d dice, _ int) string { return aside(true, d.near(30), "cache.hit=false", "") }, service: "shop", variant: "misses", says: "tell hits and misses themselves"},
		{name: "confirmed: the server counts the misses", text: func(d dice, _ int) string { return aside(true, d.near(30), "", "") }, facts: redis(0.1), service: "shop", verdict: Confirmed, says: "evicts 50 keys"},
		{name: "refuted: the server counts hits", text: most, facts: redis(0.98)},
		{name: "one of two caches misses most", text: two("writer", "pricing"), service: "shop", variant: "misses", says: "60 %"},
		{name: "near miss: two servers of one cache, which is filled from one place", text: two("pricing", "pricing")},
		{name: "a stampede", text: crowd, at: at, service: "shop", variant: "stampede", says: "10 times at once"},
		{name: "a hot key", text: func(d dice, i int) string {
			key, took := fmt.Sprintf("item:%d", i), d.near(1)
			if i%10 < 8 {
				key = "home"
				if i%20 == 7 {
					took = d.near(80)
				}
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  GET 1ms %.3fms kind=client db.system.name=redis db.query.text=\"GET %s\"", took+5, took+1, key)
		}, service: "shop", variant: "hot_key", says: "ask for home"},
		{name: "a hot key whose lookups are all slow", text: hot(60), service: "shop", variant: "hot_key", says: "those for others"},
		{name: "near miss: one key is asked for most, and all lookups are slow alike", text: hot(20)},
		{name: "near miss: one in ten misses", text: func(d dice, i int) string { return aside(i%10 == 0, d.near(30), "", "") }},
		{name: "near miss: a cache and a database side by side, always", text: func(d dice, _ int) string { return aside(true, d.near(30), "", "") }},
		{name: "near miss: a write follows", text: func(d dice, i int) string {
			return aside(i%10 < 7, d.near(30), "", "db.query.text=\"UPDATE a SET b = 1\"")
		}},
		{name: "near miss: misses of many things at once", text: func(d dice, i int) string {
			return aside(i%40 >= 30, d.near(20), fmt.Sprintf("db.query.text=\"GET item:%d\"", i), "")
		}, at: func(_ dice, i int) time.Duration { return time.Duration(i/40) * time.Second }},
	})
}
