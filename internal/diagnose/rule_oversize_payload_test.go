package diagnose

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

func TestOversizePayload(t *testing.T) {
	// A byte takes 10 ns on the way.
	answer := func(key string, bytes, work float64) string {
		way := bytes * 10 / 1e6
		return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client %s=%.0f\n    list 2ms %.3fms service=catalogue kind=server", work+way+4, work+way+3, key, bytes, work+2)
	}
	varied := func(key string) func(d dice, i int) string {
		return func(d dice, i int) string {
			if i%20 == 7 {
				return answer(key, d.near(20e6), d.near(10))
			}
			return answer(key, d.near(50e3), d.near(10))
		}
	}
	checkClass(t, "LP114", "oversize_payload", []classCase{
		{name: "some answers are large", text: varied("http.response.body.size"), service: "catalogue", says: "the time grows with the size"},
		{name: "old names", text: varied("http.response_content_length"), service: "catalogue"},
		{name: "all are large", text: func(d dice, _ int) string { return answer("http.response.body.size", d.near(8e6), d.near(10)) }, service: "catalogue", says: "MiB"},
		{
			name: "confirmed: the cache's server names the command", service: "redis", verdict: Confirmed, says: "HGETALL",
			text: func(d dice, i int) string {
				bytes := d.near(20e3)
				if i%20 == 7 {
					bytes = d.near(9e6)
				}
				took := bytes*10/1e6 + d.near(1)
				return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  HGETALL 1ms %.3fms service=redis kind=client db.system.name=redis db.response.size=%.0f", took+4, took+1, bytes)
			},
			facts: evidence.Facts{Redis: []evidence.RedisFacts{{Name: "cache:6379", Stats: evidence.RedisStats{Big: []evidence.BigCommand{{Command: "HGETALL", Key: "cart:#", Why: "reads whole collections"}}}}}},
		},
		{name: "through a gateway that does not tell sizes", text: func(d dice, i int) string {
			bytes := d.near(50e3)
			if i%20 == 7 {
				bytes = d.near(20e6)
			}
			way := bytes * 10 / 1e6
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client http.response.body.size=%.0f\n    lists 1.5ms %.3fms service=gateway kind=server\n"+
				"      GET 2ms %.3fms kind=client\n        list 2.5ms 10ms service=catalogue kind=server http.response.body.size=%.0f", way+20, way+18, bytes, way+16, way+14, bytes)
		}, service: "catalogue"},
		{name: "who makes much of little is the one", text: func(d dice, i int) string {
			bytes := d.near(50e3)
			if i%20 == 7 {
				bytes = d.near(20e6)
			}
			way := bytes * 10 / 1e6
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  call 1ms %.3fms kind=client http.response.body.size=%.0f\n    draw 1.5ms 12ms service=charts kind=server\n"+
				"      GET 2ms 11ms kind=client http.response.body.size=900\n        list 2.5ms 10ms service=catalogue kind=server http.response.body.size=900", way+20, way+18, bytes)
		}, service: "charts"},
		{name: "all are rather large, and take the longer the larger they are", text: func(d dice, _ int) string { return answer("http.response.body.size", d.near(700e3), 3) }, service: "catalogue", says: "the time follows the size"},
		{name: "near miss: all are rather large, and that is the least of it", text: func(d dice, _ int) string { return answer("http.response.body.size", d.near(400e3), 30) }},
		{name: "near miss: all are rather large, and it is something else that varies", text: func(d dice, _ int) string { return answer("http.response.body.size", 700e3, d.near(10)) }},
		{name: "near miss: large, and no slower", text: func(d dice, i int) string {
			bytes := 50e3
			if i%20 == 7 {
				bytes = 600e3
			}
			return fmt.Sprintf("page 0ms 40ms service=shop kind=server\n  call 1ms %.3fms kind=client http.response.body.size=%.0f\n    list 2ms 29ms service=catalogue kind=server", 30+d.near(1), bytes)
		}},
		{name: "near miss: small ones of all sizes", text: func(d dice, _ int) string { return answer("http.response.body.size", d.near(40e3), d.near(10)) }},
		{name: "near miss: slow ones are small", text: func(d dice, i int) string {
			if i%20 == 7 {
				return answer("http.response.body.size", 2e3, d.near(300))
			}
			return answer("http.response.body.size", d.near(50e3), d.near(10))
		}},
	})
}
