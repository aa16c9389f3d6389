package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowly answers after a while, and counts the calls that it has at once.
type slowly struct {
	now, most atomic.Int64
	took      time.Duration
	order     struct {
		sync.Mutex
		paths []string
	}
}

func (s *slowly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	s.order.Lock()
	s.order.paths = append(s.order.paths, r.URL.Path)
	s.order.Unlock()
	time.Sleep(s.took)
	_, _ = fmt.Fprint(w, "done")
}

// atOnce makes calls at the same time and returns the answers in the order of paths.
func atOnce(t *testing.T, n *network, paths []string, header ...string) []answer {
	all := make([]answer, len(paths))
	var run sync.WaitGroup
	for i, path := range paths {
		c := n.client(t)
		run.Go(func() { all[i] = get(t, c, "http://gw:80"+path, header...) })
		time.Sleep(time.Millisecond) // one after the other, so that their order is known
	}
	run.Wait()
	return all
}

func statuses(all []answer) []int {
	var list []int
	for _, a := range all {
		list = append(list, a.status)
	}
	return list
}

func TestALimitBoundsWhatTheUpstreamHasAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := &slowly{took: time.Second}
		n.serve(t, "a:1", s.ServeHTTP)
		n.start(t, one("{limit: {algorithm: fixed, limit: 2}}", "http://a:1"), nil)
		all := atOnce(t, n, []string{"/1", "/2", "/3", "/4"})
		if !slices.Equal(statuses(all), []int{200, 200, 503, 503}) || s.most.Load() != 2 {
			t.Errorf("%v with %d at once", statuses(all), s.most.Load())
		}
		if a := all[2]; a.header.Get("X-Longpole-Error") != "shed" || a.header.Get("Retry-After") == "" || a.took > 100*time.Millisecond {
			t.Errorf("a refused call got %+v", a)
		}
	})
}

func TestAQueueHoldsCallsAndCriticalOnesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := &slowly{took: time.Second}
		n.serve(t, "a:1", s.ServeHTTP)
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: http://a:1}}
routes:
- name: all
  upstream: up
  priority: {header: X-Tier, trust_all: true}
  policy: {limit: {algorithm: fixed, limit: 1, queue: {length: 10, max_age: 20s, target: 20s}}}
`, nil)
		var run sync.WaitGroup
		for i, tier := range []string{"normal", "background", "normal", "critical"} {
			c := n.client(t)
			run.Go(func() {
				if a := get(t, c, fmt.Sprintf("http://gw:80/%d-%s", i, tier), "X-Tier", tier); a.status != 200 {
					t.Errorf("%s got %+v", tier, a)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		run.Wait()
		if want := []string{"/0-normal", "/3-critical", "/2-normal", "/1-background"}; !slices.Equal(s.order.paths, want) || s.most.Load() != 1 {
			t.Errorf("served in the order %v, want %v", s.order.paths, want)
		}
	})
}

func TestHealthChecksPassAFullLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := &slowly{took: time.Second}
		n.serve(t, "a:1", s.ServeHTTP)
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: http://a:1}}
routes:
- {name: health, match: {exact: /healthz}, upstream: up, priority: exempt, policy: {limit: {algorithm: fixed, limit: 1}}}
- {name: all, upstream: up, policy: {limit: {algorithm: fixed, limit: 1}}}
`, nil)
		if got := statuses(atOnce(t, n, []string{"/healthz", "/healthz", "/x", "/y", "/healthz"})); !slices.Equal(got, []int{200, 200, 200, 503, 200}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestARateIsToldInTheAnswerAndHoldsForEachTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: http://a:1}}
routes:
- name: all
  upstream: up
  tenant: {header: X-Tenant, trust_all: true}
  policy: {limit: {algorithm: none, rate: {per_second: 0.25, burst: 2, per_tenant: true}}}
`, nil)
		c := n.client(t)
		ask := func(tenant string) answer { return get(t, c, "http://gw:80/", "X-Tenant", tenant) }
		for i, want := range []int{200, 200, 429, 429} {
			if got := ask("a"); got.status != want || want == 429 && (got.header.Get("Retry-After") != "4" || got.header.Get("X-Longpole-Error") != "rate") {
				t.Errorf("call %d of a: %+v", i, got)
			}
		}
		if got := ask("b"); got.status != 200 {
			t.Errorf("another tenant got %+v", got)
		}
		time.Sleep(4 * time.Second)
		if got := ask("a"); got.status != 200 {
			t.Errorf("after the time that was told: %+v", got)
		}
	})
}

func TestOneTenantCannotTakeTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := &slowly{took: time.Second}
		n.serve(t, "a:1", s.ServeHTTP)
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: http://a:1}}
routes:
- name: all
  match: {pattern: "/{org}/{call}"}
  upstream: up
  tenant: {capture: org}
  policy: {limit: {algorithm: fixed, limit: 1, queue: {length: 10, max_age: 20s, target: 20s, lifo_above: 10}}}
`, nil)
		atOnce(t, n, []string{"/big/1", "/big/2", "/big/3", "/big/4", "/small/1"})
		if i := slices.Index(s.order.paths, "/small/1"); i < 0 || i > 2 {
			t.Errorf("the small tenant was served in place %d of %v", i, s.order.paths)
		}
	})
}

func TestTheAdaptiveLimitIsTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, one("{limit: {}}", "http://a:1"), nil)
		c := n.client(t)
		for range 50 {
			if got := get(t, c, "http://gw:80/"); got.status != 200 {
				t.Fatalf("got %+v", got)
			}
		}
		if p := string(g.Routes()[0].Policy); !strings.Contains(p, `"algorithm":"adaptive"`) {
			t.Errorf("policy is %s", p)
		}
	})
}

func TestTheRetryBudgetBoundsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var attempts atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			attempts.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		n.start(t, one("{retry: {max_attempts: 5, budget_ratio: 10%, min_per_second: 0.1}, breaker: {off: true}}", "http://a:1"), nil)
		c := n.client(t)
		const calls = 200
		for range calls {
			get(t, c, "http://gw:80/")
		}
		if extra := attempts.Load() - calls; extra < 5 || extra > calls/10+15 {
			t.Errorf("%d attempts for %d calls", attempts.Load(), calls)
		}
	})
}

func TestNoAttemptIsBegunThatCannotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var attempts atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			attempts.Add(1)
			time.Sleep(150 * time.Millisecond)
			w.WriteHeader(http.StatusInternalServerError)
		})
		n.start(t, one("{timeout: 1s, min_try: 900ms, retry: {budget_ratio: 100%, min_per_second: 100}}", "http://a:1"), nil)
		if got := get(t, n.client(t), "http://gw:80/"); got.status != 500 || attempts.Load() != 1 {
			t.Errorf("%d attempts: %+v", attempts.Load(), got)
		}
		if got := get(t, n.client(t), "http://gw:80/", "X-Request-Timeout-Ms", "500"); got.status != 504 || attempts.Load() != 1 {
			t.Errorf("%d attempts: %+v", attempts.Load(), got)
		}
	})
}

func TestEveryBalancerReachesEveryEndpoint(t *testing.T) {
	for _, algorithm := range []string{"p2c", "round_robin", "weighted", "peak_ewma", "prequal"} {
		t.Run(algorithm, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				for _, name := range []string{"a:1", "b:1", "c:1"} {
					n.serve(t, name, ok(name))
				}
				n.start(t, one("{balance: {algorithm: "+algorithm+", slow_start: 1s}}", "http://a:1", "http://b:1", "http://c:1"), nil)
				got, c := map[string]int{}, n.client(t)
				for range 120 {
					a := get(t, c, "http://gw:80/")
					if a.status != 200 {
						t.Fatalf("got %+v", a)
					}
					got[a.body]++
					time.Sleep(50 * time.Millisecond)
				}
				if len(got) != 3 {
					t.Errorf("calls went to %v", got)
				}
			})
		})
	}
}

func TestASubsetIsAllThatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var endpoints []string
		for i := range 6 {
			address := fmt.Sprintf("e%d:1", i)
			n.serve(t, address, ok(address))
			endpoints = append(endpoints, "http://"+address)
		}
		n.start(t, one("{balance: {subset: 2, subset_key: gateway-1}}", endpoints...), nil)
		got, c := map[string]int{}, n.client(t)
		for range 60 {
			got[get(t, c, "http://gw:80/").body]++
		}
		if len(got) != 2 {
			t.Errorf("calls went to %v", got)
		}
	})
}

func TestAnEndpointThatFailsIsEjectedAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var broken atomic.Bool
		broken.Store(true)
		var bad atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			bad.Add(1)
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		for _, name := range []string{"b:1", "c:1", "d:1"} {
			n.serve(t, name, ok(name))
		}
		n.start(t, one("{retry: {off: true}, breaker: {off: true}, balance: {algorithm: round_robin, eject: {consecutive: 3, for: 30s}}}", "http://a:1", "http://b:1", "http://c:1", "http://d:1"), nil)
		c := n.client(t)
		failed := 0
		for range 100 {
			if get(t, c, "http://gw:80/").status != 200 {
				failed++
			}
		}
		if failed != 3 || bad.Load() != 3 {
			t.Errorf("%d calls failed, %d went to the bad endpoint", failed, bad.Load())
		}
		broken.Store(false)
		time.Sleep(31 * time.Second)
		for range 40 {
			if got := get(t, c, "http://gw:80/"); got.status != 200 {
				t.Errorf("got %+v", got)
			}
		}
		if bad.Load() == 3 {
			t.Error("the endpoint did not come back")
		}
	})
}

func TestTheBreakerAndTheFallbackWorkTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var asked atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusBadGateway)
		})
		n.start(t, one("{retry: {off: true}, breaker: {min_calls: 5}, fallback: {static: {status: 203, body: spare}}}", "http://a:1"), nil)
		c := n.client(t)
		for range 30 {
			if got := get(t, c, "http://gw:80/"); got.status != 203 || got.body != "spare" {
				t.Fatalf("got %+v", got)
			}
		}
		if n := asked.Load(); n != 5 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}
