package httpcache

import (
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// kept makes an answer that was received at t0.
func kept(status int, body string, list ...string) *Answer {
	return NewAnswer(status, fields(list...), []byte(body), t0, Verdict{Fresh: time.Minute})
}

func TestKeysDoNotCollide(t *testing.T) {
	seen := map[string][]string{}
	for _, scope := range []string{"r", "r\thttp", "r h"} {
		for _, scheme := range []string{"http", "https"} {
			for _, host := range []string{"h", "h/a", "h:81", "h:443", "h:80", "hh"} {
				for _, target := range []string{"/", "/a", "/a?b", "/a%3Fb", "/?a", "/a;b", "/a&b", "/%61", "//a", "/a?", "/A"} {
					key := Key(scope, scheme, host, target)
					if scheme == "http" && host == "h:80" || scheme == "https" && host == "h:443" {
						host = "h" // the same by definition
					}
					name := []string{scope, scheme, host, target}
					if before, twice := seen[key]; twice && !reflect.DeepEqual(before, name) {
						t.Errorf("%q and %q share a key", before, name)
					}
					seen[key] = name
				}
			}
		}
	}
	if Key("r", "http", "EXAMPLE.com", "/") != Key("r", "http", "example.COM:80", "/") {
		t.Error("case or the port by default matters")
	}
}

func TestKeysAreBounded(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	a, b := Key("r", "http", "h", "/"+long+"a"), Key("r", "http", "h", "/"+long+"b")
	if len(a) > maxKey || a == b {
		t.Error(len(a), a == b)
	}
	v := (*Variance)(nil).Extend([]string{"Cookie"}, 1)
	if key := v.Key(a, fields("Cookie", long)); len(key) > maxKey+64 {
		t.Error(len(key))
	}
}

func TestVariants(t *testing.T) {
	v := (*Variance)(nil).Extend([]string{"Foo", "Accept-Language"}, 7)
	key := func(list ...string) string { return v.Key("base", fields(list...)) }
	same := [][2]string{
		{key("Foo", "1, 2"), key("Foo", "1", "Foo", "2")},
		{key("Foo", " 1,2 "), key("Foo", "1 , 2")},
		{key("Foo", "1", "Bar", "x"), key("Foo", "1")},
		{key("Accept-Language", "EN, de"), key("Accept-Language", "en,De")},
	}
	for i, pair := range same {
		if pair[0] != pair[1] {
			t.Errorf("pair %d differs", i)
		}
	}
	other := []string{
		key(), key("Foo", ""), key("Foo", "1"), key("Foo", "A"), key("Foo", "a"), key("Accept-Language", "1"),
		key("Accept-Language", "de, en"), key("Accept-Language", "en, de"), key("Foo", `"1,2"`), key("Foo", "1,2"), key("Foo", `"1, 2"`),
		key("Foo", "1", "Accept-Language", "1"), key("Foo", "11"),
	}
	seen := map[string]int{}
	for i, k := range other {
		if before, twice := seen[k]; twice {
			t.Errorf("%d and %d share a key", before, i)
		}
		seen[k] = i
	}
	if w := v.Extend([]string{"Foo"}, 8); w != v {
		t.Error("nothing new, and yet another")
	}
	w := v.Extend([]string{"Bar"}, 8)
	if w.Key("base", nil) == v.Key("base", nil) || !reflect.DeepEqual(w.names, []string{"Accept-Language", "Bar", "Foo"}) {
		t.Errorf("%+v", w)
	}
	if again := (*Variance)(nil).Extend([]string{"Foo", "Accept-Language"}, 9); again.Key("base", nil) == v.Key("base", nil) {
		t.Error("what was invalidated is found again")
	}
}

func TestVaryIsBoundedAndHonest(t *testing.T) {
	for _, tt := range []struct {
		header []string
		want   string
		ok     bool
	}{
		{nil, "", true},
		{[]string{"Vary", "foo, BAR,,", "Vary", "foo"}, "Foo Bar", true},
		{[]string{"Vary", "a, *"}, "", false},
		{[]string{"Vary", "", "Vary", "*"}, "", false},
		{[]string{"Content-Encoding", "gzip"}, "Accept-Encoding", true},
		{[]string{"Access-Control-Allow-Origin", "https://a"}, "Origin", true},
		{[]string{"Access-Control-Allow-Origin", "*"}, "", true},
		{[]string{"Vary", "a,b,c,d,e,f,g,h,i,j,k,l,m"}, "", false},
	} {
		if names, ok := Vary(fields(tt.header...)); strings.Join(names, " ") != tt.want || ok != tt.ok {
			t.Errorf("%v: %v, %v", tt.header, names, ok)
		}
	}
	v := (*Variance)(nil).Extend([]string{"A", "B", "C", "D", "E", "F", "G", "H"}, 1)
	if v.Extend([]string{"I", "J", "K", "L", "M"}, 2) != nil {
		t.Error("no bound")
	}
}

func TestConditionsOfAClient(t *testing.T) {
	changed := t0.Add(-time.Hour)
	a := kept(200, "body", "Etag", `"x"`, "Last-Modified", httpDate(changed))
	untagged, undated := kept(200, "body", "Last-Modified", httpDate(changed)), kept(200, "body")
	for _, tt := range []struct {
		a    *Answer
		h    []string
		want bool
	}{
		{a, []string{"If-None-Match", `"x"`}, true},
		{a, []string{"If-None-Match", `W/"x"`}, true},
		{a, []string{"If-None-Match", `"a, b", "x"`}, true},
		{a, []string{"If-None-Match", `"a"`, "If-None-Match", `"x"`}, true},
		{a, []string{"If-None-Match", `*`}, true},
		{a, []string{"If-None-Match", `"y"`}, false},
		{a, []string{"If-None-Match", `"y"`, "If-Modified-Since", httpDate(t0)}, false},
		{a, []string{"If-None-Match", `"x"`, "If-Modified-Since", httpDate(changed.Add(-time.Hour))}, true},
		{untagged, []string{"If-None-Match", `""`}, false},
		{untagged, []string{"If-Modified-Since", httpDate(changed)}, true},
		{untagged, []string{"If-Modified-Since", changed.Format(time.RFC850[:len(time.RFC850)-3]) + "GMT"}, true},
		{untagged, []string{"If-Modified-Since", httpDate(changed.Add(-time.Second))}, false},
		{untagged, []string{"If-Modified-Since", "yesterday"}, false},
		{undated, []string{"If-Modified-Since", httpDate(t0)}, true},
		{undated, []string{"If-Modified-Since", httpDate(changed)}, false},
		{kept(404, "body", "Etag", `"x"`), []string{"If-None-Match", `"x"`}, false},
		{a, nil, false},
	} {
		if got := tt.a.NotModified(fields(tt.h...), t0); got != tt.want {
			t.Errorf("%v: %v", tt.h, got)
		}
	}
}

func TestConditionsToTheOrigin(t *testing.T) {
	h := fields("If-None-Match", `"theirs"`, "Range", "bytes=0-1", "If-Range", `"theirs"`, "X", "y")
	Unconditional(h)
	if len(h) != 1 {
		t.Errorf("%v", h)
	}
	a := kept(200, "", "Etag", `"x"`, "Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
	if !a.Ask(h) || h.Get("If-None-Match") != `"x"` || h.Get("If-Modified-Since") != a.Header.Get("Last-Modified") {
		t.Errorf("%v", h)
	}
	if kept(200, "").Ask(http.Header{}) {
		t.Error("nothing to ask by")
	}
	for tag, want := range map[string]bool{"": true, `"x"`: true, `W/"x"`: true, `"y"`: false} {
		h := http.Header{}
		if tag != "" {
			h.Set("Etag", tag)
		}
		if a.ConfirmedBy(h) != want {
			t.Errorf("%q: %v", tag, !want)
		}
	}
}

func TestA304BringsTheHeaderUpToDate(t *testing.T) {
	a := kept(200, "body", "Content-Type", "text/plain", "X", "1", "Y", "1", "Age", "9", "Cache-Control", "max-age=1", "Cache-Status", "edge; hit")
	h := a.Refreshed(fields("X", "2", "Content-Length", "10", "Content-Encoding", "gzip", "Cache-Control", "max-age=5", "Set-Cookie", "a=b", "Date", "d"))
	want := fields("Content-Type", "text/plain", "X", "2", "Y", "1", "Cache-Control", "max-age=5", "Content-Length", "4", "Date", "d")
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%v", h)
	}
	if a.Header.Get("X") != "1" {
		t.Error("the kept answer was changed")
	}
}

func TestWhatAHeadTells(t *testing.T) {
	a := kept(200, "body", "Etag", `"x"`, "Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
	for _, tt := range []struct {
		status      int
		h           []string
		same, other bool
	}{
		{200, []string{"Etag", `"x"`}, true, false},
		{200, []string{"Content-Length", "4"}, true, false},
		{200, []string{"Etag", `"x"`, "Content-Length", "5"}, false, true},
		{200, []string{"Etag", `"y"`}, false, true},
		{200, []string{"Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT"}, false, true},
		{200, nil, false, false},
		{404, nil, false, true},
		{503, nil, false, false},
	} {
		if same, other := a.HeadTells(tt.status, fields(tt.h...)); same != tt.same || other != tt.other {
			t.Errorf("%d %v: %v, %v", tt.status, tt.h, same, other)
		}
	}
}

func TestRanges(t *testing.T) {
	changed := httpDate(t0.Add(-time.Hour))
	a := kept(200, "0123456789", "Etag", `"x"`, "Last-Modified", changed)
	tests := map[string]string{
		"": "whole", "bytes=0-1": "01", "bytes=8-": "89", "bytes=-1": "9", "bytes=-99": "0123456789", "bytes=5-5": "5", "BYTES=5-99": "56789",
		"bytes=10-": "none", "bytes=99-100": "none", "bytes=-0": "none", "bytes=2-1": "whole", "bytes=0-1,3-4": "whole", "lines=0-1": "whole",
		"bytes": "whole", "bytes=-": "whole", "bytes=a-b": "whole", "bytes=1": "whole", "bytes=--1": "whole", "bytes=0-99999999999999999999": "0123456789",
		"bytes=+1-2": "whole",
	}
	for value, want := range tests {
		h := http.Header{}
		if value != "" {
			h.Set("Range", value)
		}
		got := "whole"
		switch cut, from, to := a.Cut(h, t0); cut {
		case Part:
			got = string(a.Body[from:to])
		case Unsatisfiable:
			got = "none"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	for value, want := range map[string]Cut{`"x"`: Part, `"y"`: Whole, `W/"x"`: Whole, changed: Part, httpDate(t0): Whole, "x": Whole} {
		if cut, _, _ := a.Cut(fields("Range", "bytes=0-1", "If-Range", value), t0); cut != want {
			t.Errorf("If-Range %q: %v", value, cut)
		}
	}
	if cut, _, _ := kept(404, "0123").Cut(fields("Range", "bytes=0-1"), t0); cut != Whole {
		t.Error("a part of an error")
	}
	if ContentRange(2, 5, 10) != "bytes 2-4/10" || NoRange(10) != "bytes */10" {
		t.Error(ContentRange(2, 5, 10), NoRange(10))
	}
}

func FuzzRanges(f *testing.F) {
	f.Add("bytes=0-1", 10)
	f.Add("bytes=-1", 0)
	f.Fuzz(func(t *testing.T, value string, size int) {
		a := kept(200, strings.Repeat("x", max(0, size)%1000))
		cut, from, to := a.Cut(http.Header{"Range": {value}}, t0)
		if cut == Part && (from < 0 || from >= to || to > int64(len(a.Body))) {
			t.Errorf("%q of %d: %d..%d", value, len(a.Body), from, to)
		}
	})
}

func TestWhatAnUnsafeCallInvalidates(t *testing.T) {
	for _, tt := range []struct {
		status int
		h      []string
		want   string
	}{
		{200, nil, "/a/b?c"},
		{404, []string{"Location", "/x"}, ""},
		{500, nil, ""},
		{303, []string{"Location", "/x?y"}, "/a/b?c /x?y"},
		{201, []string{"Location", "x", "Content-Location", "http://H.example:80/z"}, "/a/b?c /a/x /z"},
		{201, []string{"Location", "http://other/x", "Content-Location", "https://h.example/z"}, "/a/b?c"},
		{201, []string{"Location", "mailto:x", "Content-Location", "%zz"}, "/a/b?c"},
		{201, []string{"Location", "/a/b?c"}, "/a/b?c"},
	} {
		if got := strings.Join(Invalidated("http", "h.example", "/a/b?c", tt.status, fields(tt.h...)), " "); got != tt.want {
			t.Errorf("%d %v: %q, want %q", tt.status, tt.h, got, tt.want)
		}
	}
	for method, want := range map[string]bool{"GET": false, "HEAD": false, "OPTIONS": false, "POST": true, "PUT": true, "DELETE": true, "M-SEARCH": true, "PATCH": true} {
		if Unsafe(method) != want {
			t.Error(method)
		}
	}
}

func TestOverridesAreFound(t *testing.T) {
	for _, name := range []string{"X-Http-Method-Override", "X-Original-Url", "X_original_url", "X-Rewrite-Url", "X-Host"} {
		if !Overrides(http.Header{name: {"x"}}) {
			t.Error(name)
		}
	}
	if Overrides(fields("X-Forwarded-Host", "x", "Accept", "y", "X-Request-Id", "z")) {
		t.Error("too much is taken for an override")
	}
}

func TestCacheStatus(t *testing.T) {
	for want, s := range map[string]Status{
		"c; hit; ttl=5": {Hit: true, Timed: true, TTL: 5900 * time.Millisecond},
		"c; fwd=stale; fwd-status=304; ttl=-1; stored; detail=x": {Forward: "stale", Answered: 304, Timed: true, TTL: -time.Second, Stored: true, Detail: "x"},
		"c; fwd=miss; collapsed":                                 {Forward: "miss", Collapsed: true},
	} {
		if got := s.Line("c"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestAnswersTravel(t *testing.T) {
	a := kept(404, "body", "X", "1", "X", "2", "Cache-Control", "max-age=5")
	a.Age, a.Fresh, a.Explicit, a.Authorized = time.Second, -time.Minute, true, true
	b, v, err := Decode(a.AppendTo(nil))
	if err != nil || v != nil || b.Status != 404 || !bytes.Equal(b.Body, a.Body) || !reflect.DeepEqual(b.Header, a.Header) || !b.Received.Equal(t0) ||
		b.Age != a.Age || b.Fresh != a.Fresh || !b.Explicit || !b.Authorized || b.Size() != a.Size() {
		t.Errorf("%+v, %v, %v", b, v, err)
	}
	w := (*Variance)(nil).Extend([]string{"Foo", "Bar"}, 42)
	_, v, err = Decode(w.AppendTo(nil))
	if err != nil || !reflect.DeepEqual(v, w) {
		t.Errorf("%+v, %v", v, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(kept(200, "body", "X", "1").AppendTo(nil))
	f.Add((*Variance)(nil).Extend([]string{"Foo", "Bar"}, 42).AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, v, err := Decode(b)
		switch {
		case err != nil:
		case a != nil:
			again, _, err := Decode(a.AppendTo(nil))
			if err != nil || !reflect.DeepEqual(a.Header, again.Header) || a.Status != again.Status || !bytes.Equal(a.Body, again.Body) || a.Fresh != again.Fresh {
				t.Errorf("%+v, then %+v, %v", a, again, err)
			}
		default:
			if _, again, err := Decode(v.AppendTo(nil)); err != nil || !reflect.DeepEqual(v, again) {
				t.Errorf("%+v, then %+v, %v", v, again, err)
			}
		}
	})
}
