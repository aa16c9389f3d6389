package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestTemplatesTakePartsOfTheCall(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/shop/a%2Fb/c%20d?user=x%26y&user=z&empty=", nil)
	for _, tt := range []struct{ template, ids, want string }{
		{"/users/{segment.1}", "", "/users/shop"},
		{"/users/{segment.2}/x", "", "/users/a%2Fb/x"},
		{"/users/{segment.3}.json?a=1", "", "/users/c%20d.json?a=1"},
		{"/u?id={query.user}&all=1", "", "/u?id=x%26y&all=1"},
		{"/u?id={segment.2}", "", "/u?id=a%2Fb"},
		{"/u?e={query.empty}", "", "/u?e="},
		{"/v2/{path}?x=1", "", "/v2/shop/a%2Fb/c%20d?x=1"},
		{"/u?p={path}", "", "/u?p=%2Fshop%2Fa%2Fb%2Fc+d"},
		{"/items?ids={ids}", "1,2&x=3", "/items?ids=1%2C2%26x%3D3"},
		{"/items/{ids}", "1,2/3", "/items/1%2C2%2F3"},
	} {
		p, err := parseTemplate(tt.template)
		if err != nil {
			t.Errorf("%s: %v", tt.template, err)
			continue
		}
		u, err := p.fill(r, tt.ids)
		if err != nil || u.RequestURI() != tt.want {
			t.Errorf("%s: %v, %v; want %s", tt.template, u, err, tt.want)
		}
	}
	for _, s := range []string{"/{segment.9}", "/{query.none}", "/{query.empty}", "/x?y={query.none}"} {
		p, err := parseTemplate(s)
		if err != nil {
			t.Fatal(s, err)
		}
		if u, err := p.fill(r, ""); !errors.Is(err, errMissing) {
			t.Error(s, u, err)
		}
	}
	for _, s := range []string{"", "x", "//host/x", "/x#y", "/{", "/{segment}", "/{segment.0}", "/{segment.x}", "/{query}", "/{query.}", "/{other}", "/{path.x}", "/a b", "/../x", "/%zz", "/}"} {
		if p, err := parseTemplate(s); !errors.Is(err, errTemplate) {
			t.Error(s, p, err)
		}
	}
}

// Whatever a client sends stays in its place: path segments, parameters and the rest are as the template has them.
func FuzzTemplate(f *testing.F) {
	f.Add("/a/{segment.1}/b?x={query.q}&y=1", "/1/2", "q=3")
	f.Add("/{path}", "/%2e%2e/x", "")
	f.Add("/i?ids={ids}", "/a", "q=%00")
	f.Fuzz(func(t *testing.T, text, path, query string) {
		p, err := parseTemplate(text)
		if err != nil {
			return
		}
		in, err := url.ParseRequestURI(path)
		if err != nil || path == "" || path[0] != '/' {
			return
		}
		r := &http.Request{URL: &url.URL{Path: in.Path, RawPath: in.RawPath, RawQuery: query}}
		u, err := p.fill(r, "1,2")
		if err != nil {
			return
		}
		if u.Host != "" || u.Fragment != "" || u.Scheme != "" || u.Path == "" || u.Path[0] != '/' || climbs(u.Path) {
			t.Fatalf("%q of %q became %q", text, path, u)
		}
		if p.uses("path") {
			return
		}
		fixed := 0
		for _, one := range p {
			fixed += strings.Count(one.text, "&")
		}
		if got := strings.Count(u.RawQuery, "&"); got > fixed {
			t.Fatalf("%q of %q?%q has more parameters: %q", text, path, query, u)
		}
	})
}
