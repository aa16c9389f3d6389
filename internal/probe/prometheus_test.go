package probe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/systemtest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const prometheusConf = `
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - {job_name: shop/orders, static_configs: [{targets: ['%s'], labels: {cluster: eu}}]}
  - {job_name: prometheus, static_configs: [{targets: ['%s'], labels: {cluster: us}}]}
`

// recording is a real Prometheus that scrapes target, as service orders of the namespace shop, and itself.
func recording(t *testing.T, target string) string {
	t.Helper()
	path, dir, addr := systemtest.Program(t, "prometheus"), t.TempDir(), systemtest.FreeAddress(t)
	conf := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, prometheusConf, target, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, "--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--enable-feature=native-histograms")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s %v", text, err)
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	systemtest.Eventually(t, "Prometheus is ready", func() bool {
		resp, err := client.Get("http://" + addr + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return "http://" + addr
}

// shopMetrics is the page of a process that works: its runtime, a pool, and calls of a classic and of a native histogram.
func shopMetrics(t *testing.T) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_server_request_duration_seconds", Buckets: []float64{0.01, 0.1, 1}},
		[]string{"http_request_method", "http_route", "http_response_status_code"})
	native := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "grpc_server_handling_seconds", NativeHistogramBucketFactor: 1.1}, []string{"grpc_service", "grpc_method"})
	pool := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "db_client_connection_count"}, []string{"db_client_connection_pool_name", "db_client_connection_state"})
	most := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "db_client_connection_max"}, []string{"db_client_connection_pool_name"})
	pending := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "db_client_connection_pending_requests"}, []string{"db_client_connection_pool_name"})
	lag := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kafka_consumergroup_lag"}, []string{"consumergroup", "topic", "partition"})
	reg.MustRegister(calls, native, pool, most, pending, lag)
	pool.WithLabelValues("main", "used").Set(10)
	pool.WithLabelValues("main", "idle").Set(0)
	most.WithLabelValues("main").Set(10)
	pending.WithLabelValues("main").Set(4)
	lag.WithLabelValues("mailer", "orders", "0").Set(40)
	lag.WithLabelValues("mailer", "orders", "1").Set(2)
	page := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 10 { // of ten calls one is slow and fails
			took, status := 0.05, "200"
			if i == 0 {
				took, status = 0.5, "500"
			}
			calls.WithLabelValues("GET", "/orders", status).Observe(took)
			native.WithLabelValues("shop.Orders", "List").Observe(took)
		}
		page.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func prometheusReader(t *testing.T, c PrometheusConfig) *Prometheus {
	t.Helper()
	c.Timeout = time.Minute
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	p, err := NewPrometheus(c, client)
	if err != nil {
		t.Fatal(err)
	}
	p.guard.budget.MinInterval, p.least = 0, time.Second
	return p
}

// TestARealPrometheusTellsWhatItRecorded reads what a real server scraped from a real process, through a proxy that wants a token and
// lets no POST through, as some do.
func TestARealPrometheusTellsWhatItRecorded(t *testing.T) {
	server := recording(t, shopMetrics(t))
	target, _ := url.Parse(server)
	forward := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{}
	forward.Transport = transport
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer let-me-in" || r.Header.Get("X-Scope-OrgID") != "shop":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method != http.MethodGet:
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { front.Close(); transport.CloseIdleConnections() })
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("let-me-in\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prometheusReader(t, PrometheusConfig{URL: front.URL + "/", TokenFile: file, Headers: map[string]string{"X-Scope-OrgID": "shop"}})
	var facts evidence.Facts
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		now := time.Now()
		var err error
		facts, err = p.Over(t.Context(), now.Add(-5*time.Second), now, []string{"orders"})
		if err != nil {
			t.Fatal(err)
		}
		if complete(facts) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after a minute there is only %+v", facts)
		}
	}
	for _, r := range facts.Routes {
		if r.Failed < 0.05 || r.Failed > 0.2 || !strings.HasPrefix(r.Source, "sum by (") {
			if r.Route == "GET /orders" || !strings.HasPrefix(r.Source, "sum by (") {
				t.Errorf("%+v", r)
			}
		}
	}
	http, rpc := facts.Route("orders", "GET /orders"), facts.Route("orders", "shop.Orders/List")
	if http.P50 != 100*time.Millisecond || http.P99 != time.Second {
		t.Errorf("the classic histogram gives %+v", http)
	}
	if rpc.P50 < 50*time.Millisecond || rpc.P50 > 60*time.Millisecond || rpc.P99 < 500*time.Millisecond || rpc.P99 > 600*time.Millisecond {
		t.Errorf("the native histogram gives %+v", rpc)
	}
	if one := facts.Services[0]; one.Pools[0].Name != "main" || !one.Pools[0].Exhausted() || one.Pools[0].Max != 10 || !strings.HasPrefix(one.Source, `{job="shop/orders",instance="127.0.0.1:`) {
		t.Errorf("%+v", one)
	}
	if len(facts.Services) != 1 {
		t.Errorf("%d processes, want none but those of the services asked for", len(facts.Services))
	}
	if q := facts.Queue("orders"); q == nil || q.Pending != 42 || q.Consumer != "mailer" {
		t.Errorf("%+v", q)
	}
	t.Run("of one cluster only", func(t *testing.T) {
		p := prometheusReader(t, PrometheusConfig{URL: server, Match: map[string]string{"cluster": "us"}})
		facts, err := p.Over(t.Context(), time.Now().Add(-5*time.Second), time.Now(), nil)
		if err != nil || len(facts.Services) != 1 || facts.Services[0].Service != "prometheus" || len(facts.Queues) != 0 {
			t.Errorf("%+v, %v", facts.Services, err)
		}
	})
	t.Run("a query that the server refuses says why", func(t *testing.T) {
		p := prometheusReader(t, PrometheusConfig{URL: server})
		l := prometheusLook{Prometheus: p, to: time.Now()}
		_, err := l.query(t.Context(), "query", url.Values{"query": {"sum("}})
		said, ok := errors.AsType[*evidence.SeriesError](err)
		if !ok || said.Kind != "bad_data" || !errors.Is(err, ErrPrometheus) {
			t.Errorf("%v", err)
		}
	})
	t.Run("without the token", func(t *testing.T) {
		p := prometheusReader(t, PrometheusConfig{URL: front.URL})
		if _, err := p.Over(t.Context(), time.Now().Add(-time.Minute), time.Now(), nil); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%v", err)
		}
	})
}

// complete reports whether every kind of evidence is there.
func complete(f evidence.Facts) bool {
	if f.Route("orders", "GET /orders") == nil || f.Route("orders", "shop.Orders/List") == nil || len(f.Queues) == 0 || len(f.Services) == 0 {
		return false
	}
	r := f.Services[0].Runtime
	return len(f.Services[0].Pools) > 0 && r.CPU != nil && r.GCPause != nil && r.SchedP99 != nil && r.Procs != nil && r.Goroutines != nil
}

func TestAUserAndAPasswordAreSent(t *testing.T) {
	t.Setenv("LONGPOLE_PROMETHEUS_PASSWORD", "from the environment")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(" from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var user, password string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ = r.BasicAuth()
		w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
	}))
	t.Cleanup(s.Close)
	for _, c := range []struct {
		cfg            PrometheusConfig
		user, password string
	}{
		{PrometheusConfig{URL: s.URL, Username: "ann"}, "ann", "from the environment"},
		{PrometheusConfig{URL: s.URL, Username: "ann", PasswordFile: file}, "ann", "from a file"},
		{PrometheusConfig{URL: strings.Replace(s.URL, "//", "//bob:secret@", 1)}, "bob", "secret"},
		{PrometheusConfig{URL: s.URL}, "", ""},
	} {
		user, password = "", ""
		facts, err := prometheusReader(t, c.cfg).Over(t.Context(), time.Now(), time.Now(), nil)
		if err != nil || user != c.user || password != c.password {
			t.Errorf("%q %q, %v", user, password, err)
		}
		if !slices.ContainsFunc(facts.Gaps, func(g evidence.Gap) bool { return strings.HasPrefix(g.What, "processes") }) {
			t.Errorf("a server that has nothing leaves %+v", facts.Gaps)
		}
	}
}

func TestAPrometheusThatIsOverloadedIsLeftAlone(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"status":"error","errorType":"unavailable","error":"too many queries"}`))
	}))
	t.Cleanup(s.Close)
	p := prometheusReader(t, PrometheusConfig{URL: s.URL})
	var err error
	for range 10 {
		_, err = p.Over(t.Context(), time.Now(), time.Now(), nil)
	}
	if asked != patience || !errors.Is(err, ErrResting) {
		t.Errorf("it was asked %d times; %v", asked, err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, value := "vector", `"value":[1,"2"]`
		if strings.HasSuffix(r.URL.Path, "_range") {
			kind, value = "matrix", `"values":[[1,"2"]]`
		}
		var list []string
		for i := range 150 {
			list = append(list, fmt.Sprintf(`{"metric":{"__name__":"process_cpu_seconds_total","job":"j%d"},%s}`, i, value))
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":[%s]},"warnings":["a store is away"]}`, kind, strings.Join(list, ","))
	}))
	t.Cleanup(s.Close)
	facts, err := prometheusReader(t, PrometheusConfig{URL: s.URL, Series: 100}).Over(t.Context(), time.Now(), time.Now(), nil)
	if err != nil || len(facts.Services) != 100 {
		t.Errorf("%d services, %v", len(facts.Services), err)
	}
	var gaps []string
	for _, g := range facts.Gaps {
		gaps = append(gaps, g.Why)
	}
	if text := strings.Join(gaps, "; "); !strings.Contains(text, "50 more than 100") || !strings.Contains(text, "a store is away") {
		t.Error(text)
	}
	small := prometheusReader(t, PrometheusConfig{URL: s.URL})
	small.cfg.MaxSize = 1000
	if _, err := small.Over(t.Context(), time.Now(), time.Now(), nil); err == nil || !strings.Contains(err.Error(), "longer than 1000") {
		t.Errorf("%v", err)
	}
}

func TestServicesAreAskedForByTheirLabels(t *testing.T) {
	for _, c := range []struct {
		name     string
		cfg      PrometheusConfig
		services []string
		want     string
	}{
		{"all", PrometheusConfig{}, nil, `{__name__="up"}`},
		{"one label", PrometheusConfig{Service: "app", Match: map[string]string{"b": "2", "a": `1"`}}, []string{"cart", "a.b"}, `{__name__="up",a="1\"",b="2",app=~"a\\.b|cart"}`},
		{"a job may have a namespace", PrometheusConfig{Service: "job"}, []string{"cart"}, `{__name__="up",job=~"(.*/)?(cart)"}`},
		{"another name", PrometheusConfig{Service: "app", Services: map[string]string{"svc-7": "cart"}}, []string{"cart"}, `{__name__="up",app=~"cart|svc-7"}`},
	} {
		l := prometheusLook{Prometheus: &Prometheus{cfg: c.cfg}, naming: c.cfg.naming()}
		l.services = l.asLabelled(c.services)
		if got := l.each([]string{"up"}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTheCollectorAsksPrometheusAboutTheServicesOfTheTraces(t *testing.T) {
	queries := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case queries <- r.FormValue("query"):
		default:
		}
		kind, value := "vector", `"value":[1,"2"]`
		if strings.HasSuffix(r.URL.Path, "_range") {
			kind, value = "matrix", `"values":[[1,"2"]]`
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":[{"metric":{"__name__":"go_goroutines","job":"cart"},%s}]}}`, kind, value)
	}))
	t.Cleanup(s.Close)
	c, err := NewCollector(Config{Prometheus: []PrometheusConfig{{URL: s.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Services = func() []string { return []string{"cart"} }
	facts := c.Collect(context.Background(), 10*time.Millisecond, nil)
	<-queries
	if q := <-queries; !strings.Contains(q, `service_name="cart"`) || len(facts.Services) != 1 || *facts.Services[0].Runtime.Goroutines != 2 {
		t.Errorf("%s; %+v", q, facts.Services)
	}
	if st := c.Status(); len(st) != 1 || st[0].Kind != "prometheus" || st[0].Spent.Looks != 1 || st[0].Fault != "" {
		t.Errorf("%+v", st)
	}
}

func TestAFaultyURLDoesNotTellItsPassword(t *testing.T) {
	for _, url := range []string{
		"htp://ann:secret@host:9090", "ann:secret@host:9090", "//ann:secret@host", "http://ann:secret@host:port", "http://ann:secret@", "htp://ann:12,secret@host",
		"http://ann:secret@ho st",
	} {
		for kind, err := range map[string]error{
			"prometheus": PrometheusConfig{URL: url}.Validate(), "metrics": MetricsConfig{URLs: []string{url}}.Validate(), "profiles": ProfilesConfig{URL: url}.Validate(),
		} {
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s of %s: %v", kind, url, err)
			}
		}
	}
	if err := (PrometheusConfig{URL: "htp://host:9090"}).Validate(); err == nil || !strings.Contains(err.Error(), "url: htp://host:9090 is not allowed") {
		t.Errorf("%v", err)
	}
}
