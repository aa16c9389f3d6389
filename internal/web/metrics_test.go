package web_test

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/longpole/longpole/internal/gateway"
)

// scraped is a fixture with calls on both routes and a rollout under way.
func scraped(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{})
	f.call("/orders", 30)
	f.call("/things", 12)
	f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {}}`).want(http.StatusCreated)
	return f
}

func TestMetricsPassTheLinter(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "").want(http.StatusOK)
	faults, err := promlint.New(strings.NewReader(a.body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Errorf("%s: %s", f.Metric, f.Text)
	}
}

func TestMetricsSayWhatWasCounted(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "").want(http.StatusOK,
		`longpole_build_info{version="v1.2.3"} 1`,
		`longpole_calls_total{class="ok",route="orders"} 30`,
		`longpole_calls_total{class="timeout",route="orders"} 0`,
		`longpole_attempts_total{route="catalogue"} 12`,
		`longpole_retries_total{route="orders"} 0`,
		`longpole_hedges_total{route="orders"} 0`,
		`longpole_call_duration_seconds_count{cache="uncached",route="orders"} 30`,
		`longpole_call_duration_seconds_bucket{cache="uncached",route="orders",le="+Inf"} 30`,
		`longpole_rollout_phase_info{phase="pending",rollout="r1",route="orders"} 1`,
		`longpole_rollouts_remembered{phase="pending"} 1`,
		`longpole_rollouts_remembered{phase="promoted"} 0`,
		`longpole_spans_dropped_total{reason="queue_full"} 3`,
		`,upstream="shop"} 42`)
	for _, once := range []string{"longpole_endpoint_healthy{", "longpole_endpoint_in_flight{", "longpole_endpoint_attempt_duration_seconds_count{"} {
		if n := strings.Count(a.body, once); n != 1 {
			t.Errorf("%d series of %s for one endpoint behind two routes", n, once)
		}
	}
	if n := strings.Count(a.body, "\nlongpole_breaker_open{"); n != 2 {
		t.Errorf("%d breakers for one endpoint behind two routes", n)
	}
}

func TestALabelThatCannotBeShownCostsItsSeriesOnly(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.version = "v\xff" })
	a := f.do(http.MethodGet, "/metrics", "").want(http.StatusOK, `longpole_calls_total{class="ok",route="orders"} 0`)
	if strings.Contains(a.body, "longpole_build_info{") {
		t.Error("a label that is no UTF-8 was written")
	}
}

func TestNoSeriesIsThereTwice(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "")
	seen := map[string]bool{}
	for line := range strings.Lines(a.body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "} ")
		if seen[name] {
			t.Errorf("twice: %s", name)
		}
		seen[name] = true
	}
}

func TestMetricsAsOpenMetrics(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0")
	a.want(http.StatusOK, "# TYPE longpole_calls counter\n", "longpole_calls_total{", "# TYPE longpole_call_duration_seconds histogram\n", `le="+Inf"`)
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("content type %q", got)
	}
	if !strings.HasSuffix(a.body, "# EOF\n") {
		t.Error("the answer does not end with # EOF")
	}
}

func TestNativeAndClassicHistogramsAgree(t *testing.T) {
	a := scraped(t).do(http.MethodGet, "/metrics", "", "Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	a.want(http.StatusOK)
	checked := 0
	for r := bufio.NewReader(strings.NewReader(a.body)); ; {
		var family dto.MetricFamily
		if err := protodelim.UnmarshalFrom(r, &family); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(family.GetName(), "longpole_") || !strings.HasSuffix(family.GetName(), "_seconds") || family.GetType() != dto.MetricType_HISTOGRAM {
			continue
		}
		for _, m := range family.GetMetric() {
			checkHistogram(t, family.GetName(), m)
			checked++
		}
	}
	if checked != 3 { // two routes, one endpoint
		t.Errorf("%d histograms, want 3", checked)
	}
}

func checkHistogram(t *testing.T, name string, m *dto.Metric) {
	t.Helper()
	for i := 1; i < len(m.GetLabel()); i++ {
		if m.GetLabel()[i-1].GetName() >= m.GetLabel()[i].GetName() {
			t.Errorf("%s: labels out of order: %v", name, m.GetLabel())
		}
	}
	h := m.GetHistogram()
	buckets := native(t, name, h)
	total := h.GetZeroCount()
	for _, n := range buckets {
		total += uint64(n)
	}
	if total != h.GetSampleCount() {
		t.Errorf("%s: native buckets hold %d of %d", name, total, h.GetSampleCount())
	}
	before := uint64(0)
	for _, b := range h.GetBucket() {
		below, wider := h.GetZeroCount(), h.GetZeroCount()
		for i, n := range buckets {
			upper := math.Exp2(float64(i) / 64)
			if upper <= b.GetUpperBound() {
				below += uint64(n)
			}
			if upper <= b.GetUpperBound()*1.011 {
				wider += uint64(n)
			}
		}
		if got := b.GetCumulativeCount(); got < before || got < below || got > wider {
			t.Errorf("%s: %d up to %g, native buckets say %d..%d", name, got, b.GetUpperBound(), below, wider)
		}
		before = b.GetCumulativeCount()
	}
}

// native reads the sparse form: counts by bucket index.
func native(t *testing.T, name string, h *dto.Histogram) map[int]int64 {
	t.Helper()
	if h.GetSchema() != 6 || h.GetZeroThreshold() <= 0 {
		t.Errorf("%s: schema %d, zero threshold %g", name, h.GetSchema(), h.GetZeroThreshold())
	}
	buckets := map[int]int64{}
	index, n, deltas := 0, int64(0), h.GetPositiveDelta()
	for _, s := range h.GetPositiveSpan() {
		index += int(s.GetOffset())
		for range s.GetLength() {
			if len(deltas) == 0 {
				t.Fatalf("%s: more buckets than counts", name)
			}
			n, deltas = n+deltas[0], deltas[1:]
			if n < 0 {
				t.Errorf("%s: bucket %d holds %d", name, index, n)
			}
			buckets[index] = n
			index++
		}
	}
	if len(deltas) != 0 {
		t.Errorf("%s: %d counts without a bucket", name, len(deltas))
	}
	return buckets
}
