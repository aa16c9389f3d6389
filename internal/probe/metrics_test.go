package probe

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// TestTheRuntimeOfARealProcess: what client_golang shows with MetricsAll is understood by its names.
func TestTheRuntimeOfARealProcess(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, openMetrics := range []bool{false, true} {
		s := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: openMetrics}))
		m, err := NewMetrics(MetricsConfig{URLs: []string{s.URL}, Timeout: time.Minute}, s.Client())
		if err != nil {
			t.Fatal(err)
		}
		m.guard.budget.MinInterval = 0
		before, err := m.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		after, err := m.Look(t.Context())
		s.Close()
		if err != nil {
			t.Fatal(err)
		}
		out := evidence.RuntimeBetween(before, after)
		if out.GC == nil || out.GCRuns == nil || *out.GCRuns <= 0 || out.GCPause == nil || out.SchedP99 == nil || out.CPU == nil || out.MutexWait == nil || out.Files == nil ||
			out.Procs == nil || *out.Procs != float64(runtime.GOMAXPROCS(0)) || out.Goroutines == nil || out.Heap == nil || out.Restarted {
			t.Errorf("%+v", out)
		}
	}
}

func TestAPageThatFailsDoesNotTellItsPassword(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	m, err := NewMetrics(MetricsConfig{URLs: []string{strings.Replace(s.URL, "//", "//ann:secret@", 1)}, Timeout: time.Minute}, s.Client())
	if err != nil {
		t.Fatal(err)
	}
	look, err := m.Look(t.Context())
	if err == nil || !strings.Contains(err.Error(), "404") || strings.Contains(err.Error(), "secret") || len(look.Gaps) != 1 || strings.Contains(look.Gaps[0].What, "secret") {
		t.Errorf("%+v, %v", look.Gaps, err)
	}
}

func TestMetricsOfSeveralPagesAreOne(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/process":
			w.Write([]byte("# TYPE go_goroutines gauge\ngo_goroutines 12\nprocess_open_fds 90\nprocess_max_fds 100\n"))
		case "/host":
			w.Write([]byte("node_load1 3.5 1700000000000\ncontainer_memory_working_set_bytes{container=\"shop\"} 3\ncontainer_memory_working_set_bytes{container=\"other\"} 99\n" +
				"container_spec_memory_limit_bytes{container=\"shop\"} 4\n# EOF\n"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	m, err := NewMetrics(MetricsConfig{URLs: []string{s.URL + "/process", s.URL + "/host", s.URL + "/gone"}, Match: map[string]string{"container": "shop"}, Timeout: time.Minute}, s.Client())
	if err != nil {
		t.Fatal(err)
	}
	look, err := m.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := evidence.RuntimeBetween(evidence.RuntimeLook{}, look)
	if out.Goroutines == nil || *out.Goroutines != 12 || *out.Files != 0.9 || *out.Load != 3.5 || *out.Memory != 0.75 || !said(out.Gaps, "404") || !said(out.Gaps, "no earlier look") {
		t.Errorf("%+v", out)
	}
}
