package scenario

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/conf"
)

const shop = `
name: shop
about: orders reads its whole table
services:
  - name: frontend
    operations:
      - name: checkout
        steps:
          - cpu: {median: 2ms}
          - parallel:
              - call: {to: orders.place, share: 50%, timeout: 1s}
              - query: {store: db, table: orders, where: customer_id, rows: 5}
  - name: orders
    replicas: 2
    operations:
      - name: place
        answer: 2KiB
        steps:
          - publish: {queue: mail}
          - lock: {mutex: stock, hold: {fixed: 3ms}}
stores:
  - name: db
    tables: [{name: orders, rows: 1000}]
caches:
  - name: redis
queues:
  - {name: mail, work: {median: 5ms}}
gateway:
  - service: frontend
load:
  routes:
    - {to: frontend.checkout, rate: 20}
faults:
  - {kind: delay, service: orders, replica: 2, delay: {min: 5ms, alpha: 1.5}}
truth: {class: database, service: [orders], action: index}
`

func TestReadFillsDefaults(t *testing.T) {
	s, err := Read("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	f := s.Service("frontend")
	c := f.Operation("checkout").Steps[1].Parallel[0].Call
	if f.Replicas != 1 || f.Cores != 2 || c.Share != 0.5 || c.Repeat != 1 || c.Timeout != time.Second {
		t.Errorf("frontend is %+v, its call %+v", f, c)
	}
	if s.Service("orders").Operation("place").Answer != 2048 || s.Stores[0].System != "postgresql" || s.Queues[0].Service != "mail-worker" {
		t.Errorf("orders, store or queue lack their defaults: %+v %+v", s.Stores[0], s.Queues[0])
	}
	if s.Load.Routes[0].Name != "checkout" || s.Load.Duration == 0 || s.Faults[0].Name != "delay" || s.Faults[0].Share != 1 {
		t.Errorf("load or fault lack their defaults: %+v %+v", s.Load, s.Faults[0])
	}
	if s.Service("nobody") != nil || !s.Behind("frontend") || s.Behind("orders") {
		t.Error("services are not found by their names")
	}
}

func TestFaultsOfAFileAreNamedWithTheirLine(t *testing.T) {
	for name, x := range map[string]struct{ old, new, want string }{
		"unknown field":       {"about: orders", "abuot: orders", "abuot"},
		"unknown operation":   {"to: orders.place", "to: orders.plaice", "shop.yaml:11:28: services[0].operations[0].steps[1].parallel[0].call.to"},
		"unknown service":     {"to: orders.place", "to: order.place", "one of the services frontend, orders"},
		"unknown store":       {"store: db", "store: pg", "query.store"},
		"unknown table":       {"table: orders", "table: order", "a table of db"},
		"unknown queue":       {"queue: mail", "queue: post", "publish.queue"},
		"two steps in one":    {"- publish: {queue: mail}", "- {publish: {queue: mail}, allocate: 1KiB}", "exactly one of"},
		"no step":             {"- publish: {queue: mail}", "- {name: nothing}", "exactly one of"},
		"no family of times":  {"fixed: 3ms", "p99: 3ms", "at least the median"},
		"two families":        {"fixed: 3ms", "fixed: 3ms, median: 2ms", "lock.hold"},
		"heavy tail":          {"alpha: 1.5", "alpha: 0.5", "faults[0].delay.alpha"},
		"replica":             {"replica: 2", "replica: 3", "faults[0].replica"},
		"kind of fault":       {"kind: delay", "kind: meteor", "one of delay, error"},
		"fault without delay": {", delay: {min: 5ms, alpha: 1.5}", "", "faults[0].delay"},
		"too many replicas":   {"replicas: 2", "replicas: 200", "services[1].replicas"},
		"no rate":             {"rate: 20", "rate: 0", "load.routes[0].rate"},
		"load past gateway":   {"- service: frontend", "- service: orders", "stands under gateway"},
		"protocol":            {"replicas: 2", "protocol: soap", "services[1].protocol"},
		"load over gRPC":      {"name: frontend\n", "name: frontend\n    protocol: grpc\n", "which is what clients speak"},
		"no truth":            {"class: database, ", "", "truth.class"},
		"no such class":       {"class: database", "class: databse", "shop.yaml:35:16: truth.class[0]"},
		"classes to choose":   {"class: database", "class: [database, slow]", "one of cache_miss, clock, cold_start, cpu, database, dependency, fan_out, gc_pause, grey_failure"},
		"no such code":        {"class: database", "code: LP199", "one of LP101, LP102"},
		"two names":           {"name: redis", "name: db", "no other service, store, cache or queue"},
		"ring":                {"- publish: {queue: mail}", "- call: {to: frontend.checkout}", "do not lead back"},
		"share":               {"share: 50%", "share: 150%", "0%..100%"},
		"name of a dash":      {"name: redis", "name: \"-\"", "of which the first is no dash"},
		"service twice":       {"- service: frontend\n", "- service: frontend\n  - service: frontend\n", "gateway[1].service"},
		"table twice":         {"rows: 1000}", "rows: 1000}, {name: orders, rows: 1}", "each table once"},
		"system table":        {"tables: [{name: orders", "tables: [{name: orders, rows: 1}, {name: pg_class", "tables[1].name"},
		"system column":       {"where: customer_id", "where: xmin", "one of the database's own"},
		"filler":              {"rows: 1000}", "rows: 1000, indexes: [body]}", "tables[0].indexes"},
		"workers of a name":   {"name: mail, ", "name: mail, service: orders, ", "queues[0].service"},
		"header":              {"rate: 20}", "rate: 20, headers: {\"a b\": c}}", "load.routes[0].headers"},
		"header of two":       {"rate: 20}", "rate: 20, headers: {a: \"c\\nd: e\"}}", "load.routes[0].headers.a"},
		"pause without end":   {"kind: delay", "kind: pause", "how long the process stands still"},
		"nobody's truth":      {"service: [orders]", "service: [oders]", "one of db, frontend, mail, mail-worker, orders, redis"},
		"type":                {"rows: 1000", "rows: many", "stores[0].tables[0].rows"},
	} {
		_, err := Read("shop.yaml", []byte(strings.Replace(shop, x.old, x.new, 1)))
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "shop.yaml:") {
			t.Errorf("%s: %v; want %q and a line", name, err, x.want)
		}
	}
}

func TestAFindingCanBeToldByItsOwnName(t *testing.T) {
	s, err := Read("shop.yaml", []byte(strings.Replace(shop, "class: database", "class: slow_endpoint", 1)))
	if err != nil || !slices.Equal(s.Truth.Code, []string{"LP103"}) {
		t.Errorf("slow_endpoint, of the class dependency, gives the codes %v, %v; want LP103", s.Truth.Code, err)
	}
}

func TestRequestsThatNoMachineCanCarryAreRefused(t *testing.T) {
	text := "{name: storm, about: each service calls the next ten times, services: ["
	for _, x := range []string{"a, b", "b, c", "c, d", "d, e", "e, f"} {
		name, next, _ := strings.Cut(x, ", ")
		text += "{name: " + name + ", operations: [{name: x, steps: [{parallel: [{call: {to: " + next + ".x, repeat: 10}}]}]}]}, "
	}
	text += "{name: f, operations: [{name: x, steps: [{cpu: {fixed: 1ms}}]}]}], gateway: {service: a}, load: {routes: [{to: ENTRY.x, rate: 1}]}, truth: {healthy: true}}"
	_, err := Read("storm.yaml", []byte(strings.Replace(text, "ENTRY", "a", 1)))
	if err == nil || !strings.Contains(err.Error(), "load.routes[0].to") || !strings.Contains(err.Error(), "1.11e+05") {
		t.Errorf("111110 calls for one request: %v", err)
	}
	if _, err := Read("storm.yaml", []byte(strings.NewReplacer("ENTRY", "b", "service: a", "service: b").Replace(text))); err != nil {
		t.Errorf("11110 calls for one request: %v", err)
	}
}

func TestAnEmptyFileIsToldAllItLacks(t *testing.T) {
	_, err := Read("empty.yaml", []byte("name: x"))
	for _, want := range []string{"about", "services", "gateway", "load.routes", "truth.class"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestDefaultsAreValidAndStable(t *testing.T) {
	s, err := Read("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	text, err := conf.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read("again.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	twice, err := conf.Marshal(again)
	if err != nil || string(twice) != string(text) {
		t.Errorf("a file that is written and read again differs (%v):\n%s\n%s", err, text, twice)
	}
}

func TestTimesHaveTheirDistribution(t *testing.T) {
	for name, x := range map[string]struct {
		d        Dist
		p50, p99 time.Duration
	}{
		"fixed":     {Dist{Fixed: 5 * time.Millisecond}, 5 * time.Millisecond, 5 * time.Millisecond},
		"lognormal": {Dist{Median: 5 * time.Millisecond, P99: 20 * time.Millisecond}, 5 * time.Millisecond, 20 * time.Millisecond},
		"default":   {Dist{Median: 5 * time.Millisecond}, 5 * time.Millisecond, 10 * time.Millisecond},
		"pareto":    {Dist{Min: time.Millisecond, Alpha: 1}, 2 * time.Millisecond, 91 * time.Millisecond},
		"cut":       {Dist{Min: time.Millisecond, Alpha: 1, Max: 10 * time.Millisecond}, 2 * time.Millisecond, 10 * time.Millisecond},
		"zero":      {},
	} {
		r := rand.New(rand.NewPCG(1, 2)) // one for each, as the order of a map is not
		list := make([]time.Duration, 40_000)
		for i := range list {
			list[i] = x.d.Draw(r)
		}
		slices.Sort(list)
		for _, q := range []struct {
			q    float64
			want time.Duration
		}{{0.5, x.p50}, {0.989, x.p99}} {
			got := list[int(q.q*float64(len(list)))]
			if math.Abs(float64(got-q.want)) > 0.12*float64(q.want) {
				t.Errorf("%s: quantile %g is %s; want %s", name, q.q, got, q.want)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(shop))
	files, _ := filepath.Glob("../lab/catalogue/*.yaml")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read("fuzz.yaml", data)
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("with its defaults it is invalid: %v", err)
		}
	})
}
