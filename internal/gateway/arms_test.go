package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/retry"
)

// target is a copy of what a rollout asks for.
type target interface {
	Policy(route string) (longpole.Config, error)
	Stage(route string, candidate longpole.Config) error
	Weight(route string, ratio float64) error
	Tallies(route string) (baseline, candidate stats.Tally, err error)
	Promote(route string) error
	Discard(route string) error
}

var _ target = (*Gateway)(nil)

func TestCallsAreSplitByWeightAndTalliedByCohort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		var spans collector
		g := n.start(t, one("{}", "http://a:1")+"tracing: {traces_per_second: 10000}\n", spans.add)
		c := n.client(t)
		to := longpole.Config{Cache: &cache.Config{TTL: time.Hour}}
		if err := g.Stage("all", to); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			get(t, c, "http://gw:80/")
		}
		if b, cand, err := g.Tallies("all"); err != nil || b.Calls != 0 || cand.Calls != 0 {
			t.Errorf("without weight: %+v %+v %v", b, cand, err)
		}
		if err := g.Weight("all", 0.2); err != nil {
			t.Fatal(err)
		}
		const calls = 3000
		for range calls {
			get(t, c, "http://gw:80/")
		}
		synctest.Wait()
		b, cand, err := g.Tallies("all")
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]uint64{"baseline": b.Calls, "candidate": cand.Calls} {
			if d := math.Abs(float64(got)/calls - 0.2); d > 0.05 { // 7 sigma
				t.Errorf("%s got %d of %d calls", name, got, calls)
			}
		}
		if cand.CacheHits != cand.Calls-1 || b.CacheHits != 0 || b.Attempts != b.Calls || cand.Latency.Count() != cand.Calls {
			t.Errorf("tallies are %+v and %+v", b, cand)
		}
		named := map[string]uint64{}
		for _, s := range spans.all() {
			named[s.Attr("longpole.arm")]++
		}
		if named["candidate"] != cand.Calls || named["baseline"] != b.Calls {
			t.Errorf("spans name %v", named)
		}
		if s := g.Routes()[0]; s.Arms == nil || s.Arms.Weight != 0.2 || s.Arms.Candidate.Calls != cand.Calls || s.Tally.Calls != calls+100 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestPromoteAndDiscardSwapThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		before, err := g.Policy("all")
		if err != nil {
			t.Fatal(err)
		}
		to := before
		to.Timeout = time.Second
		check := func(want time.Duration) {
			t.Helper()
			if got, _ := g.Policy("all"); got.Timeout != want {
				t.Errorf("timeout is %v; want %v", got.Timeout, want)
			}
			if _, _, err := g.Tallies("all"); !errors.Is(err, ErrNoCandidate) {
				t.Errorf("a candidate is left: %v", err)
			}
		}
		if err := errors.Join(g.Stage("all", to), g.Discard("all")); err != nil {
			t.Fatal(err)
		}
		check(30 * time.Second)
		if err := errors.Join(g.Stage("all", to), g.Weight("all", 0.5), g.Promote("all")); err != nil {
			t.Fatal(err)
		}
		check(time.Second)
		for name, err := range map[string]error{
			"no route":     g.Stage("none", to),
			"no candidate": g.Promote("all"),
			"no weight":    g.Weight("all", 0.1),
			"bad policy":   g.Stage("all", longpole.Config{Retry: &retry.Config{MaxAttempts: 50}}),
			"contradicts":  g.Stage("all", longpole.Config{Retry: &retry.Config{MaxAttempts: 1, Hedge: &retry.Hedge{}}}),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if err := errors.Join(g.Discard("all"), g.Discard("none")); err != nil {
			t.Errorf("nothing to discard: %v", err)
		}
		if err := g.Stage("all", to); err != nil {
			t.Fatal(err)
		}
		if err := g.Stage("all", to); !errors.Is(err, ErrStaged) {
			t.Errorf("staged twice: %v", err)
		}
		for _, w := range []float64{-0.1, 0.51, math.NaN()} {
			if g.Weight("all", w) == nil {
				t.Errorf("weight %v is accepted", w)
			}
		}
	})
}

func TestReloadUnderLoadDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		for _, name := range []string{"a:1", "b:1", "c:1"} {
			n.serve(t, name, func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(20 * time.Millisecond)
				_, _ = fmt.Fprint(w, name)
			})
		}
		files := []string{
			one("{}", "http://a:1"),
			one("{timeout: 5s, cache: {}}", "http://b:1", "http://c:1"),
			strings.Replace(one("{}", "http://c:1"), "all,", "other,", 1),
			strings.NewReplacer("{up:", "{new:", "upstream: up", "upstream: new").Replace(one("{}", "http://b:1")),
			strings.Replace(one("{}", "http://a:1"), "]}", "], health: {path: /, interval: 100ms}}", 1),
		}
		g := n.start(t, files[0], nil)
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		var calls atomic.Int64
		for i := range 10 {
			c := n.client(t)
			run.Go(func() {
				for ctx.Err() == nil {
					if got := get(t, c, fmt.Sprint("http://gw:80/", i)); got.status != 200 || got.err != nil {
						t.Errorf("got %+v", got)
					}
					calls.Add(1)
					time.Sleep(time.Millisecond) // a cached answer takes no time, and then none would pass at all
				}
			})
		}
		for i := range 50 {
			time.Sleep(33 * time.Millisecond)
			if err := g.Reload(load(t, files[i%len(files)])); err != nil {
				t.Error(err)
			}
		}
		stop()
		run.Wait()
		if calls.Load() < 500 {
			t.Errorf("only %d calls", calls.Load())
		}
	})
}

func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		file := one("{timeout: 5s}", "http://a:1")
		g := n.start(t, file, nil)
		get(t, n.client(t), "http://gw:80/")
		to, _ := g.Policy("all")
		to.Timeout = time.Second
		if err := errors.Join(g.Stage("all", to), g.Weight("all", 0.5)); err != nil {
			t.Fatal(err)
		}
		if err := g.Reload(load(t, strings.Replace(file, "http://a:1", "http://a:1, http://b:1", 1))); err != nil {
			t.Fatal(err)
		}
		s := g.Routes()[0]
		if s.Arms == nil || s.Arms.Weight != 0.5 || s.Calls != 1 || len(s.Endpoints) != 2 || s.Endpoints[0].Attempts != 1 {
			t.Errorf("after new endpoints: %+v", s)
		}
		if err := g.Promote("all"); err != nil {
			t.Fatal(err)
		}
		if err := g.Reload(load(t, file)); err != nil {
			t.Fatal(err)
		}
		if p, _ := g.Policy("all"); p.Timeout != time.Second {
			t.Errorf("an unchanged file undid a promotion: %+v", p)
		}
		for _, bad := range []string{
			strings.Replace(file, "gw:80", "gw:81", 1),
			strings.Replace(file, "gw:80", "{address: gw:80, tls: {cert: none, key: none}}", 1),
		} {
			if err := g.Reload(load(t, bad)); err == nil {
				t.Errorf("accepted %s", bad)
			}
		}
		c := load(t, file)
		c.Routes[0].Policy.Timeout = -1
		if err := g.Reload(c); err == nil {
			t.Error("accepted a bad policy")
		}
		if p, _ := g.Policy("all"); p.Timeout != time.Second || get(t, n.client(t), "http://gw:80/").status != 200 {
			t.Errorf("a bad reload changed something: %+v", p)
		}
		_ = g.Stage("all", to)
		if err := g.Reload(load(t, strings.Replace(file, "5s", "6s", 1))); err != nil {
			t.Fatal(err)
		}
		if p, _ := g.Policy("all"); p.Timeout != 6*time.Second || g.Routes()[0].Arms != nil || g.Routes()[0].Calls != 2 {
			t.Errorf("a changed policy is not in force: %+v", g.Routes()[0])
		}
	})
}

func TestStatusIsJSONWithBoundedFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		for i := range 50 {
			get(t, n.client(t), fmt.Sprint("http://gw:80/", i))
			time.Sleep(100 * time.Millisecond)
		}
		s := g.Routes()
		text, err := json.Marshal(s)
		if err != nil || len(s) != 1 || len(text) > 4<<10 {
			t.Fatalf("%v: %s", err, text)
		}
		for _, part := range []string{`"name":"all"`, `"rps":10`, `"error_ratio":0`, `"p99.9":`, `"match":{"path":"/"}`, `"timeout":"30s"`, `"breaker":"closed"`, `"healthy":true`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("no %s in %s", part, text)
			}
		}
	})
}
