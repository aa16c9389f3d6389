package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// keeps is a policy that shows in the answers.
var keeps = longpole.Config{Cache: &cache.Config{TTL: time.Hour}}

func TestAStickyCallerStaysInItsArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		var spans collector
		g := n.start(t, with("sticky: {header: X-User}", "{}", "http://a:1")+"tracing: {traces_per_second: 10000}\n", spans.add)
		c := n.client(t)
		must(t, g.Stage("all", longpole.Config{Timeout: time.Second}), g.Weight("all", 0.25))
		const users, calls = 200, 4
		for range calls {
			for u := range users {
				get(t, c, "http://gw:80/?u="+strconv.Itoa(u), "X-User", strconv.Itoa(u))
			}
		}
		synctest.Wait()
		arms, in := map[string]map[string]bool{}, map[string]int{}
		for _, s := range spans.all() {
			if u := s.Attr("url.query"); u != "" {
				if arms[u] == nil {
					arms[u] = map[string]bool{}
				}
				if arm := s.Attr("longpole.arm"); !arms[u][arm] {
					arms[u][arm] = true
					in[arm]++
				}
			}
		}
		for u, seen := range arms {
			if len(seen) != 1 {
				t.Errorf("%s was in %v", u, seen)
			}
		}
		for _, arm := range []string{"candidate", "baseline"} {
			if math.Abs(float64(in[arm])/users-0.25) > 0.2 { // 6 sigma
				t.Errorf("%d of %d users in the %s", in[arm], users, arm)
			}
		}
		must(t, g.Discard("all"), g.Stage("all", longpole.Config{Timeout: time.Second}))
		if a := g.table.Load().byName["all"].live.arms.Load().candidate.salt; a == 0 {
			t.Error("every rollout would choose the same users")
		}
	})
}

func TestASwitchbackTakesAllCallsByTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		must(t, g.Stage("all", keeps))
		calls := func() (base, cand uint64) {
			for range 10 {
				get(t, c, "http://gw:80/")
			}
			synctest.Wait()
			b, k, err := g.Tallies("all")
			must(t, err)
			return b.Calls, k.Calls
		}
		for _, tt := range []struct {
			candidate, counted bool
			base, cand         uint64
		}{
			{true, false, 0, 0},
			{true, true, 0, 10},
			{false, false, 0, 10},
			{false, true, 10, 10},
			{true, true, 10, 20},
		} {
			must(t, g.Turn("all", tt.candidate, tt.counted))
			if b, k := calls(); b != tt.base || k != tt.cand {
				t.Errorf("turn %+v: %d and %d calls counted", tt, b, k)
			}
		}
		must(t, g.Weight("all", 0))
		if b, k := calls(); b != 10 || k != 20 {
			t.Errorf("after the switchback: %d and %d calls counted", b, k)
		}
		if err := g.Turn("none", true, true); !errors.Is(err, ErrNoRoute) {
			t.Errorf("a turn of no route: %v", err)
		}
	})
}

func TestAVersionIsTriedAndTakesAllCallsWhenPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := `
listen: gw:80
upstreams: {v1: {endpoints: http://a:1}, v2: {endpoints: http://b:1}, v3: {endpoints: http://c:1}}
routes:
- {name: single, match: {path: /single}, upstream: v1}
- {name: all, split: [{upstream: v1, weight: 1}, {upstream: v2, weight: 0}, {upstream: v3, weight: 1}]}
`
		g, n := startCanary(t, file)
		c := n.client(t)
		for err, want := range map[error]error{
			g.StageVersion("all", "v9"): ErrNoSplit, g.StageVersion("single", "v1"): ErrNoSplit, g.StageVersion("none", "v2"): ErrNoRoute,
		} {
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		if err := g.StageVersion("all", "v1"); err == nil {
			t.Error("a version that has calls already is a candidate")
		}
		must(t, g.StageVersion("all", "v2"), g.Weight("all", 0.3))
		if err := g.Stage("all", keeps); !errors.Is(err, ErrStaged) {
			t.Errorf("a second candidate: %v", err)
		}
		got := map[string]uint64{}
		const calls = 2000
		for range calls {
			got[get(t, c, "http://gw:80/").body]++
		}
		synctest.Wait()
		b, cand, err := g.Tallies("all")
		must(t, err)
		if cand.Calls != got["v2"] || math.Abs(float64(cand.Calls)/calls-0.3) > 0.08 || math.Abs(float64(b.Calls)/calls-0.3) > 0.08 || got["v3"] < calls/5 {
			t.Errorf("%v, %d in the candidate's cohort and %d in the baseline's", got, cand.Calls, b.Calls)
		}
		if s := g.Routes()[1]; s.Arms == nil || s.Arms.Candidate.Calls != cand.Calls {
			t.Errorf("status is %+v", s.Arms)
		}
		for name, tally := range map[string]stats.Tally{"baseline": b, "candidate": cand} {
			if d := tally.Downstreams; len(d) != 1 || d[0].Name != anyVersion || d[0].Calls != tally.Calls {
				t.Errorf("the %s's version stands as %+v among the downstreams; a name of its own would be a difference to judge", name, d)
			}
		}
		must(t, g.Promote("all"))
		for range 50 {
			if a := get(t, c, "http://gw:80/"); a.body != "v2" {
				t.Fatalf("after the promotion %+v", a)
			}
		}
	})
}

// getAll makes so many calls, and waits until all is counted.
func getAll(t *testing.T, c *http.Client, calls int) {
	t.Helper()
	for range calls {
		get(t, c, "http://gw:80/")
	}
	synctest.Wait()
}

func TestAHoldbackKeepsTheOldPolicyOnAFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		before, err := g.Policy("all")
		must(t, err)
		must(t, g.Stage("all", keeps), g.Promote("all"), g.Hold("all", "r1", before, 0.1))
		const calls = 3000
		getAll(t, c, calls)
		now, held, err := g.Held("all", "r1")
		must(t, err)
		for name, got := range map[string]uint64{"promoted": now.Calls, "held back": held.Calls} {
			if math.Abs(float64(got)/calls-0.1) > 0.04 { // 7 sigma
				t.Errorf("%s: %d of %d calls", name, got, calls)
			}
		}
		if held.CacheHits != 0 || now.CacheHits < now.Calls-1 {
			t.Errorf("%+v and %+v", now, held)
		}
		// A rollout goes before: no call takes part in both.
		must(t, g.Stage("all", longpole.Config{Timeout: time.Second}), g.Weight("all", 0.5))
		getAll(t, c, 300)
		if _, after, _ := g.Held("all", "r1"); after.Calls != held.Calls {
			t.Errorf("%d calls were held back while all took part in a rollout", after.Calls-held.Calls)
		}
		must(t, g.Discard("all"), g.Release("all", "r1"), g.Release("all", "r1"))
		if _, _, err := g.Held("all", "r1"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("released: %v", err)
		}
		for _, ratio := range []float64{0, -1, 0.2, math.NaN()} {
			if g.Hold("all", "r1", before, ratio) == nil {
				t.Errorf("a holdback of %v is accepted", ratio)
			}
		}
	})
}

// TestEachPromotedChangeKeepsItsOwnHoldback has three of them on one route.
func TestEachPromotedChangeKeepsItsOwnHoldback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		before, err := g.Policy("all")
		must(t, err)
		must(t, g.Adopt("all", keeps))
		without := func(timeout time.Duration) longpole.Config {
			p := keeps
			p.Timeout = timeout
			return p
		}
		must(t, g.Hold("all", "r1", before, 0.02), g.Hold("all", "r2", without(time.Minute), 0.04), g.Hold("all", "r3", without(time.Hour), 0.04))
		if err := g.Hold("all", "r4", before, 0.01); err == nil {
			t.Error("more than a tenth of the calls are held back")
		}
		const calls = 3000
		getAll(t, c, calls)
		for name, share := range map[string]float64{"r1": 0.02, "r2": 0.04, "r3": 0.04} {
			now, held, err := g.Held("all", name)
			must(t, err)
			for _, got := range []uint64{now.Calls, held.Calls} {
				if math.Abs(float64(got)/calls-share) > 0.025 { // 7 sigma
					t.Errorf("%s: %d of %d calls", name, got, calls)
				}
			}
			if (name == "r1") != (held.CacheHits == 0) {
				t.Errorf("%s: %+v", name, held)
			}
		}
		if s := g.Routes()[0]; len(s.Holdbacks) != 3 || s.Holdbacks[1].Name != "r2" || s.Holdbacks[1].Candidate.Calls == 0 {
			t.Errorf("shown as %+v", s.Holdbacks)
		}
		_, one, _ := g.Held("all", "r1")
		must(t, g.Kill("all", "cache"), g.Kill("all"), g.Hold("all", "r1", before, 0.02), g.Release("all", "r2"), g.Hold("all", "r3", before, 0.04))
		if _, same, err := g.Held("all", "r1"); err != nil || same.Calls != one.Calls {
			t.Errorf("a holdback that is asked for again begins anew: %d calls after %d, %v", same.Calls, one.Calls, err)
		}
		if _, _, err := g.Held("all", "r2"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("released: %v", err)
		}
		if _, fresh, err := g.Held("all", "r3"); err != nil || fresh.Calls != 0 {
			t.Errorf("another policy under a name goes on with %d calls, %v", fresh.Calls, err)
		}
	})
}

// TestACacheOfFewCallsIsComparedWithOneOfAsFew has a change that leaves the cache alone: all that both cohorts do is alike.
func TestACacheOfFewCallsIsComparedWithOneOfAsFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		without := keeps
		without.Timeout = time.Minute
		must(t, g.Adopt("all", keeps), g.Hold("all", "r1", without, 0.1))
		const rounds, answers = 20, 150
		for range rounds {
			for i := range answers {
				get(t, c, fmt.Sprint("http://gw:80/", i))
			}
		}
		synctest.Wait()
		now, held, err := g.Held("all", "r1")
		must(t, err)
		hits := func(s stats.Tally) float64 { return float64(s.CacheHits) / float64(s.Calls) }
		if math.Abs(hits(now)-hits(held)) > 0.25 { // 6 sigma
			t.Errorf("%.2f of the calls hit the cache with the change, %.2f without it", hits(now), hits(held))
		}
		must(t, g.Kill("all", "cache"))
		if a := get(t, c, "http://gw:80/1"); a.body != "x" {
			t.Errorf("%+v", a)
		}
		must(t, g.Kill("all"), g.Release("all", "r1"))
	})
}

// TestACandidateWithACacheIsComparedWithAsColdAOne has a change that leaves the cache alone: the baseline's answers, which all calls
// keep, are no advantage of the cohort that the candidate is compared with.
func TestACandidateWithACacheIsComparedWithAsColdAOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		candidate := keeps
		candidate.Timeout = time.Minute
		call := func(rounds int) {
			for range rounds {
				for i := range 150 {
					get(t, c, fmt.Sprint("http://gw:80/", i))
				}
			}
			synctest.Wait()
		}
		must(t, g.Adopt("all", keeps))
		call(1)
		must(t, g.Stage("all", candidate), g.Weight("all", 0.1))
		call(20)
		old, tried, err := g.Tallies("all")
		must(t, err)
		hits := func(s stats.Tally) float64 { return float64(s.CacheHits) / float64(s.Calls) }
		if hits(old) > 0.9 || math.Abs(hits(old)-hits(tried)) > 0.25 { // 6 sigma
			t.Errorf("%.2f of the baseline's calls hit the cache, %.2f of the candidate's", hits(old), hits(tried))
		}
		must(t, g.Turn("all", false, true))
		call(1)
		if turn, _, _ := g.Tallies("all"); turn.CacheHits-old.CacheHits != 150 {
			t.Errorf("in its turn the baseline has %d of 150 hits; want what all calls have kept", turn.CacheHits-old.CacheHits)
		}
		twins := g.table.Load().byName["all"].live.arms.Load().candidate.twins
		must(t, g.Kill("all", "cache"), g.Kill("all"), g.Promote("all"))
		if p, _ := g.Policy("all"); p.Timeout != time.Minute || len(twins) != 1 {
			t.Errorf("%+v is in force after %d twins", p, len(twins))
		}
	})
}

// TestHoldbacksComeAndGoUnderLoad does all that ends a holdback while calls take part in it.
func TestHoldbacksComeAndGoUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * time.Millisecond)
			_, _ = fmt.Fprint(w, "x")
		})
		files := []string{one("{}", "http://a:1"), one("{timeout: 5s, cache: {}}", "http://a:1")}
		g := n.start(t, files[0], nil)
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		for i := range 8 {
			c := n.client(t)
			run.Go(func() {
				for ctx.Err() == nil {
					if got := get(t, c, fmt.Sprint("http://gw:80/", i)); got.body != "x" || got.err != nil {
						t.Errorf("got %+v", got)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		hold := func() error {
			without := keeps
			without.Timeout = time.Minute
			return errors.Join(g.Hold("all", "r1", longpole.Config{}, 0.05), g.Hold("all", "r2", without, 0.05))
		}
		for i := range 20 {
			for _, do := range []func() error{
				func() error { return g.Adopt("all", keeps) }, hold,
				func() error { return errors.Join(g.Stage("all", keeps), g.Weight("all", 0.2)) }, hold,
				func() error { return g.Kill("all", "cache") }, hold,
				func() error { return errors.Join(g.Kill("all"), g.Promote("all")) }, hold,
				func() error { return g.Release("all", "r1") },
				func() error { return g.Reload(load(t, files[(i+1)%2])) }, hold,
			} {
				time.Sleep(7 * time.Millisecond)
				must(t, do())
			}
		}
		must(t, g.Release("all", "r1"), g.Release("all", "r2"))
		stop()
		run.Wait()
	})
}

func TestAdoptPutsAPolicyInForceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		file := one("{}", "http://a:1")
		g := n.start(t, file, nil)
		before, err := g.Policy("all")
		must(t, err)
		must(t, g.Stage("all", longpole.Config{Timeout: time.Minute}), g.Weight("all", 0.5), g.Hold("all", "r1", before, 0.1), g.Adopt("all", keeps))
		p, err := g.Policy("all")
		must(t, err)
		if p.Cache == nil || p.Timeout != 30*time.Second {
			t.Errorf("the policy is %+v", p)
		}
		if _, _, err := g.Tallies("all"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("the candidate: %v", err)
		}
		must(t, g.Reload(load(t, file)))
		if p, _ := g.Policy("all"); p.Cache == nil {
			t.Error("a reload that changes nothing has taken it back")
		}
		if err := g.Adopt("all", longpole.Config{Timeout: -1}); err == nil {
			t.Error("a faulty policy is adopted")
		}
	})
}

func TestAKillSwitchReachesEveryArmAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		file := one("{cache: {ttl: 1h}, limit: {}, retry: {hedge: {}}, balance: {eject: {}}, fallback: {stale: 1m}}", "http://a:1")
		g := n.start(t, file, nil)
		c := n.client(t)
		wanted, err := g.Policy("all")
		must(t, err)
		get(t, c, "http://gw:80/")
		hit := func() bool { return get(t, c, "http://gw:80/").header.Get("Cache-Status") == "longpole; hit; ttl=3600" }
		if !hit() {
			t.Fatal("the answer was not kept")
		}
		candidate := wanted
		candidate.Timeout = time.Second
		must(t, g.Stage("all", candidate), g.Weight("all", 0.5), g.Kill("all", "cache", "hedge", "eject"))
		for range 20 {
			if hit() {
				t.Fatal("the cache answers although it is off")
			}
		}
		p := g.Effective().Routes[0].Policy
		if p.Cache != nil || p.Retry.Hedge != nil || p.Balance.Eject != nil || p.Limit == nil || p.Breaker.Off || p.Fallback == nil || p.Fallback.Stale != 0 {
			t.Errorf("in force is %+v", p)
		}
		if now, _ := g.Policy("all"); now.Cache == nil || now.Retry.Hedge == nil {
			t.Error("what is wanted was forgotten")
		}
		if s := g.Routes()[0]; len(s.Off) != 3 || s.Off[0] != "cache" {
			t.Errorf("status names %v", s.Off)
		}
		must(t, g.Promote("all"), g.Reload(load(t, file)))
		if p := g.Effective().Routes[0].Policy; p.Cache != nil || p.Timeout != time.Second {
			t.Errorf("after promotion and reload: %+v", p)
		}
		must(t, g.Kill("", "all"), g.Kill("all"))
		if k := g.Killed(); len(k) != 1 || len(k[""]) != len(PartNames()) {
			t.Errorf("killed is %v", k)
		}
		if p := g.Effective().Routes[0].Policy; p.Cache != nil || p.Limit != nil || !p.Retry.Off || !p.Breaker.Off || p.Fallback != nil {
			t.Errorf("all is off everywhere, but in force is %+v", p)
		}
		must(t, g.Kill(""))
		if p := g.Effective().Routes[0].Policy; p.Cache == nil || p.Retry.Hedge == nil || p.Limit == nil || p.Timeout != time.Second {
			t.Errorf("nothing is off any more, but in force is %+v", p)
		}
		if err := g.Kill("none"); !errors.Is(err, ErrNoRoute) {
			t.Errorf("no route: %v", err)
		}
	})
}

func TestARouteThatComesLaterIsKilledToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{limit: {}}", "http://a:1"), nil)
		must(t, g.Kill("", "limit"))
		must(t, g.Reload(load(t, strings.Replace(one("{limit: {}}", "http://a:1"), "- {", "- {name: late, match: {path: /late}, upstream: up, policy: {limit: {}}}\n- {", 1))))
		for _, r := range g.Effective().Routes {
			if r.Policy.Limit != nil {
				t.Errorf("%s has a limit", r.Name)
			}
		}
		must(t, g.Adopt("late", longpole.Config{Limit: &limit.Config{Limit: 7}, Retry: &retry.Config{}}))
		if p := g.Effective().Routes[0].Policy; p.Limit != nil {
			t.Errorf("an adopted policy brings it back: %+v", p.Limit)
		}
	})
}

func TestKillSwitchesAreNamed(t *testing.T) {
	if p, err := parseParts("retry", "cache"); err != nil || len(p.names()) != 2 || p.names()[0] != "cache" {
		t.Errorf("%v, %v", p.names(), err)
	}
	if p, err := parseParts("all"); err != nil || p != allParts || len(p.names()) != len(PartNames()) {
		t.Errorf("all: %v, %v", p.names(), err)
	}
	if _, err := parseParts("caches"); err == nil {
		t.Error("caches is taken for a part")
	}
}

// TestAReloadThatCatchesUpKeepsTheHoldback has the owner write a promoted policy into the file.
func TestAReloadThatCatchesUpKeepsTheHoldback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		before, err := g.Policy("all")
		must(t, err)
		must(t, g.Stage("all", longpole.Config{Timeout: time.Minute}), g.Promote("all"), g.Hold("all", "r1", before, 0.1))
		must(t, g.Stage("all", keeps), g.Weight("all", 0.1))
		must(t, g.Reload(load(t, one("{timeout: 1m}", "http://a:1"))))
		_, _, held := g.Held("all", "r1")
		_, _, tried := g.Tallies("all")
		must(t, held, tried)
		must(t, g.Reload(load(t, one("{timeout: 2m}", "http://a:1"))))
		if p, _ := g.Policy("all"); p.Timeout != 2*time.Minute {
			t.Errorf("after another edit: %+v", p)
		}
		if _, _, err := g.Held("all", "r1"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("the holdback of something else: %v", err)
		}
	})
}

// TestTheBaselineOfAVersionDoesNotChangeUnderIt moves weights while a version is tried.
func TestTheBaselineOfAVersionDoesNotChangeUnderIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := func(v1, v2 int) string {
			return strings.NewReplacer("weight: 80", "weight: "+strconv.Itoa(v1), "weight: 20", "weight: "+strconv.Itoa(v2)).Replace(canary)
		}
		g, _ := startCanary(t, file(1, 0))
		must(t, g.StageVersion("all", "v2"), g.Weight("all", 0.1))
		if err := g.Split("all", map[string]int{"v2": 5}); !errors.Is(err, ErrStaged) {
			t.Errorf("by hand: %v", err)
		}
		must(t, g.Reload(load(t, file(1, 0))))
		if _, _, err := g.Tallies("all"); err != nil {
			t.Errorf("after a reload that changes nothing: %v", err)
		}
		must(t, g.Reload(load(t, file(1, 1))))
		if _, _, err := g.Tallies("all"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("after a reload that gives calls to the candidate: %v", err)
		}
		must(t, g.Split("all", map[string]int{"v2": 5}))
	})
}

// TestWhatIsSwitchedOffLeavesAValidPolicy tries every set of parts.
func TestWhatIsSwitchedOffLeavesAValidPolicy(t *testing.T) {
	for _, c := range []longpole.Config{
		{Cache: &cache.Config{TTL: time.Hour}, Fallback: &longpole.Fallback{Stale: time.Hour}, Retry: &retry.Config{Hedge: &retry.Hedge{After: time.Millisecond}}, Limit: &limit.Config{}},
		{Cache: &cache.Config{TTL: time.Hour}, Fallback: &longpole.Fallback{Stale: time.Hour, Static: &longpole.Static{Status: 200}}, Balance: &balance.Config{Eject: &balance.Eject{}}},
	} {
		c = c.Safe()
		must(t, c.Validate())
		for p := range allParts + 1 {
			must(t, p.without(c).Validate(), contradictions(p.without(c)))
		}
	}
}
