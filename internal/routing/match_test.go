package routing

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/setting"
)

// ask is a request in one line: method, URL, and fields as name=value.
func ask(t testing.TB, line string) *Request {
	t.Helper()
	parts := strings.Fields(line)
	u, err := url.Parse(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	q := &Request{Method: parts[0], Scheme: u.Scheme, Host: HostOf(u.Host), Path: Canonical(u.EscapedPath()), Query: u.RawQuery, Header: map[string][]string{}}
	for _, p := range parts[2:] {
		name, value, _ := strings.Cut(p, "=")
		q.Header[name] = append(q.Header[name], value)
	}
	return q
}

func TestAMatchTakesWhatItSays(t *testing.T) {
	tests := []struct {
		name    string
		m       Match
		takes   []string
		refuses []string
	}{
		{"all", Match{}, []string{"GET http://h/", "PUT https://x.y/a//b?c"}, nil},
		{"prefix of whole segments", Match{Path: "/api"}, []string{"GET http://h/api", "GET http://h/api/x", "GET http://h/api/"}, []string{"GET http://h/apis", "GET http://h/", "GET http://h/API"}},
		{"prefix with slash", Match{Path: "/api/"}, []string{"GET http://h/api/x", "GET http://h/api/"}, []string{"GET http://h/api"}},
		{"exact", Match{Exact: "/a/b"}, []string{"GET http://h/a/b", "GET http://h/%61/b"}, []string{"GET http://h/a/b/", "GET http://h/a", "GET http://h/a%2Fb", "GET http://h/a/b/c"}},
		{"exact with an encoded slash", Match{Exact: "/a%2fb"}, []string{"GET http://h/a%2Fb", "GET http://h/a%2fb"}, []string{"GET http://h/a/b", "GET http://h/a%252Fb"}},
		{"an encoded percent sign", Match{Exact: "/100%25"}, []string{"GET http://h/100%25"}, []string{"GET http://h/100%2525"}},
		{"not ASCII", Match{Exact: "/caf\u00e9"}, []string{"GET http://h/caf%C3%A9", "GET http://h/caf%c3%a9"}, []string{"GET http://h/cafe"}},
		{"pattern", Match{Pattern: "/users/{id}/orders"}, []string{"GET http://h/users/7/orders", "GET http://h/users/a%2Fb/orders"}, []string{"GET http://h/users//orders", "GET http://h/users/7/orders/", "GET http://h/users/a/b/orders"}},
		{"pattern with rest", Match{Pattern: "/files/{rest...}"}, []string{"GET http://h/files/", "GET http://h/files/a/b", "GET http://h/files//"}, []string{"GET http://h/files", "GET http://h/filesx"}},
		{"host", Match{Host: []string{"A.b"}}, []string{"GET http://a.B/", "GET http://a.b:81/", "GET http://a.b./"}, []string{"GET http://x.a.b/", "GET http://b/"}},
		{"wildcard host", Match{Host: []string{"*.b"}}, []string{"GET http://a.b/", "GET http://x.a.b/"}, []string{"GET http://b/", "GET http://xb/"}},
		{"several hosts", Match{Host: []string{"a", "*.b"}}, []string{"GET http://a/", "GET http://c.b/"}, []string{"GET http://b/"}},
		{"IPv6", Match{Host: []string{"::1"}}, []string{"GET http://[::1]:80/", "GET http://[::1]/"}, []string{"GET http://h/"}},
		{"method", Match{Method: []string{"POST", "PUT"}}, []string{"PUT http://h/"}, []string{"GET http://h/"}},
		{"scheme", Match{Scheme: "https"}, []string{"GET https://h/"}, []string{"GET http://h/"}},
		{"header there", Match{Header: []Condition{{Name: "x-a"}}}, []string{"GET http://h/ X-A=", "GET http://h/ X-A=1"}, []string{"GET http://h/"}},
		{"header absent", Match{Header: []Condition{{Name: "x-a", Absent: true}}}, []string{"GET http://h/"}, []string{"GET http://h/ X-A="}},
		{"header exact", Match{Header: []Condition{{Name: "x-a", Exact: "1"}}}, []string{"GET http://h/ X-A=2 X-A=1"}, []string{"GET http://h/ X-A=11"}},
		{"header prefix", Match{Header: []Condition{{Name: "x-a", Prefix: "ios-"}}}, []string{"GET http://h/ X-A=ios-1"}, []string{"GET http://h/ X-A=xios-1"}},
		{"header regexp is of the whole", Match{Header: []Condition{{Name: "x-a", Regexp: "a|b"}}}, []string{"GET http://h/ X-A=b"}, []string{"GET http://h/ X-A=ab"}},
		{"host as header", Match{Header: []Condition{{Name: "host", Prefix: "api."}}}, []string{"GET http://api.h/"}, []string{"GET http://h/"}},
		{"all conditions", Match{Header: []Condition{{Name: "x-a"}, {Name: "x-b"}}}, []string{"GET http://h/ X-A=1 X-B=1"}, []string{"GET http://h/ X-A=1"}},
		{"query", Match{Query: []Condition{{Name: "a b", Exact: "c d"}}}, []string{"GET http://h/?x&a+b=c%20d", "GET http://h/?a%20b=1&a%20b=c+d"}, []string{"GET http://h/?a+b=c", "GET http://h/"}},
		{"query absent", Match{Query: []Condition{{Name: "debug", Absent: true}}}, []string{"GET http://h/?x=1"}, []string{"GET http://h/?debug", "GET http://h/?d%65bug=1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Others that never fit make it a tree.
			matches := slices.Repeat([]Match{{Host: []string{"nobody"}, Exact: "/nothing"}}, few)
			table, err := NewTable(append(matches, tt.m))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range tt.takes {
				if _, ok := table.Find(ask(t, line)); !ok {
					t.Errorf("refuses %s", line)
				}
			}
			for _, line := range tt.refuses {
				if _, ok := table.Find(ask(t, line)); ok {
					t.Errorf("takes %s", line)
				}
			}
		})
	}
}

func TestPatternsCapture(t *testing.T) {
	m := Match{Pattern: "/users/{id}/orders/{rest...}"}
	table, err := NewTable([]Match{{Exact: "/"}, m})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"GET http://h/users/7/orders/a/b":    {"7", "a/b"},
		"GET http://h/users/%2F%25/orders/":  {"%2F%25", ""},
		"GET http://h/users/a%20b/orders//c": {"a b", "/c"},
	} {
		q := ask(t, line)
		i, ok := table.Find(q)
		if got := table.Captures(1, q.Path); !ok || i != 1 || !slices.Equal(got, want) {
			t.Errorf("%s: %d %v %q", line, i, ok, got)
		}
	}
	if !slices.Equal(m.Names(), []string{"id", "rest"}) {
		t.Errorf("names are %v", m.Names())
	}
}

func TestFaultyMatchesAreRefusedWithTheirPlace(t *testing.T) {
	for path, m := range map[string]Match{
		"path":            {Path: "x"},
		"exact":           {Exact: "/a?b"},
		"exact ":          {Exact: "/a/../b"},
		"exact  ":         {Exact: "/a%zz"},
		"pattern":         {Pattern: "/a/{b"},
		"pattern ":        {Pattern: "/a/x{b}"},
		"pattern  ":       {Pattern: "/{a}/{a}"},
		"pattern   ":      {Pattern: "/{a...}/b"},
		"pattern    ":     {Pattern: "/{}"},
		"path ":           {Path: "/a", Exact: "/b"},
		"host":            {Host: []string{"a:80"}},
		"host ":           {Host: []string{"a.*"}},
		"host  ":          {Host: []string{"."}},
		"host   ":         {Host: []string{"*."}},
		"method":          {Method: []string{"get"}},
		"scheme":          {Scheme: "ftp"},
		"header[0].name":  {Header: []Condition{{Name: "a b"}}},
		"header[0].name ": {Header: []Condition{{Name: "a", Exact: "1", Absent: true}}},
		"query[0].regexp": {Query: []Condition{{Name: "a", Regexp: "("}}},
		"query[0].regexp ": {
			Query: []Condition{{Name: "a", Regexp: ")|("}},
		},
		"query[1].regexp": {Query: []Condition{{Name: "a"}, {Name: "a", Regexp: strings.Repeat("a", 257)}}},
		"header":          {Header: make([]Condition, 17)},
	} {
		err := m.Validate()
		found := slices.ContainsFunc(setting.List(err), func(e error) bool { return strings.HasPrefix(e.Error(), strings.TrimSpace(path)+":") })
		if !found {
			t.Errorf("%s of %+v: %v", path, m, err)
		}
		if _, tableErr := NewTable([]Match{m}); tableErr == nil {
			t.Errorf("%+v compiles", m)
		}
	}
}

// The little alphabets make it likely that matches and calls meet.
var (
	genSegment = rapid.SampledFrom([]string{"", "a", "b", "c", "%2F"})
	genHost    = rapid.SampledFrom([]string{"h", "a.h", "b.a.h", "x.b.a.h"})
	genMethod  = rapid.SampledFrom([]string{"GET", "PUT"})
	genValue   = rapid.SampledFrom([]string{"", "1", "12", "2"})
	genName    = rapid.SampledFrom([]string{"X-A", "X-B"})
)

var genCondition = rapid.Custom(func(t *rapid.T) Condition {
	c := Condition{Name: genName.Draw(t, "name")}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		c.Exact = genValue.Draw(t, "exact")
	case 1:
		c.Prefix = genValue.Draw(t, "prefix")
	case 2:
		c.Regexp = rapid.SampledFrom([]string{"1.*", "[12]", ""}).Draw(t, "regexp")
	case 3:
		c.Absent = true
	}
	return c
})

var genMatch = rapid.Custom(func(t *rapid.T) Match {
	var m Match
	if rapid.Bool().Draw(t, "hosts") {
		m.Host = rapid.SliceOfN(rapid.SampledFrom([]string{"h", "a.h", "b.a.h", "*.h", "*.a.h"}), 1, 2).Draw(t, "host")
	}
	segments := rapid.SliceOfN(genSegment, 0, 3).Draw(t, "segments")
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		m.Path = "/" + strings.Join(segments, "/")
	case 1:
		m.Exact = "/" + strings.Join(segments, "/")
	case 2:
		for i := range segments {
			if rapid.Bool().Draw(t, "wild") {
				segments[i] = "{" + string(rune('p'+i)) + "}"
			}
		}
		if rapid.Bool().Draw(t, "rest") {
			segments = append(segments, "{rest...}")
		}
		m.Pattern = "/" + strings.Join(segments, "/")
	}
	m.Method = rapid.SliceOfN(genMethod, 0, 1).Draw(t, "method")
	m.Scheme = rapid.SampledFrom([]string{"", "", "http", "https"}).Draw(t, "scheme")
	m.Header = rapid.SliceOfN(genCondition, 0, 2).Draw(t, "header")
	m.Query = rapid.SliceOfN(genCondition, 0, 1).Draw(t, "query")
	return m
})

var genRequest = rapid.Custom(func(t *rapid.T) *Request {
	q := &Request{
		Method: genMethod.Draw(t, "method"), Scheme: rapid.SampledFrom([]string{"http", "https"}).Draw(t, "scheme"),
		Host: genHost.Draw(t, "host"), Path: "/" + strings.Join(rapid.SliceOfN(genSegment, 0, 4).Draw(t, "path"), "/"),
		Header: map[string][]string{},
	}
	for range rapid.IntRange(0, 2).Draw(t, "fields") {
		name := genName.Draw(t, "field")
		q.Header[name] = append(q.Header[name], genValue.Draw(t, "value"))
	}
	if rapid.Bool().Draw(t, "has query") {
		q.Query = genName.Draw(t, "parameter") + "=" + genValue.Draw(t, "value")
	}
	return q
})

func TestTheTableAgreesWithAskingOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		matches := rapid.SliceOfN(genMatch, 1, 3*few).Draw(t, "matches")
		table, err := NewTable(matches)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			q := genRequest.Draw(t, "request")
			want := slices.IndexFunc(table.rules, func(r *rule) bool { return r.takes(q) })
			got, ok := table.Find(q)
			if ok != (want >= 0) || ok && got != want {
				t.Fatalf("%+v: found %d %v, want %d", q, got, ok, want)
			}
			if ok {
				if n := len(table.Captures(got, q.Path)); n != len(matches[got].Names()) {
					t.Fatalf("%d captures of %v", n, matches[got].Names())
				}
			}
		}
	})
}

func TestWhatIsCoveredIsNeverReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		matches := []Match{genMatch.Draw(t, "first"), genMatch.Draw(t, "second")}
		if rapid.Bool().Draw(t, "near") {
			// Two at random seldom cover each other.
			matches[1] = matches[0]
			matches[1].Host = []string{"a.h"}
			matches[0].Header = nil
		}
		table, err := NewTable(matches)
		if err != nil {
			t.Fatal(err)
		}
		if Covered(matches)[1] != 0 {
			return
		}
		for range 30 {
			q := genRequest.Draw(t, "request")
			if i, ok := table.Find(q); ok && i == 1 {
				t.Fatalf("%v is said to cover %v, but not %+v", matches[0], matches[1], q)
			}
		}
	})
}

func TestCoveredFindsTheUnreachable(t *testing.T) {
	tests := []struct {
		m, o Match
		want bool
	}{
		{Match{}, Match{Path: "/x", Host: []string{"h"}, Method: []string{"GET"}}, true},
		{Match{Path: "/x"}, Match{}, false},
		{Match{Path: "/x"}, Match{Path: "/xy"}, false},
		{Match{Path: "/x"}, Match{Exact: "/x/y"}, true},
		{Match{Path: "/x"}, Match{Pattern: "/x/{id}"}, true},
		{Match{Exact: "/x"}, Match{Path: "/x"}, false},
		{Match{Exact: "/x"}, Match{Exact: "/%78"}, true},
		{Match{Pattern: "/{a}/b"}, Match{Pattern: "/x/b"}, true},
		{Match{Pattern: "/{a}/b"}, Match{Exact: "//b"}, false},
		{Match{Pattern: "/x/{rest...}"}, Match{Path: "/x/"}, true},
		{Match{Pattern: "/x/{rest...}"}, Match{Path: "/x"}, false},
		{Match{Host: []string{"*.h"}}, Match{Host: []string{"a.h", "*.a.h"}}, true},
		{Match{Host: []string{"a.h"}}, Match{}, false},
		{Match{Method: []string{"GET", "PUT"}}, Match{Method: []string{"PUT"}}, true},
		{Match{Method: []string{"GET"}}, Match{Method: []string{"GET", "PUT"}}, false},
		{Match{Method: []string{"GET"}}, Match{}, false},
		{Match{Scheme: "http"}, Match{}, false},
		{Match{Header: []Condition{{Name: "a"}}}, Match{Header: []Condition{{Name: "A", Exact: "1"}}}, true},
		{Match{Header: []Condition{{Name: "a", Prefix: "1"}}}, Match{Header: []Condition{{Name: "a", Prefix: "12"}}}, true},
		{Match{Header: []Condition{{Name: "a", Prefix: "12"}}}, Match{Header: []Condition{{Name: "a", Prefix: "1"}}}, false},
		{Match{Header: []Condition{{Name: "a", Regexp: "1+"}}}, Match{Header: []Condition{{Name: "a", Exact: "11"}}}, true},
		{Match{Header: []Condition{{Name: "a"}}}, Match{Header: []Condition{{Name: "a", Absent: true}}}, false},
		{Match{Query: []Condition{{Name: "a"}}}, Match{}, false},
	}
	for _, tt := range tests {
		if got := Covered([]Match{tt.m, tt.o})[1] == 0; got != tt.want {
			t.Errorf("%v covers %v: %v", tt.m, tt.o, got)
		}
	}
	if got := Covered([]Match{{Path: "x"}, {Path: "/a"}, {Path: "/b"}, {Path: "/b/c"}}); !slices.Equal(got, []int{-1, -1, -1, 2}) {
		t.Errorf("got %v", got)
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"/users/{id}/orders/{rest...}", "/", "/{a}/{a}", "/{", "/a%2Fb/{x}"} {
		f.Add(seed, "/users/7/orders/8")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		m := Match{Pattern: pattern}
		valid := m.Validate() == nil
		table, err := NewTable([]Match{m})
		if valid != (err == nil) {
			t.Fatalf("valid %v, but %v", valid, err)
		}
		if err != nil || pattern == "" {
			return
		}
		u := url.URL{Path: "/" + path}
		q := &Request{Path: Canonical(u.EscapedPath())}
		i, ok := table.Find(q)
		if ok != table.rules[0].takes(q) {
			t.Fatal("the table disagrees with its rule")
		}
		if ok && len(table.Captures(i, q.Path)) != len(m.Names()) {
			t.Fatal("captures are missing")
		}
	})
}

func many(n int) []Match {
	var all []Match
	for i := range n / 4 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26%26))
		all = append(all,
			Match{Host: []string{name + ".example.com"}, Path: "/api/" + name},
			Match{Host: []string{"*.example.com"}, Pattern: "/v1/" + name + "/{id}"},
			Match{Exact: "/static/" + name},
			Match{Path: "/svc/" + name, Method: []string{"GET", "POST"}, Header: []Condition{{Name: "X-Version", Exact: "2"}}},
		)
	}
	return append(all, Match{})
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{4, 100, 1000} {
		table, err := NewTable(many(n))
		if err != nil {
			b.Fatal(err)
		}
		q := ask(b, "GET http://shop.example.com/v1/zz/42")
		q.Path = "/v1/" + string(rune('a'+(n/4-1)%26)) + string(rune('a'+(n/4-1)/26%26)) + "/42"
		b.Run("tree/"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Find(q)
			}
		})
		b.Run("scan/"+strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				_ = slices.IndexFunc(table.rules, func(r *rule) bool { return r.takes(q) })
			}
		})
	}
}

func TestFindingARouteAllocatesNothing(t *testing.T) {
	table, err := NewTable(many(1000))
	if err != nil {
		t.Fatal(err)
	}
	q := ask(t, "GET http://shop.example.com/v1/aa/42?x=1")
	if n := testing.AllocsPerRun(100, func() {
		q.Host = HostOf("shop.example.com:8080")
		q.Path = Canonical("/v1/aa/42")
		table.Find(q)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
