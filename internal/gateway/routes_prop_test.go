package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/routing"
	"github.com/longpole/longpole/retry"
)

var (
	genText = rapid.SampledFrom([]string{
		"", "/", "/a", "/a/b", "/a/", "/{id}", "/a/{id}/{rest...}", "/{rest...}", "/{", "/a%2Fb", "/%zz", "/..", "/{request.path}", "https://{id}.h/{rest}", "//h",
		"https://h{request.path}?{request.query}", "{id}", "x", "a b", "{request.host}", "/x?y={id}", "\r\n", "{{", "h:80",
	})
	genWord = rapid.SampledFrom([]string{"", "X-A", "Host", "Connection", "x-request-priority", "id", "rest", "h", "*.h", "GET", "v1", "v2", "v3", "http", "https"})
)

// mostly draws what may be right, and seldom anything.
func mostly(t *rapid.T, label string, good ...string) string {
	if rapid.IntRange(0, 15).Draw(t, label+" is anything") == 0 {
		return rapid.OneOf(genText, genWord).Draw(t, label)
	}
	return rapid.SampledFrom(good).Draw(t, label)
}

func fields(t *rapid.T, label string) map[string]string {
	return map[string]string{mostly(t, label+" name", "X-A", "X-B"): mostly(t, label, "", "a", "{request.path}", "{{x}}", "{request.query}")}
}

var genRoute = rapid.Custom(func(t *rapid.T) Route {
	yes := func(label string) bool { return rapid.IntRange(0, 3).Draw(t, label) == 0 }
	r := Route{Upstream: mostly(t, "upstream", "v1", "v2")}
	switch rapid.IntRange(0, 3).Draw(t, "path") {
	case 0:
		r.Match.Path = mostly(t, "prefix", "/", "/a", "/a/", "")
	case 1:
		r.Match.Exact = mostly(t, "exact", "/a", "/a/b", "/a%2Fb")
	case 2:
		r.Match.Pattern = mostly(t, "pattern", "/a/{rest...}", "/{id}", "/a/{id}", "/{rest...}")
	}
	if yes("has host") {
		r.Match.Host = []string{mostly(t, "host", "h", "*.h")}
	}
	if yes("has header") {
		r.Match.Header = []routing.Condition{{Name: mostly(t, "field", "X-A", "host"), Prefix: genText.Draw(t, "prefix of the field")}}
	}
	if yes("has split") {
		r.Upstream = ""
		r.Split = []Version{{"v1", rapid.IntRange(0, 2).Draw(t, "weight")}, {mostly(t, "version", "v2"), rapid.IntRange(0, 2).Draw(t, "other weight")}}
		r.Sticky = &Key{Header: mostly(t, "sticky", "X-A")}
	}
	if yes("has redirect") {
		r.Upstream = ""
		r.Redirect = &routing.Redirect{To: mostly(t, "to", "/x", "/{request.path}", "https://{request.host}/y?{request.query}", "/{rest}", "https://{id}.h/"), Status: rapid.SampledFrom([]int{0, 301, 307}).Draw(t, "redirect status")}
	}
	if yes("has static") {
		r.Upstream = ""
		r.Static = &routing.Answer{Status: rapid.SampledFrom([]int{0, 404}).Draw(t, "status"), Header: fields(t, "static fields"), Body: mostly(t, "body", "", "x")}
	}
	if yes("has rewrite") {
		r.Rewrite = &routing.Rewrite{StripPrefix: mostly(t, "strip", "", "/a", "/a%2Fb"), AddPrefix: mostly(t, "add", "", "/v2", "/a b"), Host: mostly(t, "rewritten host", "", "h:80", "{request.host}"), SetQuery: fields(t, "query")}
	}
	if yes("has a path") {
		r.Rewrite = &routing.Rewrite{Path: mostly(t, "rewritten path", "/x", "/y{request.path}", "/{rest}", "/{id}.{id}")}
	}
	if yes("has fields") {
		r.RequestHeader = &routing.HeaderEdit{Set: fields(t, "set"), Remove: []string{mostly(t, "remove", "X-C")}}
	}
	if yes("has answer fields") {
		r.AnswerHeader = &routing.HeaderEdit{Add: fields(t, "add fields")}
	}
	if yes("has priority") {
		r.Priority = Priority{Header: mostly(t, "priority", "", "X-A"), Default: call.Priority(rapid.IntRange(-3, 2).Draw(t, "tier"))}
	}
	if yes("has tenant") {
		r.Tenant = &Tenant{Key: Key{ClientIP: true}}
	}
	if r.Upstream != "" || len(r.Split) > 0 {
		r.Policy.Retry = &retry.Config{Off: true} // pauses would take real time
	}
	return r
})

func TestWhatValidateAcceptsNewCompilesAndServes(t *testing.T) {
	accepted := 0
	upstreams := load(t, "upstreams: {v1: {endpoints: http://a:1}, v2: {endpoints: http://b:1/x%2Fy}}\nroutes: [{name: all, static: {}}]").Upstreams
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Upstreams: upstreams,
			Routes:    rapid.SliceOfN(genRoute, 1, 2).Draw(t, "routes"),
		}
		for i := range c.Routes {
			c.Routes[i].Name = string(rune('r' + i))
		}
		valid := c.Validate()
		g, err := New(c, Options{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }})
		if (valid == nil) != (err == nil) {
			t.Fatalf("Validate says %v, New says %v", valid, err)
		}
		if err != nil {
			return
		}
		accepted++
		for _, target := range []string{"/", "/a", "/a/b", "/a%2Fb", "/a//evil.h/%0d%0aX:y?q=%0a&id", "/a/x@y/z"} {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "http://h:80"+target, nil)
			w := httptest.NewRecorder()
			g.Handler().ServeHTTP(w, r)
			for name, values := range w.Header() {
				for _, v := range values {
					if strings.ContainsAny(v, "\r\n") {
						t.Fatalf("%s: field %s is %q", target, name, v)
					}
				}
			}
			if w.Code == http.StatusInternalServerError || strings.HasPrefix(w.Header().Get("Location"), "//") {
				t.Fatalf("%s: %d %v", target, w.Code, w.Header())
			}
		}
		for _, r := range g.table.Load().routes {
			r.live.close(nil)
		}
	})
	t.Logf("%d were accepted", accepted)
	if accepted == 0 {
		t.Error("nothing was accepted")
	}
}
