package payload

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/longpole/longpole/setting"
)

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestWhatIsEncodedAndWhatIsNot(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	gzip := header("Accept-Encoding", "gzip")
	json := []string{"Content-Type", "application/json; charset=utf-8"}
	for _, c := range []struct {
		name    string
		request http.Header
		answer  []string
		status  int
		length  int64
		want    Coding
		vary    string
	}{
		{"json", gzip, json, 200, 5000, Gzip, "Accept-Encoding"},
		{"an error page", gzip, json, 404, 5000, Gzip, "Accept-Encoding"},
		{"a suffix", gzip, []string{"Content-Type", "application/problem+json"}, 200, 5000, Gzip, "Accept-Encoding"},
		{"text", gzip, []string{"Content-Type", "Text/HTML"}, 200, 5000, Gzip, "Accept-Encoding"},
		{"unknown length", gzip, json, 200, -1, Gzip, "Accept-Encoding"},
		{"a client that takes none", header(), json, 200, 5000, Identity, "Accept-Encoding"},
		{"too short", gzip, json, 200, 1023, Identity, ""},
		{"just long enough", gzip, json, 200, 1024, Gzip, "Accept-Encoding"},
		{"an image", gzip, []string{"Content-Type", "image/png"}, 200, 5000, Identity, ""},
		{"no type", gzip, nil, 200, 5000, Identity, ""},
		{"encoded already", gzip, append([]string{"Content-Encoding", "br"}, json...), 200, 5000, Identity, ""},
		{"encoded as nothing", gzip, append([]string{"Content-Encoding", "identity"}, json...), 200, 5000, Gzip, "Accept-Encoding"},
		{"no-transform", gzip, append([]string{"Cache-Control", "public, No-Transform"}, json...), 200, 5000, Identity, ""},
		{"no-transform of the client", header("Accept-Encoding", "gzip", "Cache-Control", "no-transform"), json, 200, 5000, Identity, "Accept-Encoding"},
		{"204", gzip, json, 204, -1, Identity, ""},
		{"206", gzip, json, 206, 5000, Identity, ""},
		{"a range", gzip, append([]string{"Content-Range", "bytes 0-1/5"}, json...), 200, 5000, Identity, ""},
		{"a digest", gzip, append([]string{"Content-Digest", "sha-256=:x:"}, json...), 200, 5000, Identity, ""},
		{"events", gzip, []string{"Content-Type", "text/event-stream"}, 200, -1, Identity, ""},
		{"304", gzip, nil, 304, 0, Identity, "Accept-Encoding"},
		{"304 of an image", gzip, []string{"Content-Type", "image/png"}, 304, 0, Identity, ""},
	} {
		h := header(append([]string{"Etag", `"v"`, "Content-Length", "1", "Accept-Ranges", "bytes"}, c.answer...)...)
		got := p.Prepare(c.request, h, c.status, c.length, false)
		if got != c.want || h.Get("Vary") != c.vary {
			t.Errorf("%s: %q, Vary %q; want %q, %q", c.name, got, h.Get("Vary"), c.want, c.vary)
		}
		encoded := got != Identity
		if weak := h.Get("Etag") == `W/"v"`; weak != encoded {
			t.Errorf("%s: the tag is %s", c.name, h.Get("Etag"))
		}
		if (h.Get("Content-Length") == "") != encoded || (h.Get("Accept-Ranges") == "") != encoded || encoded && h.Get("Content-Encoding") != string(got) {
			t.Errorf("%s: the head is %v", c.name, h)
		}
	}
}

func TestEventsAreEncodedWhenAsked(t *testing.T) {
	p := New(Config{Compress: &Compress{Streams: true}})
	if got := p.Prepare(header("Accept-Encoding", "zstd"), header("Content-Type", "text/event-stream"), 200, -1, false); got != Zstd {
		t.Errorf("%q", got)
	}
}

func TestVaryIsSaidOnceAndNotIntoASharedList(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	for before, want := range map[string]string{"Origin": "[Origin Accept-Encoding]", "Origin, accept-encoding": "[Origin, accept-encoding]", "*": "[*]"} {
		h := header("Content-Type", "text/css", "Vary", before)
		shared := make([]string, 1, 4)
		copy(shared, h["Vary"])
		h["Vary"] = shared
		p.Prepare(header(), h, 200, -1, false)
		if got := fmt.Sprint(h["Vary"]); got != want {
			t.Errorf("%q became %s; want %s", before, got, want)
		}
		if shared[:2][1] != "" {
			t.Error("the list was written to")
		}
	}
}

func TestA304KeepsTheTagThatTheClientHolds(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	for asked, want := range map[string]string{`W/"v"`: `W/"v"`, `"v"`: `"v"`, `W/"v", "v"`: `"v"`, `W/"other"`: `"v"`, ``: `"v"`} {
		h := header("Etag", `"v"`)
		p.Prepare(header("If-None-Match", asked), h, 304, 0, false)
		if got := h.Get("Etag"); got != want {
			t.Errorf("asked for %s, told %s; want %s", asked, got, want)
		}
	}
}

func TestTagsAreComparedWeakly(t *testing.T) {
	for _, c := range []struct {
		field, tag string
		want       bool
	}{
		{`"a"`, `"a"`, true},
		{`W/"a"`, `"a"`, true},
		{`"a"`, `W/"a"`, true},
		{`"b", "a"`, `"a"`, true},
		{`"b,"  , W/"a,b"`, `"a,b"`, true},
		{`*`, `"a"`, true},
		{`"*"`, `"a"`, false},
		{`a`, `"a"`, false},
		{`"a`, `"a"`, false},
		{`"b`, `"a"`, false},
		{``, `"a"`, false},
		{strings.Repeat(`"b",`, maxTags) + `"a"`, `"a"`, false},
	} {
		if got := Matches([]string{c.field}, c.tag); got != c.want {
			t.Errorf("%q matches %s: %t", c.field, c.tag, got)
		}
	}
}

func TestAnAnswerThatTheClientHoldsIs304(t *testing.T) {
	body := []byte("hello")
	h := header("Content-Type", "text/plain", "Content-Length", "5", "Content-Location", "/x", "Cache-Control", "max-age=1")
	if Revalidate(header(), h, body) || h.Get("Etag") != Tag(body) {
		t.Fatalf("the head is %v", h)
	}
	if !Revalidate(header("If-None-Match", "W/"+Tag(body)), h, body) {
		t.Fatal("not recognised")
	}
	if got := fmt.Sprintf("%d %s %s %s", len(h), h.Get("Etag"), h.Get("Content-Location"), h.Get("Cache-Control")); got != "3 "+Tag(body)+" /x max-age=1" {
		t.Errorf("the head of the 304 is %v", h)
	}
	if own := header("Etag", `"mine"`); !Revalidate(header("If-None-Match", `"mine"`), own, body) {
		t.Error("the tag of the origin was not kept")
	}
}

func TestOnlySmallWholeAnswersAreTagged(t *testing.T) {
	p := New(Config{ETag: &ETag{}})
	for _, c := range []struct {
		method string
		status int
		length int64
		head   http.Header
		want   bool
	}{
		{"GET", 200, 10, header(), true},
		{"GET", 200, 64 << 10, header(), true},
		{"GET", 200, 64<<10 + 1, header(), false},
		{"GET", 200, -1, header(), false},
		{"HEAD", 200, 10, header(), false},
		{"POST", 200, 10, header(), false},
		{"GET", 404, 10, header(), false},
		{"GET", 200, 10, header("Cache-Control", "no-store"), false},
		{"GET", 200, 10, header("Content-Type", "text/event-stream"), false},
	} {
		if got := p.Tags(c.method, c.head, c.status, c.length); got != c.want {
			t.Errorf("%s %d of %d bytes, %v: %t", c.method, c.status, c.length, c.head, got)
		}
	}
	if New(Config{}).Tags("GET", header(), 200, 10) {
		t.Error("tagged without being told to")
	}
}

func TestTheLimitOfAnAnswer(t *testing.T) {
	p := New(Config{MaxAnswerBytes: 10})
	if p.TooLarge(-1) || p.TooLarge(10) || !p.TooLarge(11) || New(Config{}).TooLarge(1<<40) {
		t.Error("the limit is not held")
	}
}

func TestFaultsOfAConfigAreAllReported(t *testing.T) {
	c := Config{
		MaxAnswerBytes: -1,
		Compress:       &Compress{Codings: []Coding{"deflate", Gzip, Gzip}, MinBytes: -1, Types: []string{"text", "*/*", "text/x; a=b", "a/*b"}, Level: "best", AtOnce: -1},
		ETag:           &ETag{MaxBytes: 2 << 20},
	}
	if n := len(setting.List(c.Validate())); n != 11 {
		t.Errorf("%d faults; want 11: %v", n, c.Validate())
	}
	if err := (Config{Compress: &Compress{}, ETag: &ETag{}}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzMatches(f *testing.F) {
	f.Add(`"a", W/"b"`, `"b"`)
	f.Add(`W/"`, `W/""`)
	f.Fuzz(func(t *testing.T, field, tag string) {
		if Matches([]string{field}, tag) && strings.TrimSpace(field) != "*" && !strings.Contains(field, strings.TrimPrefix(tag, "W/")) {
			t.Errorf("%q matches %q", field, tag)
		}
	})
}
