package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
)

func TestOtherSitesMayChangeNothing(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	const body = `{"route": "orders", "to": {}}`
	for _, c := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		{"another port of the same site", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:8080"}, 403},
		{"an old browser", []string{"Origin", "http://evil.example"}, 403},
		{"a sandboxed frame", []string{"Origin", "null"}, 403},
		{"the page itself", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:9901"}, 201},
		{"no browser", nil, 409},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.do(http.MethodPost, rolloutsPath, body, c.headers...).want(c.status)
			if a.status == 403 {
				a.want(403, `"error"`)
			}
			if got := a.header.Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("Access-Control-Allow-Origin %q", got)
			}
		})
	}
}

func TestNamesAsHostAreRefusedWithoutToken(t *testing.T) {
	hosts := []struct {
		host string
		ok   bool
	}{
		{"127.0.0.1:9901", true},
		{"127.0.0.1", true},
		{"localhost:9901", true},
		{"LOCALHOST", true},
		{"[::1]:9901", true},
		{"[::1]", true},
		{"192.0.2.7:9901", true},
		{"[fe80::1%25eth0]:9901", true},
		{"evil.example:9901", false},
		{"localhost.evil.example", false},
		{"127.0.0.1.evil.example", false},
		{"", false},
		{"[evil.example]", false},
	}
	open := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	guarded := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.token = "s3cret" })
	for _, h := range hosts {
		want := http.StatusMisdirectedRequest
		if h.ok {
			want = http.StatusOK
		}
		for _, path := range []string{"/", "/api/v1/routes", "/metrics", "/readyz"} {
			if a := open.do(http.MethodGet, path, "", "Host", h.host); a.status != want {
				t.Errorf("Host %q, %s: %d, want %d", h.host, path, a.status, want)
			}
		}
		if a := guarded.do(http.MethodGet, "/api/v1/routes", "", "Host", h.host, "Authorization", "Bearer s3cret"); a.status != http.StatusOK {
			t.Errorf("Host %q with a token: %d", h.host, a.status)
		}
	}
}

func TestTokenGuardsAllButHealth(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{}, func(f *fixture) { f.token = "s3cret" })
	for _, path := range []string{"/", "/page.js", "/api/v1/routes", "/api/v1/findings", "/api/v1/rollouts", "/metrics"} {
		for _, c := range []struct {
			name, auth string
			status     int
		}{
			{"none", "", 401},
			{"wrong bearer", "Bearer nope", 401},
			{"bearer alone", "Bearer", 401},
			{"wrong basic", "Basic YWRtaW46bm9wZQ==", 401}, // admin:nope
			{"token as user", "Basic czNjcmV0Og==", 401},   // s3cret:
			{"other scheme", "Digest s3cret", 401},
			{"bearer", "Bearer s3cret", 200},
			{"bearer in lower case", "bearer s3cret", 200},
			{"basic", "Basic YWRtaW46czNjcmV0", 200}, // admin:s3cret
		} {
			var headers []string
			if c.auth != "" {
				headers = []string{"Authorization", c.auth}
			}
			a := f.do(http.MethodGet, path, "", headers...)
			if a.status != c.status {
				t.Errorf("%s, %s: %d, want %d", path, c.name, a.status, c.status)
			}
			if a.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s, %s: a browser is not asked for the token", path, c.name)
			}
		}
	}
	f.do(http.MethodPost, rolloutsPath, `{"route": "orders", "to": {}}`).want(401, "token")
	f.do(http.MethodGet, "/livez", "").want(200, "ok")
	f.do(http.MethodGet, "/readyz", "").want(200, "ok")
}

func TestEveryAnswerCarriesTheSafetyHeaders(t *testing.T) {
	f := newFixture(t, twoRoutes("http://127.0.0.1:1"), gateway.Options{})
	for _, path := range []string{"/", "/style.css", "/page.js", "/icon.svg", "/api/v1/routes", "/api/v1/nothing", "/metrics", "/livez"} {
		h := f.do(http.MethodGet, path, "").header
		for name, part := range map[string]string{
			"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if !strings.Contains(h.Get(name), part) {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: unsafe sources are allowed", path)
		}
	}
	if got := f.do(http.MethodGet, "/page.js", "").header.Get("Content-Type"); !strings.HasPrefix(got, "text/javascript") {
		t.Errorf("page.js is %q, which browsers refuse as a module", got)
	}
}
