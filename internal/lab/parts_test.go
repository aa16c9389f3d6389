package lab

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/scenario"
)

const partsYAML = `
name: parts
about: one of each, to try the parts without a network
services:
  - name: shop
    cores: 1
    heap: 1MiB
    pause: 50ms
    cold_calls: 2
    pools: {db: 1}
    operations:
      - name: buy
        steps:
          - cpu: {fixed: 10ms}
stores:
  - name: db
    base: {fixed: 1ms}
    tables: [{name: orders, rows: 100000, indexes: [customer_id]}]
caches:
  - {name: redis, shards: 1, keys: 2, lookup: {fixed: 1ms}}
queues:
  - {name: mail, workers: 2, work: {fixed: 10ms}}
gateway: [{service: shop}]
load:
  routes: [{to: shop.buy, rate: 10}]
faults:
  - {kind: burn, service: shop, factor: 4, at: 1s, for: 1s, every: 3s}
  - {name: away, kind: restart, service: shop, at: 100s, for: 1s}
  - {kind: index, store: db, table: orders, column: customer_id, at: 100s}
  - {kind: stale, store: db, table: orders, at: 100s}
  - {kind: lock, store: db, table: orders, at: 100s}
  - {kind: workers, queue: mail, workers: 0, at: 100s}
truth: {healthy: true}
`

func partsOf(t *testing.T) (*System, *node) {
	t.Helper()
	spec, err := scenario.Read("parts.yaml", []byte(partsYAML))
	if err != nil {
		t.Fatal(err)
	}
	s := NewSystem(spec, 1)
	s.Connect("", "")
	return s, s.nodes["shop"][0]
}

// told is what a server tells.
func told[T any](t *testing.T, facts func(context.Context) (T, error)) T {
	t.Helper()
	f, err := facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// took is how long do takes in virtual time.
func took(t *testing.T, do func() error) time.Duration {
	t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func TestWorkWaitsForACore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := partsOf(t)
		for range 3 {
			go func() { _ = n.compute(t.Context(), 10*time.Millisecond, "f") }()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		r := s.Facts(t.Context(), nil).Services[0].Runtime
		if got := *r.CPU * 1000; got < 29.9 || got > 30.1 {
			t.Errorf("%.1f ms of a core in a second; want 30", got)
		}
		if *r.SchedP99 != 0.02 {
			t.Errorf("the longest wait for the core is %g s; want 0.02", *r.SchedP99)
		}
	})
}

func TestACollectionStopsAllWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := partsOf(t)
		go func() {
			time.Sleep(5 * time.Millisecond)
			n.allocate(2<<20, "parse")
		}()
		if got := took(t, func() error { return n.compute(t.Context(), 10*time.Millisecond, "f") }); got != 60*time.Millisecond {
			t.Errorf("10ms of work with a pause of 50ms in it took %s; want 60ms", got)
		}
		if got := took(t, func() error { return n.sleep(t.Context(), 10*time.Millisecond) }); got != 10*time.Millisecond {
			t.Errorf("a sleep after the pause took %s; want 10ms", got)
		}
		f := s.Facts(t.Context(), nil).Services[0]
		if *f.Runtime.GCPause < 0.5 || *f.Runtime.GCRuns == 0 || f.Profile("heap") == nil {
			t.Errorf("the pause is not in the facts: %+v", f)
		}
	})
}

func TestStatementsCostWhatTheirPlanCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := partsOf(t)
		d := s.stores["db"].(*datastore)
		if err := d.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer d.close()
		q := &scenario.Query{Store: "db", Table: "orders", Verb: "select", Where: "customer_id", Rows: 100}
		query := func() time.Duration { return took(t, func() error { return d.run(t.Context(), "shop", q, 1) }) }
		if got := query(); got != 1500*time.Microsecond {
			t.Errorf("by the index it took %s; want 1.5ms", got)
		}
		if f := told(t, d.facts); len(f.Asked[0].SeqScans)+len(f.Asked[0].Indexes) != 0 {
			t.Errorf("with an index a scan or a candidate is shown: %+v", f.Asked[0])
		}
		if err := s.Switch(t.Context(), "index", true); err != nil {
			t.Fatal(err)
		}
		if got := query(); got != 21500*time.Microsecond {
			t.Errorf("without the index it took %s; want 21.5ms", got)
		}
		f := told(t, d.facts)
		if best, ok := f.Asked[0].Index(); !ok || best.Columns[0] != "customer_id" || best.Gain() < 0.9 {
			t.Errorf("the missing index is not proposed: %+v", f.Asked[0])
		}
		if err := s.Switch(t.Context(), "index", false); err != nil {
			t.Fatal(err)
		}
		if err := s.Switch(t.Context(), "stale", true); err != nil {
			t.Fatal(err)
		}
		if got := query(); got != 21500*time.Microsecond {
			t.Errorf("with stale statistics it took %s; want 21.5ms", got)
		}
		if x := told(t, d.facts).Asked[0]; x.Rows == nil || x.Rows.Factor < 10 || len(x.Indexes) > 0 || x.Tables[0].Stale() < 0.5 {
			t.Errorf("stale statistics do not show: %+v", x)
		}
	})
}

func TestUpdatesOfARowWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := partsOf(t)
		d := s.stores["db"].(*datastore)
		if err := d.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer d.close()
		q := &scenario.Query{Store: "db", Table: "orders", Verb: "update", Where: "id", Hold: &scenario.Dist{Fixed: 9 * time.Millisecond}}
		began := time.Now()
		var last time.Duration
		done := make(chan time.Duration, 3)
		for key := range 3 {
			go func() { _ = d.run(t.Context(), "shop", q, key/2); done <- time.Since(began) }()
		}
		for range 3 {
			last = <-done
		}
		if last != 20*time.Millisecond {
			t.Errorf("two updates of one row took %s; want 20ms", last)
		}
		if err := s.Switch(t.Context(), "lock", true); err != nil {
			t.Fatal(err)
		}
		go func() { _ = d.run(t.Context(), "shop", q, 7); done <- 0 }()
		synctest.Wait()
		time.Sleep(time.Second)
		d.look()
		f := s.Facts(t.Context(), nil)
		chain := f.Blocked("UPDATE orders SET body = $2 WHERE id = $1")
		if chain == nil || chain.Root.Application != "nightly-report" || chain.Longest != time.Second {
			t.Errorf("the lock chain is %+v", chain)
		}
		if err := s.Switch(t.Context(), "lock", false); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

func TestPoolCountsItsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool("db", 1)
		if err := p.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.release()
		if x := p.facts(); x.Exhausted() {
			t.Errorf("one connection, used once, counts as exhausted: %+v", x)
		}
		for range 3 {
			go func() {
				if p.acquire(t.Context()) == nil {
					time.Sleep(10 * time.Millisecond)
					p.release()
				}
			}()
		}
		time.Sleep(time.Second)
		if x := p.facts(); !x.Exhausted() || x.Pending != 2 || x.WaitP99 != 20*time.Millisecond || x.Used != 1 {
			t.Errorf("the waits are told as %+v", x)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p.gate <- struct{}{}
		cancel()
		if p.acquire(ctx) == nil {
			t.Error("who goes away gets a connection all the same")
		}
	})
}

func TestCacheForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := partsOf(t)
		c := s.caches["redis"].(*cacheServer)
		put := func(key string, ttl time.Duration) {
			if err := c.put(t.Context(), key, ttl); err != nil {
				t.Fatal(err)
			}
		}
		get := func(key string) bool {
			hit, err := c.get(t.Context(), key)
			return hit && err == nil
		}
		put("a", time.Minute)
		put("b", time.Second)
		if !get("a") || !get("b") || get("c") {
			t.Error("it does not hold what was put in, or more")
		}
		time.Sleep(2 * time.Second)
		if get("b") {
			t.Error("an entry outlives its time")
		}
		put("c", time.Minute)
		if get("a") || !get("c") {
			t.Error("the oldest entry does not make room")
		}
		if f := told(t, c.facts); f.Stats.HitRatio != 0.5 || f.Stats.Evicted == 0 {
			t.Errorf("facts: %+v", f.Stats)
		}
		if err := c.flush(t.Context()); err != nil || get("c") {
			t.Errorf("a flush leaves something, or fails: %v", err)
		}
	})
}

func TestFaultsKeepToTheirTimeLine(t *testing.T) {
	burn := scenario.Fault{At: time.Second, For: time.Second, Every: 3 * time.Second}
	for at, want := range map[time.Duration]bool{0: false, 1: true, 1999 * time.Millisecond: true, 2: false, 4: true, 5: false, 7: true} {
		if at < 100 {
			at *= time.Second
		}
		if due(burn, at) != want {
			t.Errorf("after %s it is on: %t; want %t", at, !want, want)
		}
	}
	if !due(scenario.Fault{}, time.Hour) {
		t.Error("a fault without a time is not always on")
	}
	synctest.Test(t, func(t *testing.T) {
		s, n := partsOf(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		_ = s.Begin(t.Context(), true)
		go func() { ended <- s.planted.run(ctx) }()
		time.Sleep(1500 * time.Millisecond)
		if n.hit(scenario.Burn, "buy") == nil || len(s.Active()) != 1 {
			t.Errorf("on are %v; want burn", s.Active())
		}
		_ = s.Begin(t.Context(), false)
		time.Sleep(1500 * time.Millisecond)
		if len(s.Active()) != 0 {
			t.Errorf("in a phase without faults on are %v", s.Active())
		}
		if err := s.Switch(t.Context(), "nothing", true); err == nil {
			t.Error("a fault that is not there can be switched")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestANewProcessIsCold(t *testing.T) {
	s, n := partsOf(t)
	if n.served.Load() < 2 {
		t.Error("it is cold from the start")
	}
	if err := s.Switch(t.Context(), "away", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(t.Context(), "away", false); err != nil {
		t.Fatal(err)
	}
	if p := n.process.Load(); p.instance != "shop-1.1" {
		t.Errorf("after a restart the SDK names the instance %s; want a new one", p.instance)
	}
	if n.served.Load() != 0 || !s.Facts(t.Context(), nil).Services[0].Runtime.Restarted {
		t.Error("after a restart it is warm, or the facts do not tell")
	}
}

func TestProfilesAreComparedWithHealth(t *testing.T) {
	s, n := partsOf(t)
	n.meter.worked("a", 5*time.Second)
	n.meter.worked("b", 5*time.Second)
	healthy := s.Profiles()
	n.meter.worked("a", 90*time.Second)
	f := s.Facts(t.Context(), healthy).Services[0].Profile("cpu")
	if f == nil || f.Diff == nil || len(f.Diff.Changes) == 0 || f.Diff.Changes[0].Suspect < f.Diff.Changes[0].Healthy && f.Diff.Changes[0].Name == "a" {
		t.Errorf("the profile is %+v", f)
	}
	if s.Facts(t.Context(), nil).Services[0].Profile("cpu").Diff != nil {
		t.Error("without a healthy profile there is a difference")
	}
}

func TestPopularKeysAreAskedForMore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	key := popularity(10, 1)
	counts := make([]int, 11)
	for range 29290 {
		counts[key(r)]++
	}
	if counts[0] != 0 || counts[1] < 9700 || counts[1] > 10300 || counts[10] < 900 || counts[10] > 1100 {
		t.Errorf("keys 1 to 10 are drawn %v; want 10000, 5000 ... 1000", counts[1:])
	}
	even := popularity(2, 0)
	if k := even(r); k < 1 || k > 2 {
		t.Errorf("key %d of 2", k)
	}
}

func TestFactsAreBounded(t *testing.T) {
	s, _ := partsOf(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if f := s.Facts(t.Context(), nil); len(f.Postgres) != 1 || len(f.Redis) != 1 || len(f.Queues) != 1 || f.Dropped != 0 || f.To.Before(f.From) {
		t.Errorf("facts: %+v", f)
	}
	var w samples
	for range maxSamples + 5 {
		w.add(time.Millisecond)
	}
	if len(w.list) != maxSamples || w.mean() != time.Millisecond || (&samples{}).quantile(0.5) != 0 {
		t.Error("waits are kept without bound, or told wrongly")
	}
}
