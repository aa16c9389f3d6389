package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/slo/interop"
	"github.com/longpole/longpole/internal/systemtest"
	"github.com/longpole/longpole/internal/web"
)

// objectives are one of each kind, each on a route of its own.
func objectives() []slo.Objective {
	return []slo.Objective{
		{Name: "orders-there", Route: "orders", Target: 0.999},
		{Name: "things-fast", Route: "catalogue", Target: 0.999, Threshold: 250 * time.Millisecond, Period: slo.Period(28 * slo.Day)},
	}
}

// admin is the admin side of a real gateway. One in twenty calls of its route orders fails, which opens no breaker, and one in
// ten of its route catalogue is slow.
func admin(t *testing.T) (address string) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/orders/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/things/slow":
			time.Sleep(400 * time.Millisecond)
		}
	}))
	t.Cleanup(upstream.Close)
	cfg, err := gateway.Load("test", fmt.Appendf(nil, `
upstreams: {shop: {endpoints: [%s]}}
routes:
- {name: orders, match: {path: /orders}, upstream: shop}
- {name: catalogue, upstream: shop}
`, upstream.URL))
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(g.Handler())
	t.Cleanup(front.Close)
	side := httptest.NewServer(web.New(web.Options{
		Gateway: g, Rollouts: rollout.NewController(rollout.Options{Target: g}), Findings: func() web.Findings { return web.Findings{} },
		Dropped: func() map[string]uint64 { return nil }, Version: "test",
	}))
	t.Cleanup(side.Close)
	traffic(t, front)
	return strings.TrimPrefix(side.URL, "http://")
}

// traffic calls until the test ends.
func traffic(t *testing.T, front *httptest.Server) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for bad, good := range map[string]string{"/orders/broken": "/orders", "/things/slow": "/things"} {
		all.Go(func() {
			for n := 1; ; n++ {
				path := good
				if bad == "/orders/broken" && n%20 == 0 || bad == "/things/slow" && n%10 == 0 {
					path = bad
				}
				resp, err := front.Client().Get(front.URL + path)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		all.Wait()
	})
}

// server is a real Prometheus that scrapes target each second and evaluates the rules as often.
type server struct {
	*testing.T
	url  string
	left int // polls until patience ends, all queries together
}

func startPrometheus(t *testing.T, target string, rules []byte, h interop.Histograms) *server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
- {job_name: longpole, static_configs: [{targets: [%q]}]}
`, target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), rules, 0o600); err != nil {
		t.Fatal(err)
	}
	address := systemtest.FreeAddress(t)
	args := []string{"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address, "--log.level", "warn"}
	if h == interop.Native {
		args = append(args, "--enable-feature=native-histograms")
	}
	cmd := exec.Command(systemtest.Program(t, "prometheus"), args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("prometheus ended: %v\n%s", err, log.String())
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return &server{t, "http://" + address, 900}
}

// get reads JSON of the API; false while the server does not answer well.
func (s *server) get(path string, into any) bool {
	resp, err := http.Get(s.url + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into) == nil && resp.StatusCode == http.StatusOK
}

// query gives the first value of an instant query.
func (s *server) query(expr string) (value string, n int) {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if !s.get("/api/v1/query?query="+url.QueryEscape(expr), &answer) || len(answer.Data.Result) == 0 {
		return "", 0
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), len(answer.Data.Result)
}

// eventually waits for data that is no NaN: on a busy machine scrapes and rules may take their time.
func (s *server) eventually(expr string) float64 {
	s.Helper()
	value := "nothing"
	for ; s.left > 0; s.left-- {
		if got, n := s.query(expr); n > 0 {
			value = got
			if x, err := strconv.ParseFloat(got, 64); err == nil && x == x {
				return x
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Errorf("%s: %s for too long; want data", expr, value)
	return 0
}

// rules are the expressions of all rules that the server has loaded, and what is wrong with them.
func (s *server) rules() (expressions []string, faults string) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Query, Health, LastError string }
			}
		}
	}
	if !s.get("/api/v1/rules", &answer) {
		return nil, ""
	}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			expressions = append(expressions, r.Query)
			if r.Health == "err" {
				faults += r.Query + ": " + r.LastError + "\n"
			}
		}
	}
	return expressions, faults
}

var variables = strings.NewReplacer("$__rate_interval", "20s", "$route", ".*", "$slo", ".*")

// dashboardQueries are the expressions of all panels and of the variables.
func dashboardQueries(t *testing.T, h interop.Histograms) (all []string) {
	t.Helper()
	made, err := interop.Dashboards(objectives(), interop.DashboardOptions{Histograms: h, Selector: `job="longpole"`})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range made {
		for _, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(d.JSON, -1) {
			var expr string
			if err := json.Unmarshal(m[1], &expr); err != nil {
				t.Fatal(err)
			}
			all = append(all, variables.Replace(expr))
		}
	}
	return all
}

// TestEveryQueryHasDataInARealPrometheus scrapes a real gateway, with rules and dashboards for both forms of histogram.
func TestEveryQueryHasDataInARealPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two Prometheus servers")
	}
	target := admin(t)
	for _, h := range []interop.Histograms{interop.Classic, interop.Native} {
		t.Run(string(h), func(t *testing.T) {
			t.Parallel()
			rules, _, err := interop.Rules(objectives(), interop.RuleOptions{Histograms: h, Selector: `job="longpole"`})
			if err != nil {
				t.Fatal(err)
			}
			s := startPrometheus(t, target, rules, h)
			for _, severity := range []string{"page", "ticket"} { // so many calls are bad that all of them fire
				s.eventually(fmt.Sprintf(`count(ALERTS{alertname=%q,severity=%q,alertstate="firing"}) >= 2`, interop.Alert, severity))
			}
			expressions, faults := s.rules()
			if faults != "" || len(expressions) < 2*(1+8+14+1+2) {
				t.Errorf("%d rules; faults: %s", len(expressions), faults)
			}
			for _, expr := range append(expressions, dashboardQueries(t, h)...) {
				s.eventually(expr)
			}
			for name, most := range map[string]float64{"orders-there": 0.2, "things-fast": 1} { // what else is slow here nobody knows
				if bad := s.eventually(`longpole:slo_error:ratio_rate5m{slo="` + name + `"}`); bad < 0.02 || bad > most {
					t.Errorf("%s: %v of the calls are bad; want 0.02..%v", name, bad, most)
				}
			}
		})
	}
}

func TestTheBoundsAreThoseOfTheGateway(t *testing.T) {
	resp, err := http.Get("http://" + admin(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`longpole_endpoint_attempt_duration_seconds_bucket{[^}]*le="([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = true
	}
	for _, b := range interop.ClassicBounds() {
		if le := strconv.FormatFloat(b.Seconds(), 'f', -1, 64); !found[le] {
			t.Errorf("no bucket ends at %s", le)
		}
	}
	if len(found) != len(interop.ClassicBounds())+1 { // +Inf
		t.Errorf("the gateway has %v", found)
	}
}
