package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/systemtest"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/setting"
)

// listening is a real JetStream at an address.
func listening(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{ServerName: "probe", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server did not start")
	}
	return s.ClientURL()
}

// TestACollectorReadsEverySystemItCan: what fails is named, and the rest is read; the second window goes on from the first.
func TestACollectorReadsEverySystemItCan(t *testing.T) {
	url, cache := listening(t), redis(t)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "jobs", Subjects: []string{"jobs"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "mail", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "go_sched_gomaxprocs_threads 2") })
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	process := httptest.NewServer(mux)
	defer process.Close()

	brisk := Budget{MinInterval: 100 * time.Millisecond}
	c, err := NewCollector(Config{
		Redis:    []RedisConfig{{Address: cache, Timeout: time.Minute, Budget: brisk}, {Name: "gone", Address: systemtest.FreeAddress(t), Budget: brisk}},
		Queues:   []QueueConfig{{URL: url, Timeout: time.Minute, Budget: brisk}},
		Profiles: []ProfilesConfig{{Service: "shop", Instance: "shop-1", URL: process.URL + "/debug/pprof", Kinds: []string{"heap", "goroutine"}}},
		Metrics:  []MetricsConfig{{Service: "shop", Instance: "shop-1", URLs: []string{process.URL + "/metrics"}, Timeout: time.Minute, Budget: brisk}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := js.Publish(t.Context(), "jobs", []byte("x")); err != nil {
			t.Fatal(err)
		}
		facts := c.Collect(t.Context(), 300*time.Millisecond, nil)
		if len(facts.Redis) != 1 || facts.Redis[0].Name != cache || facts.Redis[0].Stats.Span <= 0 {
			t.Errorf("redis %+v", facts.Redis)
		}
		if len(facts.Queues) != 1 || facts.Queues[0].Consumer != "mail" || facts.Queues[0].Span <= 0 || facts.Queues[0].Pending == 0 {
			t.Errorf("queues %+v", facts.Queues)
		}
		if len(facts.Services) != 1 || facts.Services[0].Instance != "shop-1" || len(facts.Services[0].Profiles) != 2 || facts.Services[0].Runtime == nil || *facts.Services[0].Runtime.Procs != 2 {
			t.Errorf("services %+v", facts.Services)
		}
		if !said(facts.Gaps, "redis gone") || facts.To.Before(facts.From) {
			t.Errorf("gaps %v", facts.Gaps)
		}
	}
	for _, s := range c.Status() {
		if failed := s.Fault != ""; failed != (s.Name == "gone") || s.At.IsZero() != failed {
			t.Errorf("%+v", s)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ctx, nil, func(evidence.Facts) { t.Error("facts of a run that ended") })
}

// TestAProfileOfHealthyTimesIsComparedWith: the difference stands beside the profile, and a file that is none is a fault.
func TestAProfileOfHealthyTimesIsComparedWith(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	process := httptest.NewServer(mux)
	defer process.Close()
	data, err := get(t.Context(), process.Client(), process.URL+"/debug/pprof/profile?seconds=1", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "healthy.pprof")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Profiles: []ProfilesConfig{{Service: "shop", URL: process.URL + "/debug/pprof", Kinds: []string{"cpu"}, Healthy: file}}}.Once(time.Second)
	c, err := NewCollector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	facts := c.Collect(t.Context(), time.Second, nil)
	if len(facts.Services) != 1 || len(facts.Services[0].Profiles) != 1 || facts.Services[0].Profiles[0].Diff == nil || facts.Services[0].Profiles[0].Flame == nil {
		t.Errorf("%+v", facts.Services)
	}
	cfg.Profiles[0].Healthy = filepath.Join(t.TempDir(), "none")
	if _, err := NewCollector(cfg); err == nil || !strings.Contains(err.Error(), "healthy profile of shop") {
		t.Errorf("%v", err)
	}
}

// TestQueriesAreTheDearestStatementsOfTheTraces: each shape once, with the text of its slowest call.
func TestQueriesAreTheDearestStatementsOfTheTraces(t *testing.T) {
	one, err := trace.Parse(`
		"GET /cart" 0ms 100ms service=shop
		  q1 0ms 10ms db.system.name=postgresql db.namespace=shop|public db.query.text="select * from a where id = 1"
		  q1 10ms 40ms db.system.name=postgresql db.namespace=shop|public db.query.text="select * from a where id = 2"
		  q2 40ms 90ms db.system=postgresql db.statement="select 1"
		  q3 0ms 99ms db.system=mysql db.statement="select 2 from b"
		  q4 0ms 99ms db.system=postgresql db.statement="begin"
		  q5 0ms 1ms db.statement="update c set d = 1"
	`)
	if err != nil {
		t.Fatal(err)
	}
	list := Queries([]trace.Trace{one}, 10)
	if len(list) != 3 || list[0].Text != "select 1" || list[1].Text != "select * from a where id = 2" || list[1].Nanos != int64(40*time.Millisecond) || list[2].Text != "update c set d = 1" {
		t.Fatalf("%+v", list)
	}
	if !list[1].of("shop") || list[1].of("other") || !list[0].of("other") {
		t.Error("a statement is asked about at the database that the span names, or at all of them")
	}
	if got := Queries([]trace.Trace{one}, 1); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestSettingsAreCheckedAndShownWithoutSecrets names each fault with its place.
func TestSettingsAreCheckedAndShownWithoutSecrets(t *testing.T) {
	faulty := Config{
		Every: time.Second, Statements: 1000, Postgres: []PostgresConfig{{DSN: "port=x password=secret"}}, Redis: []RedisConfig{{Address: "nowhere"}}, Queues: []QueueConfig{{URL: "u:secret@"}},
		Profiles: []ProfilesConfig{{URL: "ftp://x", Kinds: []string{"dance"}}}, Metrics: []MetricsConfig{{}},
	}
	var paths []string
	for _, f := range setting.List(faulty.Validate()) {
		paths = append(paths, f.Error())
	}
	all := strings.Join(paths, "\n")
	for _, want := range []string{"every", "statements", "postgres[0].dsn", "redis[0].address", "queues[0].url", "profiles[0].url", "profiles[0].kinds[0]", "profiles[0].service", "metrics[0].urls", "metrics[0].service"} {
		if !strings.Contains(all, want) {
			t.Errorf("no fault of %s in\n%s", want, all)
		}
	}
	if strings.Contains(all, "secret") {
		t.Errorf("a secret is told: %s", all)
	}
	c := Config{
		Postgres: []PostgresConfig{{DSN: "postgres://me:secret@db:5433/shop"}}, Redis: []RedisConfig{{Address: "r:1", Password: "secret"}},
		Queues: []QueueConfig{{URL: "nats://me:secret@q:1, nats://me:secret@q:2"}}, Profiles: []ProfilesConfig{{URL: "http://me:secret@p/debug"}}, Metrics: []MetricsConfig{{URLs: []string{"http://me:secret@m/x"}}},
	}
	shown := fmt.Sprintf("%+v", c.WithoutSecrets())
	for _, want := range []string{"db:5433/shop", "nats://q:1,nats://q:2", "http://p/debug", "http://m/x"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s is not shown: %s", want, shown)
		}
	}
	if strings.Contains(shown, "secret") || c.Redis[0].Password != "secret" || !(Config{}).Empty() || c.Empty() {
		t.Errorf("%s", shown)
	}
}
