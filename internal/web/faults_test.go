package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
)

const (
	faultsPath  = "/api/v1/faults"
	smallFault  = `{"route": "orders", "name": "late", "share": "5%", "delay": "20ms", "ttl": "1m", "hypothesis": "nobody notices"}`
	secondFault = `{"route": "catalogue", "name": "late", "share": 1, "abort": 503, "ttl": "1m"}`
)

func TestFaultsAreStartedShownAndStopped(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	f.do(http.MethodGet, faultsPath, "").want(http.StatusOK, `{"faults":[]}`)
	made := f.do(http.MethodPost, faultsPath, smallFault).want(http.StatusCreated, `"route":"orders"`, `"hypothesis":"nobody notices"`)
	if at := made.header.Get("Location"); at != faultsPath+"/late" {
		t.Errorf("it is said to be at %q", at)
	}
	if got := made.json("config", "share"); got != 0.05 {
		t.Errorf("share %v", got)
	}
	f.do(http.MethodGet, faultsPath+"/late", "").want(http.StatusOK, `"name":"late"`)
	if got := f.do(http.MethodGet, "/api/v1/routes", "").json("routes", 0, "faults", 0, "name"); got != "late" {
		t.Errorf("the route shows %v", got)
	}
	ended := f.do(http.MethodDelete, faultsPath+"/late?reason=seen+enough", "").want(http.StatusOK)
	if got := ended.json("stopped"); got != "seen enough" {
		t.Errorf("stopped because of %q", got)
	}
	f.do(http.MethodGet, faultsPath, "").want(http.StatusOK, `"stopped":"seen enough"`)
}

func TestFaultsThatCannotBeAreRefused(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"no TTL", "POST", "", `{"route": "orders", "name": "a", "share": 1, "abort": 503}`, 400, "ttl"},
		{"too long a TTL", "POST", "", `{"route": "orders", "name": "a", "share": 1, "abort": 503, "ttl": "25h"}`, 400, "up to 24h"},
		{"no effect", "POST", "", `{"route": "orders", "name": "a", "share": 1, "ttl": "1m"}`, 400, "blackhole"},
		{"no route", "POST", "", `{"name": "a", "share": 1, "abort": 503, "ttl": "1m"}`, 400, "route"},
		{"an unknown route", "POST", "", `{"route": "order", "name": "a", "share": 1, "abort": 503, "ttl": "1m"}`, 404, "order"},
		{"an unknown field", "POST", "", `{"route": "orders", "nam": "a"}`, 400, "did you mean"},
		{"unknown to stop", "DELETE", "/never", "", 404, "never"},
		{"unknown to show", "GET", "/never", "", 404, "never"},
		{"a reason too long", "DELETE", "/never?reason=" + strings.Repeat("x", 1001), "", 400, "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := *f
			f.T = t
			f.do(c.method, faultsPath+c.path, c.body).want(c.status, c.text)
		})
	}
	f.do(http.MethodPost, faultsPath, smallFault).want(http.StatusCreated)
	f.do(http.MethodPost, faultsPath, secondFault).want(http.StatusConflict, "runs already")
}

func TestSecretsOfTheConfigurationAreNotShown(t *testing.T) {
	f := newFixture(t, `
redis: {password: s3cret-redis}
offload: {url: "nats://me:s3cret-nats@127.0.0.1:1"}
upstreams: {shop: {endpoints: http://127.0.0.1:1}}
routes: [{name: all, upstream: shop, request_header: {set: {authorization: Bearer s3cret-token, x-team: shop}}, policy: {cache: {shared: true}}}]
`, gateway.Options{})
	for _, path := range []string{"/api/v1/config", "/api/v1/config?format=yaml"} {
		a := f.do(http.MethodGet, path, "").want(http.StatusOK, "hidden", "shop")
		if strings.Contains(a.body, "s3cret") {
			t.Errorf("%s tells a secret: %s", path, a.body)
		}
	}
	if c := f.gateway.Config(); c.Redis.Password != "s3cret-redis" || c.Routes[0].RequestHeader.Set["authorization"] != "Bearer s3cret-token" {
		t.Error("what is hidden was taken away")
	}
}

func TestPromotedCandidatesAreInTheEffectiveConfiguration(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	candidate := hedged("orders").To
	candidate.Timeout = 1234e6
	if err := f.gateway.Stage("orders", candidate); err != nil {
		t.Fatal(err)
	}
	if got := f.do(http.MethodGet, "/api/v1/config", "").json("routes", 0, "policy", "timeout"); got == "1.234s" {
		t.Error("a candidate on trial is in the configuration")
	}
	if err := f.gateway.Promote("orders"); err != nil {
		t.Fatal(err)
	}
	if got := f.do(http.MethodGet, "/api/v1/config", "").json("routes", 0, "policy", "timeout"); got != "1.234s" {
		t.Errorf("timeout %v", got)
	}
}
