package probe

import (
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/servers"
	"github.com/redis/rueidis"
)

// redis is the address of a real server that ends with the test.
func redis(t *testing.T, settings ...string) string {
	t.Helper()
	s, err := servers.Redis(t.Context(), settings...)
	started(t, err)
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s.Address()
}

func client(t *testing.T, addr, user, password string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, Username: user, Password: password, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func redisLook(t *testing.T, c rueidis.Client) evidence.RedisLook {
	t.Helper()
	r, err := NewRedis(RedisConfig{Timeout: time.Minute}, c)
	if err != nil {
		t.Fatal(err)
	}
	look, err := r.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return look
}

// TestRedisTellsWhatItDid: hit ratio, evictions, slow and big commands between two looks at a real server.
func TestRedisTellsWhatItDid(t *testing.T) {
	addr := redis(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random", "--slowlog-log-slower-than", "0", "--latency-monitor-threshold", "1")
	c := client(t, addr, "", "")
	do := func(words ...string) {
		if err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error(); err != nil && !rueidis.IsRedisNil(err) {
			t.Fatalf("%v: %v", words, err)
		}
	}
	do("GET", "nothing")
	before := redisLook(t, c)
	for range 30 {
		do("SET", "user:1234", "x")
		do("GET", "user:1234")
		do("GET", "session:nothing")
	}
	for i := range 300 {
		do("SET", "filler:"+string(rune('a'+i%26))+strings.Repeat("y", i), strings.Repeat("x", 16<<10))
	}
	do("HSET", "cart:77", "a", "1")
	do("HGETALL", "cart:77")
	s := evidence.RedisBetween(before, redisLook(t, c))
	if s.Span <= 0 || s.Commands <= 0 || s.Lookups <= 0 || s.HitRatio <= 0.3 || s.HitRatio >= 0.7 {
		t.Errorf("commands %v/s, lookups %v/s, hit ratio %v over %v", s.Commands, s.Lookups, s.HitRatio, s.Span)
	}
	if s.Evicted <= 0 || s.MaxMemory != 3<<20 || s.Memory == 0 || s.Policy != "allkeys-random" || s.Role != "master" || s.Clients < 1 || s.RTT <= 0 {
		t.Errorf("%+v", s)
	}
	var hgetall bool
	for _, c := range s.Slow {
		hgetall = hgetall || c.Command == "hgetall" && c.Key == "cart:#" && c.Args == 2
		if strings.Contains(c.Key, "77") || strings.Contains(c.Key, "1234") {
			t.Errorf("a key is kept as it is: %s", c.Key)
		}
	}
	if !hgetall || len(s.Big) == 0 || s.Big[0].Command != "hgetall" {
		t.Errorf("slow %d, big %+v", len(s.Slow), s.Big)
	}
	if len(s.ByCommand) == 0 || s.ByCommand[0].Share <= 0 || s.ByCommand[0].Share > 1 {
		t.Errorf("by command %+v", s.ByCommand)
	}
}

// TestRedisDegrades: a user who may do little, and a server that keeps nothing.
func TestRedisDegrades(t *testing.T) {
	addr := redis(t, "--slowlog-log-slower-than", "-1")
	admin := client(t, addr, "", "")
	if err := admin.Do(t.Context(), admin.B().Arbitrary("ACL", "SETUSER", "weak", "on", ">secret", "-@all", "+info", "+ping", "+hello", "+client").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	s := evidence.RedisBetween(evidence.RedisLook{}, redisLook(t, client(t, addr, "weak", "secret")))
	if s.Version == "" || !said(s.Gaps, "SLOWLOG") || !said(s.Gaps, "LATENCY") || !said(s.Gaps, "no earlier look") || s.Commands != 0 {
		t.Errorf("%+v", s)
	}
	look := redisLook(t, admin)
	if !said(look.Gaps, "slowlog-log-slower-than is -1") || !said(look.Gaps, "latency-monitor-threshold is 0") {
		t.Errorf("gaps %v", look.Gaps)
	}
}
