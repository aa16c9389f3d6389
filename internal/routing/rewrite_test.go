package routing

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/setting"
)

func TestRewritesChangeTheTargetAndNothingElse(t *testing.T) {
	tests := []struct {
		name    string
		r       Rewrite
		pattern string
		from    string // path?query, in the form of a URL
		want    string // "" = refused
	}{
		{"nothing", Rewrite{}, "", "/a%2Fb?x=1&x=%20", "h/a%2Fb?x=1&x=%20"},
		{"strip", Rewrite{StripPrefix: "/api"}, "", "/api/a%2Fb//c", "h/a%2Fb//c"},
		{"strip of an encoded prefix", Rewrite{StripPrefix: "/caf\u00e9"}, "", "/caf%c3%A9/x%20y", "h/x%20y"},
		{"strip at the end of a segment only", Rewrite{StripPrefix: "/api"}, "", "/apis", "h/apis"},
		{"an encoded slash ends no segment", Rewrite{StripPrefix: "/api"}, "", "/api%2Fx", "h/api%2Fx"},
		{"strip all", Rewrite{StripPrefix: "/api"}, "", "/api", "h/"},
		{"strip keeps the last slash", Rewrite{StripPrefix: "/api/"}, "", "/api/", "h/"},
		{"add", Rewrite{AddPrefix: "/v 2"}, "", "/x", "h/v%202/x"},
		{"replace", Rewrite{StripPrefix: "/api", AddPrefix: "/v2"}, "", "/api/x", "h/v2/x"},
		{"replace all", Rewrite{StripPrefix: "/api", AddPrefix: "/v2"}, "", "/api", "h/v2"},
		{"replace keeps the last slash", Rewrite{StripPrefix: "/api", AddPrefix: "/v2"}, "", "/api/", "h/v2/"},
		{"template", Rewrite{Path: "/o/{rest}/of/{id}"}, "/u/{id}/{rest...}", "/u/a%2Fb%3F/c/d%25", "h/o/c/d%25/of/a%2Fb%3F"},
		{"braces", Rewrite{Path: "/{{{id}}}"}, "/{id}", "/7", "h/%7B7%7D"},
		{"the path itself", Rewrite{Path: "/old{request.path}"}, "", "/a%2Fb", "h/old/a%2Fb"},
		{"no dot segment comes to be", Rewrite{Path: "/a/.{id}"}, "/{id}", "/.", ""},
		{"not even an encoded one", Rewrite{Path: "/a/.{id}"}, "/{id}", "/.%2Fb", ""},
		{"host", Rewrite{Host: "{t}.internal:80"}, "/{t}", "/acme", "acme.internal:80/acme"},
		{"a host is a host", Rewrite{Host: "{t}"}, "/{t}", "/a%2Fb", ""},
		{"query", Rewrite{SetQuery: map[string]string{"id": "{id}&", "z": "1"}, RemoveQuery: []string{"b"}}, "/{id}", "/x%26y?a=%41&id=0&b=1&%62=2&c", "h/x%26y?a=%41&c&id=x%26y%26&z=1"},
		{"all of the query goes", Rewrite{RemoveQuery: []string{"b"}}, "", "/?b", "h/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Match{Pattern: tt.pattern}
			table, err := NewTable([]Match{m})
			if err != nil {
				t.Fatal(err)
			}
			w, err := tt.r.Compile(m.Names())
			if err != nil {
				t.Fatal(err)
			}
			path, query, _ := strings.Cut(tt.from, "?")
			v := &Values{Host: "h", Path: path, Query: query, Captures: table.Captures(0, Canonical(path))}
			target := Target{Host: "h", Path: path, Query: query}
			ok := w.Apply(&target, v)
			got := target.Host + target.Path
			if target.Query != "" {
				got += "?" + target.Query
			}
			if ok != (tt.want != "") || ok && got != tt.want {
				t.Errorf("got %q %v, want %q", got, ok, tt.want)
			}
		})
	}
}

func TestRedirectsLeadWhereTheyShould(t *testing.T) {
	tests := []struct {
		name    string
		r       Redirect
		pattern string
		host    string
		from    string
		want    string // "" = nowhere
	}{
		{"to https", Redirect{HTTPS: true}, "", "a.b", "/x%2Fy?q=1", "https://a.b/x%2Fy?q=1"},
		{"to https over IPv6", Redirect{HTTPS: true}, "", "::1", "/", "https://[::1]/"},
		{"to https without a host", Redirect{HTTPS: true}, "", "", "/", ""},
		{"to https with a strange host", Redirect{HTTPS: true}, "", "a;b", "/", ""},
		{"path", Redirect{To: "/new/{id}"}, "/old/{id}", "h", "/old/a%2Fb?q", "/new/a%2Fb?q"},
		{"own query", Redirect{To: "/new?from={request.path}&id={id}"}, "/old/{id}", "h", "/old/a%26b?q", "/new?from=%2Fold%2Fa%2526b&id=a%26b"},
		{"no query", Redirect{To: "/new?"}, "", "h", "/old?q", "/new"},
		{"query as it is", Redirect{To: "/s?{request.query}"}, "", "h", "/old?a=%20&b", "/s?a=%20&b"},
		{"never another host by two slashes", Redirect{To: "/{rest}"}, "/out/{rest...}", "h", "/out//evil.example", "/evil.example"},
		{"nor by a backslash", Redirect{To: "/{rest}"}, "/out/{rest...}", "h", "/out/%5Cevil.example", "/%5Cevil.example"},
		{"nor by a line", Redirect{To: "/{rest}"}, "/out/{rest...}", "h", "/out/a%0d%0aSet-Cookie:x", "/a%0D%0ASet-Cookie:x"},
		{"host by capture", Redirect{To: "https://{t}.example.com{request.path}"}, "/{t}", "h", "/acme", "https://acme.example.com/acme"},
		{"a capture ends no host", Redirect{To: "https://{t}.example.com/"}, "/{t}", "h", "/evil.org%2F", ""},
		{"nor is it a user", Redirect{To: "https://{t}.example.com/"}, "/{t}", "h", "/a@evil.org", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Match{Pattern: tt.pattern}
			table, err := NewTable([]Match{m})
			if err != nil {
				t.Fatal(err)
			}
			d, err := tt.r.Compile(m.Names())
			if err != nil {
				t.Fatal(err)
			}
			path, query, _ := strings.Cut(tt.from, "?")
			got, ok := d.Location(&Values{Host: tt.host, Path: path, Query: query, Captures: table.Captures(0, Canonical(path))})
			if got != tt.want || ok != (tt.want != "") || d.Status != 308 {
				t.Errorf("got %q %v %d, want %q", got, ok, d.Status, tt.want)
			}
		})
	}
}

func TestHeaderEditsLeaveSharedValuesAlone(t *testing.T) {
	e, err := HeaderEdit{
		Set:    map[string]string{"x-user": "{id}", "x-const": "1"},
		Add:    map[string]string{"via-host": "{request.host}", "x-const": "2"},
		Remove: []string{"server", "x-user"},
	}.Compile([]string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	shared := make([]string, 1, 4)
	shared[0] = "a"
	h := map[string][]string{"Server": {"s"}, "X-User": {"forged"}, "Via-Host": shared, "Other": {"o"}}
	e.Apply(h, &Values{Host: "h", Captures: []string{"a b\r\nc%2F"}})
	want := map[string][]string{"X-User": {"a%20b%0D%0Ac%2F"}, "X-Const": {"1", "2"}, "Via-Host": {"a", "h"}, "Other": {"o"}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
	if shared[:2][1] != "" {
		t.Error("a shared list was written to")
	}
	again := map[string][]string{}
	e.Apply(again, &Values{Host: "bad\nhost", Captures: []string{"x"}})
	if !slices.Equal(again["X-Const"], []string{"1", "2"}) || again["Via-Host"] != nil {
		t.Errorf("got %v", again)
	}
}

func TestFaultyActionsAreRefusedWithTheirPlace(t *testing.T) {
	names := []string{"id"}
	compile := map[string]func() error{
		"strip_prefix": func() error { _, err := Rewrite{StripPrefix: "api"}.Compile(names); return err },
		"add_prefix":   func() error { _, err := Rewrite{AddPrefix: "/v2/"}.Compile(names); return err },
		"path":         func() error { _, err := Rewrite{Path: "/{other}"}.Compile(names); return err },
		"path ":        func() error { _, err := Rewrite{Path: "/a/../b"}.Compile(names); return err },
		"path  ":       func() error { _, err := Rewrite{Path: "/a", AddPrefix: "/b"}.Compile(names); return err },
		"path   ":      func() error { _, err := Rewrite{Path: "/a}"}.Compile(names); return err },
		"host":         func() error { _, err := Rewrite{Host: "a/b"}.Compile(names); return err },
		"set_query.a":  func() error { _, err := Rewrite{SetQuery: map[string]string{"a": "{"}}.Compile(names); return err },
		"set_query.b": func() error {
			_, err := Rewrite{SetQuery: map[string]string{"b": ""}, RemoveQuery: []string{"b"}}.Compile(names)
			return err
		},
		"set.Connection": func() error {
			_, err := HeaderEdit{Set: map[string]string{"Connection": "x"}}.Compile(names)
			return err
		},
		"add.te":            func() error { _, err := HeaderEdit{Add: map[string]string{"te": "x"}}.Compile(names); return err },
		"remove[0]":         func() error { _, err := HeaderEdit{Remove: []string{"content-length"}}.Compile(names); return err },
		"remove[0] ":        func() error { _, err := HeaderEdit{Remove: []string{":path"}}.Compile(names); return err },
		"set.a":             func() error { _, err := HeaderEdit{Set: map[string]string{"a": "x\ny"}}.Compile(names); return err },
		"to":                func() error { _, err := Redirect{}.Compile(names); return err },
		"to ":               func() error { _, err := Redirect{To: "/a", HTTPS: true}.Compile(names); return err },
		"to  ":              func() error { _, err := Redirect{To: "//evil"}.Compile(names); return err },
		"to   ":             func() error { _, err := Redirect{To: "ftp://a"}.Compile(names); return err },
		"to    ":            func() error { _, err := Redirect{To: "https:///a"}.Compile(names); return err },
		"status":            func() error { _, err := Redirect{To: "/a", Status: 200}.Compile(names); return err },
		"status ":           func() error { return Answer{Status: 100}.Validate() },
		"body":              func() error { return Answer{Body: strings.Repeat("x", 64<<10+1)}.Validate() },
		"body ":             func() error { return Answer{Status: 204, Body: "x"}.Validate() },
		"header.Host":       func() error { return Answer{Header: map[string]string{"Host": "x"}}.Validate() },
		"header.Set-Cookie": func() error { return Answer{Header: map[string]string{"Set-Cookie": "a\r\nb"}}.Validate() },
	}
	for path, f := range compile {
		err := f()
		if !slices.ContainsFunc(setting.List(err), func(e error) bool { return strings.HasPrefix(e.Error(), strings.TrimSpace(path)+":") }) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAnswersHaveFieldsOfTheirOwn(t *testing.T) {
	a := Answer{Header: map[string]string{"x-a": "1"}, Body: "b"}.WithDefaults()
	one := a.Fields()
	one["X-A"][0] = "2"
	if d := cmp.Diff(map[string][]string{"X-A": {"1"}, "Content-Type": {"text/plain; charset=utf-8"}}, a.Fields()); d != "" || a.Status != 200 {
		t.Error(d, a.Status)
	}
}

func TestHostOfIsTheHostAlone(t *testing.T) {
	for authority, want := range map[string]string{
		"a.B:80": "a.b", "a": "a", "": "", "[::1]:80": "::1", "[::1]": "::1", "::1": "::1", ":80": "", "a.": "a", "a.:80": "a", "[": "[",
	} {
		if got := HostOf(authority); got != want {
			t.Errorf("%q is %q, want %q", authority, got, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("/o/{id}{{}}{request.path}", "https://{id}.x/{request.path}?a={id}", "a%2F\r\nb", "/x?y")
	f.Add("/{id}/..", "/{id}", "//evil", "/")
	f.Fuzz(func(t *testing.T, path, to, capture, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.EscapedPath(), "/") || climbs(u.EscapedPath()) {
			return
		}
		v := &Values{Captures: []string{Canonical(url.PathEscape(capture))}, Host: "h", Method: "GET", Scheme: "http", Path: u.EscapedPath(), Query: u.RawQuery}
		if w, err := (Rewrite{Path: path, SetQuery: map[string]string{"q": to}}).Compile([]string{"id"}); err == nil {
			target := Target{Host: "h", Path: v.Path, Query: v.Query}
			if w.Apply(&target, v) {
				again, err := url.ParseRequestURI(target.Path + "?" + target.Query)
				if err != nil || climbs(target.Path) || path != "" && again.EscapedPath() != target.Path {
					t.Fatalf("%q became %q: %v", path, target.Path, err)
				}
			}
		}
		if d, err := (Redirect{To: to}).Compile([]string{"id"}); err == nil {
			if location, ok := d.Location(v); ok {
				l, err := url.Parse(location)
				if err != nil && !strings.ContainsAny(to, "[]:") || control(location) {
					t.Fatalf("%q leads to %q: %v", to, location, err)
				}
				if err == nil && strings.HasPrefix(to, "/") && l.Host != "" {
					t.Fatalf("%q leads to another host: %q", to, location)
				}
			}
		}
		if e, err := (HeaderEdit{Set: map[string]string{"X": to}}).Compile([]string{"id"}); err == nil {
			h := map[string][]string{}
			e.Apply(h, v)
			for _, value := range h["X"] {
				if strings.ContainsAny(value, "\r\n\x00") {
					t.Fatalf("%q became %q", to, value)
				}
			}
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Add("/a%2Fb", "/a")
	f.Fuzz(func(t *testing.T, path, prefix string) {
		u := url.URL{Path: "/" + path}
		escaped := u.EscapedPath()
		c := Canonical(escaped)
		if got, err := url.PathUnescape(escapePath(c)); err != nil || got != u.Path {
			t.Fatalf("%q is %q, and back %q: %v", u.Path, c, got, err)
		}
		rest, ok := strip(escaped, Canonical(prefix))
		if ok && strings.TrimSuffix(Canonical(prefix), "/")+Canonical(rest) != c {
			t.Fatalf("%q less %q is %q", escaped, prefix, rest)
		}
	})
}
