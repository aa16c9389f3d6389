package gateway

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

const canary = `
listen: gw:80
upstreams: {v1: {endpoints: http://a:1}, v2: {endpoints: http://b:1}, v3: {endpoints: http://c:1}}
routes:
- name: all
  split: [{upstream: v1, weight: 80}, {upstream: v2, weight: 20}]
  sticky: {header: X-User}
  policy: {retry: {off: true}}
`

// startCanary serves three versions and a gateway before them.
func startCanary(t *testing.T, file string) (*Gateway, *network) {
	n := newNetwork()
	for address, name := range map[string]string{"a:1": "v1", "b:1": "v2", "c:1": "v3"} {
		n.serve(t, address, ok(name))
	}
	return n.start(t, file, nil), n
}

func TestCallsAreSplitByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := startCanary(t, canary)
		c := n.client(t)
		count := func(calls int) map[string]int {
			got := map[string]int{}
			for range calls {
				a := get(t, c, "http://gw:80/")
				if a.err != nil || a.status != 200 {
					t.Fatalf("%+v", a)
				}
				got[a.body]++
			}
			return got
		}
		const calls = 2000
		if got := count(calls); math.Abs(float64(got["v2"])/calls-0.2) > 0.06 { // 7 sigma
			t.Errorf("by the file: %v", got)
		}
		if err := g.Split("all", map[string]int{"v1": 0, "v2": 7}); err != nil {
			t.Fatal(err)
		}
		if got := count(100); got["v2"] != 100 {
			t.Errorf("all to one: %v", got)
		}
		synctest.Wait()
		s := g.Routes()[0]
		tallies, err := g.Versions("all")
		if err != nil || s.Action != "split" || len(s.Versions) != 2 || s.Versions[1].Weight != 7 || s.Versions[0].Calls+s.Versions[1].Calls != s.Calls || tallies["v2"].Calls != s.Versions[1].Calls || len(s.Endpoints) != 2 || s.Endpoints[1].Upstream != "v2" {
			t.Errorf("%v: %+v, %+v", err, s, tallies)
		}
	})
}

func TestStickyCallersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := startCanary(t, canary)
		c := n.client(t)
		of := func(user int) string {
			a := get(t, c, "http://gw:80/", "X-User", fmt.Sprint(user))
			if a.err != nil {
				t.Fatal(a.err)
			}
			return a.body
		}
		const users = 300
		var before [users]string
		second := 0
		for u := range users {
			before[u] = of(u)
			if again := of(u); again != before[u] {
				t.Fatalf("user %d went to %s, then to %s", u, before[u], again)
			}
			if before[u] == "v2" {
				second++
			}
		}
		if second < users/10 || second > users*3/10 {
			t.Errorf("%d of %d users are in the second version", second, users)
		}
		// Who is in the second version stays there while its share grows.
		if err := g.Split("all", map[string]int{"v1": 50, "v2": 50}); err != nil {
			t.Fatal(err)
		}
		for u := range users {
			if now := of(u); before[u] == "v2" && now != "v2" {
				t.Errorf("user %d fell back to %s", u, now)
			}
		}
	})
}

func TestSharesPickEveryVersionAsOftenAsItWeighs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newShares(rapid.SliceOfN(rapid.IntRange(0, 50), 1, 8).Draw(t, "weights"))
		if s.sum == 0 {
			return
		}
		got := make([]int, len(s.weights))
		n := s.sum * 20
		for i := range n {
			got[s.pick((float64(i)+0.5)/float64(n))]++
		}
		for i, w := range s.weights {
			if got[i] != w*20 {
				t.Fatalf("version %d of weight %d was picked %d times of %d", i, w, got[i], n)
			}
		}
		if i := s.pick(math.Nextafter(1, 0)); s.weights[i] == 0 {
			t.Fatal("a version without weight was picked")
		}
	})
}

func TestWeightsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := startCanary(t, strings.Replace(canary, "routes:\n", "routes:\n- {name: one, match: {path: /one}, upstream: v1}\n", 1))
		for name, err := range map[string]error{
			"unknown":  g.Split("all", map[string]int{"v3": 1}),
			"negative": g.Split("all", map[string]int{"v1": -1}),
			"much":     g.Split("all", map[string]int{"v1": 1_000_001}),
			"nothing":  g.Split("all", map[string]int{"v1": 0, "v2": 0}),
		} {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if err := g.Split("none", nil); !errors.Is(err, ErrNoRoute) {
			t.Error(err)
		}
		if err := g.Split("one", nil); !errors.Is(err, ErrNoSplit) {
			t.Error(err)
		}
		if _, err := g.Versions("one"); !errors.Is(err, ErrNoSplit) {
			t.Error(err)
		}
		if w := g.Effective().Routes[1].Split; w[0].Weight != 80 || w[1].Weight != 20 {
			t.Errorf("weights are %v", w)
		}
	})
}

func TestARolloutCoversEveryVersionAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := startCanary(t, canary)
		c := n.client(t)
		to, err := g.Policy("all")
		if err != nil {
			t.Fatal(err)
		}
		to.Timeout = 3 * time.Second
		if err := errors.Join(g.Stage("all", to), g.Weight("all", 0.5)); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			get(t, c, "http://gw:80/")
		}
		synctest.Wait()
		b, cand, err := g.Tallies("all")
		if err != nil || b.Calls+cand.Calls != 200 || b.Calls == 0 || cand.Calls == 0 {
			t.Errorf("%v: %d and %d calls", err, b.Calls, cand.Calls)
		}
		if err := errors.Join(g.Split("all", map[string]int{"v2": 80}), g.Promote("all")); err != nil {
			t.Fatal(err)
		}
		for i, a := range g.table.Load().byName["all"].live.arms.Load().baseline {
			if got := a.policy.Config().Timeout; got != 3*time.Second {
				t.Errorf("version %d has a timeout of %v", i, got)
			}
		}
		// A version that joins has the promoted policy too; the others keep what they learned, and the weights are the file's.
		before := g.table.Load().byName["all"].live.arms.Load().baseline[1].policy
		if err := g.Reload(load(t, strings.Replace(canary, "[{upstream: v1, weight: 80}", "[{upstream: v3, weight: 5}", 1))); err != nil {
			t.Fatal(err)
		}
		live := g.table.Load().byName["all"].live
		for i, a := range live.arms.Load().baseline {
			if got := a.policy.Config().Timeout; got != 3*time.Second {
				t.Errorf("after the reload version %d has a timeout of %v", i, got)
			}
		}
		tallies, err := g.Versions("all")
		if err != nil || live.arms.Load().baseline[1].policy != before || tallies["v2"].Calls == 0 || tallies["v3"].Calls != 0 {
			t.Errorf("%v: %v", err, tallies)
		}
		if got := get(t, c, "http://gw:80/"); got.status != 200 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnUnchangedFileKeepsTheWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := startCanary(t, canary)
		weights := func() [2]int {
			s := g.Effective().Routes[0].Split
			return [2]int{s[0].Weight, s[1].Weight}
		}
		if err := errors.Join(g.Split("all", map[string]int{"v1": 1}), g.Reload(load(t, canary))); err != nil || weights() != [2]int{1, 20} {
			t.Errorf("%v: %v", err, weights())
		}
		if err := g.Reload(load(t, strings.Replace(canary, "weight: 80", "weight: 60", 1))); err != nil || weights() != [2]int{60, 20} {
			t.Errorf("%v: %v", err, weights())
		}
	})
}

func TestOneBadVersionIsNotHeldAgainstTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := strings.Replace(canary, "http://b:1", "http://nobody:1", 1)
		file = strings.Replace(file, "{retry: {off: true}}", "{retry: {off: true}, breaker: {min_calls: 5, window: 10s}}", 1)
		g, n := startCanary(t, file)
		c := n.client(t)
		for range 200 {
			get(t, c, "http://gw:80/")
		}
		synctest.Wait()
		s := g.Routes()[0]
		if s.Versions[0].ErrorRatio != 0 || s.Versions[1].ErrorRatio != 1 || s.Endpoints[0].Breaker != "closed" || s.Endpoints[1].Breaker != "open" {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestSplitWhileCallsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := startCanary(t, canary)
		var run sync.WaitGroup
		for range 4 {
			c := n.client(t)
			run.Go(func() {
				for range 200 {
					if got := get(t, c, "http://gw:80/"); got.status != 200 {
						t.Errorf("got %+v", got)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		to, _ := g.Policy("all")
		for i := range 50 {
			time.Sleep(4 * time.Millisecond)
			if err := errors.Join(g.Split("all", map[string]int{"v1": i % 3, "v2": 1}), g.Stage("all", to), g.Weight("all", 0.3)); err != nil {
				t.Error(err)
			}
			file := strings.Replace(canary, "upstream: v2", "upstream: v"+fmt.Sprint(2+i%2), 1)
			if err := g.Reload(load(t, file)); err != nil {
				t.Error(err)
			}
			if err := errors.Join(g.Discard("all"), g.Reload(load(t, canary))); err != nil {
				t.Error(err)
			}
		}
		run.Wait()
	})
}
