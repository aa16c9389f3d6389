package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/scenario"
)

// oddYAML is a scenario that is right, whatever its names look like.
const oddYAML = `
name: odd
about: two services that do the same under the same name
services:
  - name: "null"
    operations:
      - name: x
        steps:
          - call: {to: "1.get", cache: {in: c}}
          - call: {to: "true.get", cache: {in: c}}
          - query: {store: db, table: order, where: group, rows: 3, cache: {in: c}}
          - query: {store: db, table: order, where: user, rows: 3, cache: {in: c}}
          - query: {store: db, table: order, verb: update, where: select}
          - query: {store: db, table: order, verb: insert, where: limit}
  - {name: "1", operations: [{name: get, steps: [{cpu: {fixed: 1ms}}]}]}
  - {name: "true", operations: [{name: get, steps: [{cpu: {fixed: 1ms}}]}]}
caches: [{name: c}]
stores: [{name: db, tables: [{name: order, rows: 50, indexes: [group, limit]}]}]
gateway:
  - {service: "null", policy: "timeout: 2s", route: "priority: critical"}
  - {service: "1"}
  - {service: "true"}
load: {routes: [{to: "null.x", rate: 1}]}
truth: {class: database, service: "null", action: index}
`

// TestOddNamesAreNames runs a scenario whose names mean something else to YAML, to SQL or to a cache.
func TestOddNamesAreNames(t *testing.T) {
	spec, err := ReadScenario("odd.yaml", []byte(oddYAML))
	if err != nil {
		t.Fatal(err)
	}
	s := NewSystem(spec, 1)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cfg, err := gateway.Load("odd", s.GatewayYAML("127.0.0.1:0", gateway.Off, gateway.Off))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Routes) != 3 || cfg.Routes[0].Name != "null.x" || cfg.Routes[1].Name != "1.get" || cfg.Routes[0].Policy.Timeout != 2*time.Second {
		t.Errorf("the routes are %+v", cfg.Routes)
	}
	for q := range queriesOf(&spec) {
		if err := s.stores["db"].run(t.Context(), "null", q, 7); err != nil {
			t.Errorf("%s: %v", s.stores["db"].text(q), err)
		}
	}
}

func TestCachesKeepApartWhatIsNotTheSame(t *testing.T) {
	spec, err := ReadScenario("odd.yaml", []byte(oddYAML))
	if err != nil {
		t.Fatal(err)
	}
	s := NewSystem(spec, 1)
	made := 0
	x := &walk{node: s.nodes["null"][0], request: request{key: 7}}
	c, _ := s.caches["c"].(*cacheServer)
	for range 2 {
		for i := range 4 {
			step := spec.Services[0].Operations[0].Steps[i]
			name := ""
			if step.Call != nil {
				name = itemOf(step.Call, 7)
			} else {
				name = rowsOf(step.Query, 7)
			}
			if err := x.through(t.Context(), &scenario.Lookup{In: "c", TTL: time.Minute}, name, func() error { made++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if made != 4 || len(c.entries) != 4 {
		t.Errorf("%d things were made, and %d are kept; want 4 of each", made, len(c.entries))
	}
}

func TestFaultsOfPoliciesAreNamedWithTheirLine(t *testing.T) {
	for name, x := range map[string]struct{ old, new, want string }{
		"unknown field": {"timeout: 2s", "timout: 2s", "odd.yaml:20:31: gateway[0].policy.timout: this is not allowed; want what the gateway takes: unknown field; did you mean"},
		"a value":       {"timeout: 2s", "timeout: soon", `odd.yaml:20:31: gateway[0].policy.timeout: "soon" is not allowed`},
		"syntax":        {"timeout: 2s", "- 2s", "odd.yaml:20:"},
		"route":         {"priority: critical", "priority: dear", "odd.yaml:20:"},
		"action":        {"action: index", "action: indx", "odd.yaml:24:"},
	} {
		_, err := ReadScenario("odd.yaml", []byte(strings.Replace(oddYAML, x.old, x.new, 1)))
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v; want %q", name, err, x.want)
		}
	}
}

func TestIndexesOfAStoreHaveNamesOfTheirOwn(t *testing.T) {
	long := strings.Repeat("a", 40)
	seen := map[string]string{}
	for _, x := range [][2]string{
		{"order", "item_id"},
		{"order_item", "id"},
		{"order", "id"},
		{"order_aged", "id"},
		{"order", "aged_id"},
		{long, long[:39] + "b"},
		{long, long},
		{long + agedSuffix, long},
	} {
		name := indexName(x[0], x[1])
		if len(name) > maxIdentifier+2 {
			t.Errorf("%s has %d bytes with its quotation marks", name, len(name))
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%v and %s are both %s", x, other, name)
		}
		seen[name] = fmt.Sprint(x)
	}
}

func TestSystemThatIsInterruptedWhileItStartsLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	spec := partsSpec(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewSystem(spec, 1).Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that was cancelled: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v stays (%v)", left, err)
	}
}

func TestStreamNamesNoPasswords(t *testing.T) {
	q := newQueue(scenario.Queue{Name: "mail", Service: "mailer", Workers: 1, Deliveries: 1}, func(context.Context, message, int) error { return nil })
	if err := q.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	q.server = "nats://me:secret@queue:4333"
	q.conn.Close()
	if host, port := q.stream.address(); host != "queue" || port != "4333" {
		t.Errorf("without a connection, the server is %s:%s", host, port)
	}
	if err := q.close(); err != nil && !strings.Contains(err.Error(), "connection closed") {
		t.Error(err)
	}
}

func TestStreamLetsWorkersTakeTheirTime(t *testing.T) {
	for _, x := range []struct {
		work scenario.Dist
		want time.Duration
	}{
		{scenario.Dist{Median: time.Millisecond}, ackTime},
		{scenario.Dist{Fixed: time.Minute}, 3 * time.Minute},
		{scenario.Dist{Median: 20 * time.Second}, 2 * time.Minute},
		{scenario.Dist{Min: time.Second, Alpha: 1.5}, 5 * time.Minute},
	} {
		if got := newStream(scenario.Queue{Work: x.work}, "", "", owns).consumer(1).AckWait; got != x.want {
			t.Errorf("a message whose work takes %+v is delivered again after %s; want %s", x.work, got, x.want)
		}
	}
}

func TestFaultThatCannotBePlantedIsNotOn(t *testing.T) {
	text := strings.Replace(oddYAML, "load:", "faults: [{kind: index, store: db, table: order, column: group}, {kind: error, service: \"1\"}]\nload:", 1)
	spec, err := ReadScenario("odd.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := NewSystem(spec, 1)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, _ := s.stores["db"].(*datastore)
	if err := db.engine.close(); err != nil { // the database is gone
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Switch(t.Context(), "index", true); err == nil || len(s.Active()) > 0 {
			t.Errorf("a fault that cannot be planted: %v, and on are %v", err, s.Active())
		}
	}
	if err := s.Switch(t.Context(), "error", true); err != nil || len(s.Active()) != 1 {
		t.Errorf("another one: %v, and on are %v", err, s.Active())
	}
}
