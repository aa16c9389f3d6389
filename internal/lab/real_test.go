package lab

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/rpc"
	"net/rpc/jsonrpc"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/servers"
	"github.com/longpole/longpole/internal/systemtest"
)

// absent ends a test for want of a server.
func absent(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) {
		systemtest.Missing(t, err.Error())
	}
}

// partsSpec is partsYAML as a scenario, with statements.
func partsSpec(t *testing.T) scenario.Scenario {
	t.Helper()
	text := strings.Replace(partsYAML, "          - cpu: {fixed: 10ms}", "          - cpu: {fixed: 10ms}\n          - query: {store: db, table: orders, where: customer_id, rows: 5}\n"+
		"          - query: {store: db, table: orders, verb: update, hold: {fixed: 1ms}}\n          - query: {store: db, table: orders, verb: insert}\n          - query: {store: db, table: orders, verb: insert, where: customer_id}", 1)
	spec, err := scenario.Read("parts.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestAssignmentsArriveAsTheyWereGiven(t *testing.T) {
	all, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range all {
		given := Assignment{Scenario: spec, Seed: 1 << 60, Site: Site{Mark: "m"}, Service: "a", Replica: 2, Life: 1, Address: "127.0.0.1:1"}
		text, err := json.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		var got Assignment
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, given) {
			t.Errorf("%s: %v: got\n%+v\nwant\n%+v", spec.Name, err, got, given)
		}
	}
}

// serving is Serve at the other end of two pipes.
func serving(t *testing.T) (calls *rpc.Client, ended chan error) {
	t.Helper()
	hisIn, in := io.Pipe()
	out, hisOut := io.Pipe()
	ended = make(chan error, 1)
	go func() { ended <- Serve(t.Context(), hisIn, hisOut) }()
	calls = rpc.NewClientWithCodec(jsonrpc.NewClientCodec(pipes{out, in}))
	t.Cleanup(func() { _ = calls.Close() })
	return calls, ended
}

func TestProcessServesItsReplicaUntilItsInputEnds(t *testing.T) {
	spec, err := scenario.Read("one.yaml", []byte(`
name: one
about: one service without anything behind it
services: [{name: shop, replicas: 2, cold_calls: 1, operations: [{name: buy, steps: [{cpu: {fixed: 1ms}}]}]}]
gateway: [{service: shop}]
load: {routes: [{to: shop.buy, rate: 1}]}
truth: {healthy: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	calls, ended := serving(t)
	call := func(method string, args, reply any) {
		t.Helper()
		if err := calls.Call(partName+"."+method, args, reply); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	if err := calls.Call(partName+".Connect", Wiring{}, new(bool)); err == nil || !strings.Contains(err.Error(), "no assignment") {
		t.Errorf("a process without assignment connects: %v", err)
	}
	var url string
	call("Begin", Assignment{Scenario: spec, Service: "shop", Replica: 2, Life: 3}, &url)
	call("Connect", Wiring{Endpoints: map[string][]string{"shop": {url}}}, new(bool))
	call("Reset", true, new(bool))
	get := func() int {
		t.Helper()
		answer, err := http.Get(url + "/shop/buy?key=1")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	if status := get(); status != http.StatusOK {
		t.Errorf("the replica answers %d", status)
	}
	call("Faults", []scenario.Fault{{Name: "error", Kind: scenario.Errors, Service: "shop", Replica: 2, Share: 1, Status: 503}}, new(bool))
	if status := get(); status != http.StatusServiceUnavailable {
		t.Errorf("with a fault the replica answers %d; want 503", status)
	}
	var told Answer
	call("Look", Question{From: time.Now().Add(-time.Second)}, &told)
	if told.Facts.Service != "shop" || told.Facts.Instance != "shop-2" || told.Facts.Runtime == nil || len(told.Profiles) == 0 || len(told.Profiles[0].Stacks) == 0 {
		t.Errorf("the replica tells %+v", told)
	}
	http.DefaultClient.CloseIdleConnections()
	_ = calls.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if answer, err := http.Get(url + "/shop/buy"); err == nil {
		_ = answer.Body.Close()
		t.Error("the replica answers after its end")
	}
}

func TestProcessThatDoesNotComeUpSaysWhy(t *testing.T) {
	spec := partsSpec(t)
	spec.Stores, spec.Caches, spec.Queues, spec.Faults = nil, nil, nil, nil
	s := NewSystemOn(&Real{Program: []string{"/bin/sh", "-c", "echo out of order >&2"}}, spec, 1)
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "shop-1") || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("a program that ends at once: %v", err)
	}
}

// attached is a part of a lab that is closed with the test.
func attached[S server](t *testing.T, x S) S {
	t.Helper()
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
	if err := x.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestRealStoreHasTheFaultsOfRealStores(t *testing.T) {
	server, err := servers.Postgres(t.Context(), servers.PostgresOptions{Settings: "shared_preload_libraries = 'pg_stat_statements'"})
	absent(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	if err := prepare(ctx, server.DSN("postgres"), "create extension pg_stat_statements"); err != nil {
		t.Fatal(err)
	}
	spec := partsSpec(t)
	t.Cleanup(func() { // after all is closed
		if err := prepare(context.Background(), server.DSN("postgres"), "create schema longpole_lab_test_db"); err != nil {
			t.Errorf("the schema was not removed: %v", err)
		}
	})
	store := func(owner bool) *postgres {
		d, err := newPostgres(&spec, spec.Stores[0], server.DSN("postgres"), "test", owner, 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	lab := attached(t, store(true))
	shop := attached(t, store(false))
	reads, updates := shop.queries[0], shop.queries[1]
	ask := func(n int, q *scenario.Query) {
		t.Helper()
		for i := range n {
			if err := shop.run(ctx, "shop", q, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	plan := func() *evidence.Node {
		t.Helper()
		if err := lab.reset(ctx); err != nil {
			t.Fatal(err)
		}
		ask(8, reads)
		time.Sleep(120 * time.Millisecond) // the collector asks for the same thing no more often
		f, err := lab.facts(ctx)
		if err != nil || len(f.Gaps) > 1 {
			t.Fatalf("%v: %+v", err, f.Gaps)
		}
		i := slices.IndexFunc(f.Asked, func(s evidence.PostgresStatement) bool { return s.Text == shop.text(reads) })
		if i < 0 || len(f.Asked[i].Stats) == 0 || f.Asked[i].Stats[0].Calls != 8 {
			t.Fatalf("the server tells %+v", f)
		}
		root := f.Asked[i].Plan.Root
		for len(root.Children) > 0 {
			root = root.Children[0]
		}
		return root
	}
	for _, q := range shop.queries {
		ask(2, q)
	}
	for _, x := range []struct {
		what  string
		turn  func() error
		scans bool
	}{
		{"as it is", func() error { return nil }, false},
		{"without its index", func() error { return lab.dropIndex(ctx, "orders", "customer_id", true) }, true},
		{"with its index again", func() error { return lab.dropIndex(ctx, "orders", "customer_id", false) }, false},
		{"with old statistics", func() error { return lab.age(ctx, "orders", true) }, true},
		{"with new statistics", func() error { return lab.age(ctx, "orders", false) }, false},
	} {
		if err := x.turn(); err != nil {
			t.Fatal(err)
		}
		if node := plan(); (node.Type == "Seq Scan") != x.scans {
			t.Errorf("%s, the plan is %s", x.what, node.Type)
		}
	}
	waitsForTheHolder(t, lab, shop, updates)
	changesWhatIsHeld(t, lab)
}

// changesWhatIsHeld plants faults that need a table which another one holds, as two faults at the same time do.
func changesWhatIsHeld(t *testing.T, lab *postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), realFaultTime/2)
	defer cancel()
	held := func() bool {
		err := lab.script(ctx, "set lock_timeout = '20ms'", "update orders set body = body where id = 1")
		return err != nil
	}
	for _, turn := range []func() error{
		func() error { return lab.hold(ctx, "orders", true) },
		func() error { return lab.dropIndex(ctx, "orders", "customer_id", true) },
		func() error { return lab.age(ctx, "orders", true) },
		func() error { return lab.age(ctx, "orders", false) },
		func() error { return lab.dropIndex(ctx, "orders", "customer_id", false) },
	} {
		if err := turn(); err != nil {
			t.Fatal(err)
		}
		if !held() {
			t.Error("the table is not held any more")
		}
	}
	if err := lab.hold(ctx, "orders", false); err != nil || held() {
		t.Errorf("the table is still held (%v)", err)
	}
}

// waitsForTheHolder holds a table, and wants the server to tell who waits for whom.
func waitsForTheHolder(t *testing.T, lab, shop *postgres, updates *scenario.Query) {
	t.Helper()
	attending, enough := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- lab.attend(attending) }()
	if err := lab.hold(t.Context(), "orders", true); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- shop.run(t.Context(), "shop", updates, 1) }()
	var chains []evidence.LockChain
	for range 500 {
		f, err := lab.facts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if chains = f.Chains; len(chains) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(chains) != 1 || chains[0].Root.Application != nightly || len(chains[0].Waiters) != 1 || chains[0].Waiters[0].Application != "shop" {
		t.Errorf("the chains are %+v", chains)
	}
	if err := lab.hold(t.Context(), "orders", false); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	enough()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRealCacheKeepsItsKeysApart(t *testing.T) {
	server, err := servers.Redis(t.Context())
	absent(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, spec := t.Context(), partsSpec(t).Caches[0]
	mine, theirs := attached(t, newRedis(spec, server.Address(), "mine", true, 1)), attached(t, newRedis(spec, server.Address(), "theirs", false, 1))
	for _, c := range []*redis{mine, theirs} {
		if err := c.reset(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.put(ctx, "a", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	hits := func(c *redis) bool {
		t.Helper()
		hit, err := c.get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		return hit
	}
	if !hits(mine) || !hits(theirs) {
		t.Error("what was put is not there")
	}
	if err := mine.flush(ctx); err != nil {
		t.Fatal(err)
	}
	if hits(mine) || !hits(theirs) {
		t.Error("a flush takes what it should leave, or leaves what it should take")
	}
	time.Sleep(120 * time.Millisecond) // the collector asks for the same thing no more often
	f, err := mine.facts(ctx)
	if err != nil || f.Name != server.Address() || f.Stats.HitRatio != 0.75 {
		t.Errorf("%v: %+v", err, f)
	}
}

// eventually polls for what real servers take their time for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// within asks for something, and gives up after so long.
func within(t *testing.T, most time.Duration, ask func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	return ask(ctx)
}

// TestRealPartsComeBackWithTheirServer kills the servers of a store, a cache and a queue in turn: what is asked meanwhile fails soon,
// and what is asked afterwards does not, for all that had been kept on disk.
func TestRealPartsComeBackWithTheirServer(t *testing.T) {
	spec := partsSpec(t)
	for name, x := range map[string]struct {
		start func(context.Context) (*servers.Server, error)
		part  func(*servers.Server) (server, func(context.Context) error)
	}{
		"store": {
			func(ctx context.Context) (*servers.Server, error) {
				return servers.Postgres(ctx, servers.PostgresOptions{})
			},
			func(s *servers.Server) (server, func(context.Context) error) {
				d, err := newPostgres(&spec, spec.Stores[0], s.DSN("postgres"), "", true, 1)
				if err != nil {
					t.Fatal(err)
				}
				return d, func(ctx context.Context) error { return d.run(ctx, "shop", d.queries[0], 1) }
			},
		},
		"cache": {
			func(ctx context.Context) (*servers.Server, error) { return servers.Redis(ctx) },
			func(s *servers.Server) (server, func(context.Context) error) {
				c := newRedis(spec.Caches[0], s.Address(), "", true, 1)
				return c, func(ctx context.Context) error {
					_, err := c.get(ctx, "a")
					return errors.Join(err, c.flush(ctx))
				}
			},
		},
		"queue": {
			func(ctx context.Context) (*servers.Server, error) { return servers.NATS(ctx) },
			func(s *servers.Server) (server, func(context.Context) error) {
				q := newStream(spec.Queues[0], "nats://"+s.Address(), "", owns)
				q.kept = jetstream.FileStorage
				return q, func(ctx context.Context) error { return q.publish(ctx, message{}) }
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := x.start(t.Context())
			absent(t, err)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := at.Stop(); err != nil {
					t.Error(err)
				}
			})
			part, ask := x.part(at)
			attached(t, part)
			if err := ask(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := at.Kill(); err != nil {
				t.Fatal(err)
			}
			// A process of PostgreSQL may answer once more before it sees that its parent is gone.
			eventually(t, "a part without its server fails", func() bool { return within(t, 3*time.Second, ask) != nil })
			if err := at.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a part whose server is back answers", func() bool { return within(t, 10*time.Second, ask) == nil })
		})
	}
}
