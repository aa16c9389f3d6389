package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/probe"
	"github.com/longpole/longpole/internal/web"
)

// TestSourcesOfEvidenceAreNamed: in the text for probes without the reason, in the API with it, and as metrics.
func TestSourcesOfEvidenceAreNamed(t *testing.T) {
	const fault = "no route to the host of the database"
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) {
		f.live = web.Live{Sources: func() []probe.Status {
			return []probe.Status{
				{Kind: "redis", Name: "cache:6379", At: time.Unix(1, 0), Spent: probe.Spent{Looks: 7}},
				{Kind: "postgres", Name: "db:5432/shop", Fault: fault, Spent: probe.Spent{Looks: 3, Refused: 2, Overloads: 1}},
				{Kind: "postgres", Name: "db:5432/shop"},
				{Kind: "queue", Name: "nats://q"},
			}
		}}
	})
	ready := f.do(http.MethodGet, "/readyz?verbose", "").body
	for _, want := range []string{"evidence from redis cache:6379: read", "evidence from postgres db:5432/shop: degraded", "evidence from queue nats://q: not yet read"} {
		if !strings.Contains(ready, want) {
			t.Errorf("%q is not in\n%s", want, ready)
		}
	}
	if strings.Contains(ready, fault) {
		t.Error("a probe without a token learns why")
	}
	if a := f.do(http.MethodGet, "/api/v1/evidence", ""); a.status != http.StatusOK || !strings.Contains(a.body, fault) {
		t.Errorf("%d %s", a.status, a.body)
	}
	metrics := f.do(http.MethodGet, "/metrics", "").body
	for _, want := range []string{
		`longpole_evidence_source_up{kind="redis",source="cache:6379"} 1`, `longpole_evidence_source_up{kind="postgres",source="db:5432/shop"} 0`,
		`longpole_evidence_looks_total{kind="redis",source="cache:6379"} 7`, `longpole_evidence_looks_refused_total{kind="postgres",source="db:5432/shop"} 2`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
}
