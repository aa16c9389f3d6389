package web_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/longpole/longpole/internal/gateway"
)

// everything is a gateway that runs, with all that has metrics turned on and used.
func everything(t *testing.T) *fixture {
	t.Helper()
	at := upstream(t)
	f := newFixture(t, fmt.Sprintf(`
listen: 127.0.0.1:0
offload: {dir: %q, sync_interval: 1s}
redis: {addresses: "127.0.0.1:1"}
record: {files: {dir: %q}, share: 1}
upstreams:
  shop: {endpoints: [%s]}
  next: {endpoints: [%s]}
  found: {discover: {file: {path: /nowhere/endpoints.yaml}}}
routes:
- {name: later, match: {path: /later}, upstream: shop, offload: {}}
- {name: two, match: {path: /two}, split: [{upstream: shop, weight: 3}, {upstream: next, weight: 1}]}
- {name: found, match: {path: /found}, upstream: found}
- name: all
  upstream: shop
  mirror: {upstream: next, share: 1}
  payload: {compress: {}}
  faults: [{name: late, share: 1, ttl: 1h, delay: 1ms}]
  policy: {cache: {shared: true}}
`, t.TempDir(), t.TempDir(), at, at), gateway.Options{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.gateway.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-f.gateway.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	base := "http://" + f.gateway.Addr().String()
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	for _, one := range []struct{ method, path, body string }{
		{"GET", "/a", ""}, {"GET", "/b", ""}, {"POST", "/two", "twelve bytes"}, {"POST", "/two", "twelve bytes"}, {"POST", "/later", "work"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), one.method, base+one.path, strings.NewReader(one.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	f.do(http.MethodPost, rolloutsPath, `{"route": "all", "to": {}}`).want(http.StatusCreated)
	return f
}

// bounded are the labels whose values come from the configuration, from a fixed set, or, as with faults, rollouts and
// discovered endpoints, in numbers that are bounded where they are made. Nothing that a client sends is among them.
var bounded = []string{
	"cache", "claim", "class", "endpoint", "fault", "file", "listener", "le", "metric", "name", "of", "phase", "priority", "queue", "reason",
	"result", "rollout", "route", "state", "status", "upstream", "version",
}

func TestAllMetricsFollowTheConventions(t *testing.T) {
	a := everything(t).do(http.MethodGet, "/metrics", "").want(http.StatusOK)
	faults, err := promlint.New(strings.NewReader(a.body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Errorf("%s: %s", f.Metric, f.Text)
	}
	label := regexp.MustCompile(`[{,]([a-z_]+)="`)
	for line := range strings.Lines(a.body) {
		head, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if head == "#" {
			kind, rest, _ := strings.Cut(rest, " ")
			name, help, _ := strings.Cut(rest, " ")
			if kind == "HELP" && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				checkName(t, name, help)
			}
			continue
		}
		if !strings.HasPrefix(head, "longpole_") {
			continue
		}
		for _, l := range label.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(bounded, l[1]) {
				t.Errorf("%s: is the label %s bounded?", head, l[1])
			}
		}
	}
}

func checkName(t *testing.T, name, help string) {
	t.Helper()
	if !regexp.MustCompile(`^longpole_[a-z0-9_]+$`).MatchString(name) {
		t.Errorf("%s: want longpole_ and small letters", name)
	}
	if !strings.HasSuffix(help, ".") || len(help) < 10 {
		t.Errorf("%s: %q is no sentence", name, help)
	}
	for _, bad := range []string{"millis", "_ms", "_kb", "_mb", "minutes", "hours", "percent"} {
		if strings.Contains(name, bad) {
			t.Errorf("%s: %s is no base unit", name, bad)
		}
	}
}

func TestWhatStandsBesideARouteIsCounted(t *testing.T) {
	a := everything(t).do(http.MethodGet, "/metrics", "").want(http.StatusOK,
		`longpole_offload_accepted_total{queue="later"} 1`,
		`longpole_offload_jobs{queue="later",state="dead"} 0`,
		`longpole_offload_oldest_job_age_seconds{queue="later"} `,
		`longpole_offload_store_reachable{queue="later"} 1`,
		`longpole_split_weight{route="two",upstream="shop"} 3`,
		`longpole_split_calls_total{route="two",upstream="next"} `,
		`longpole_faults_running{route="all"} 1`,
		`longpole_faults_running{route="two"} 0`,
		`longpole_fault_hits_total{fault="late",route="all"} 2`,
		`longpole_mirror_sent_total{route="all",upstream="next"} `,
		`longpole_mirror_dropped_total{reason="full",route="all",upstream="next"} 0`,
		`longpole_recorded_total `,
		`longpole_recording_dropped_total{reason="lag"} 0`,
		`longpole_payload_encoded_total{route="all"} 0`,
		`longpole_cache_tier_requests_total{result="found"} 0`,
		`longpole_connections{listener="127.0.0.1:0"} 1`,
		`longpole_connections_limit{listener="127.0.0.1:0"} 10000`,
		`longpole_connections_accepted_total{listener="127.0.0.1:0"} 1`,
		`longpole_tunnels 0`,
		`longpole_discovery_last_good_timestamp_seconds{upstream="found"} 0`,
		`longpole_upstream_endpoints{upstream="shop"} 1`,
		`longpole_request_body_bytes_bucket{route="all",le="0"} 2`,
		`longpole_request_body_bytes_bucket{route="two",le="0"} 0`,
		`longpole_request_body_bytes_bucket{route="two",le="64"} 2`,
		`longpole_request_body_bytes_sum{route="two"} 24`,
		`longpole_response_body_bytes_bucket{route="all",le="64"} 2`,
		`longpole_response_body_bytes_sum{route="all"} 4`)
	failed := regexp.MustCompile(`longpole_cache_tier_requests_total\{result="(failed|skipped)"\} (\d+)`).FindAllStringSubmatch(a.body, -1)
	sum := 0
	for _, m := range failed {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum < 2 {
		t.Errorf("a Redis that is not there was missed %d times", sum)
	}
}

func TestWhatIsOffHasNoSeries(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "")
	for _, name := range []string{"longpole_offload_", "longpole_mirror_", "longpole_cache_tier_", "longpole_split_", "longpole_fault_", "longpole_payload_"} {
		if strings.Contains(a.body, "\n"+name) {
			t.Errorf("%s is there", name)
		}
	}
}
