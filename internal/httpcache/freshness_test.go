package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fields makes a header of names and values.
func fields(list ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(list); i += 2 {
		h.Add(list[i], list[i+1])
	}
	return h
}

func TestWhatMayBeKept(t *testing.T) {
	ttl := Rules{TTL: time.Minute, NegativeTTL: time.Second}
	heuristic := Rules{Implicit: ImplicitHeuristic}
	none := Rules{Implicit: ImplicitNone}
	day := httpDate(t0.Add(-24 * time.Hour))
	tests := []struct {
		name    string
		rules   Rules
		method  string
		request []string
		status  int
		header  []string
		why     string
		fresh   time.Duration
	}{
		// RFC 9111 section 3
		{name: "POST", method: "POST", header: []string{"Cache-Control", "max-age=60"}, why: "method"},
		{name: "HEAD", method: "HEAD", header: []string{"Cache-Control", "max-age=60"}, why: "method"},
		{name: "informational", status: 103, why: "status"},
		{name: "part", status: 206, header: []string{"Cache-Control", "max-age=60"}, why: "status"},
		{name: "unmodified", status: 304, header: []string{"Cache-Control", "max-age=60"}, why: "status"},
		{name: "failure, though it says so", status: 500, header: []string{"Cache-Control", "max-age=60"}, why: "status"},
		{name: "unavailable", status: 503, header: []string{"Cache-Control", "public, max-age=60"}, why: "status"},
		{name: "not implemented", status: 501, header: []string{"Cache-Control", "max-age=60"}, fresh: time.Minute},
		{name: "unknown status that says so", status: 299, header: []string{"Cache-Control", "max-age=60"}, fresh: time.Minute},
		{name: "unknown status", rules: ttl, status: 299, why: "not-fresh"},
		{name: "no-store", header: []string{"Cache-Control", "max-age=60, No-Store"}, why: "no-store"},
		{name: "must-understand known", header: []string{"Cache-Control", "max-age=60, no-store, must-understand"}, fresh: time.Minute},
		{name: "must-understand unknown", status: 299, header: []string{"Cache-Control", "max-age=60, no-store, must-understand"}, why: "must-understand"},
		{name: "private", header: []string{"Cache-Control", "private, max-age=60"}, why: "private"},
		{name: "private field", header: []string{"Cache-Control", `private="x-user", max-age=60`}, fresh: time.Minute},
		{name: "private with blanks", header: []string{"Cache-Control", `max-age=60, private = "x-user"`}, why: "private"},
		{name: "private for a field, and for all", header: []string{"Cache-Control", `private="x-user", max-age=60`, "Cache-Control", "private"}, why: "private"},
		{name: "private that does not end", header: []string{"Cache-Control", `max-age=60, private="x-user`}, why: "private"},
		{name: "no-cache for a field, and for all", header: []string{"Cache-Control", `no-cache="x-user", no-cache, max-age=60`}, why: "not-fresh"},
		{name: "more directives than anybody sends", header: []string{"Cache-Control", strings.Repeat("a, ", 99) + numbered(99) + "max-age=60"}, why: "no-store"},
		{name: "no range, though it says so", status: 416, header: []string{"Cache-Control", "max-age=60"}, why: "status"},
		{name: "found, that does not say so", rules: Rules{TTL: time.Minute, Stale: true}, status: 302, why: "not-fresh"},
		{name: "pragma, where stale is good enough", rules: Rules{TTL: time.Minute, Stale: true}, header: []string{"Pragma", "no-cache"}, why: "not-fresh"},
		{name: "vary *", header: []string{"Cache-Control", "max-age=60", "Vary", "accept, *"}, why: "vary"},
		{name: "events", header: []string{"Cache-Control", "max-age=60", "Content-Type", "Text/Event-Stream; x"}, why: "stream"},
		// section 3.5
		{name: "authorization", request: []string{"Authorization", "x"}, header: []string{"Cache-Control", "max-age=60"}, why: "authorization"},
		{name: "client certificate", request: []string{FieldIdentity, "URI:spiffe://a/b"}, header: []string{"Cache-Control", "max-age=60"}, why: "authorization"},
		{name: "authorization public", request: []string{"Authorization", "x"}, header: []string{"Cache-Control", "public, max-age=60"}, fresh: time.Minute},
		{name: "authorization s-maxage", request: []string{"Authorization", "x"}, header: []string{"Cache-Control", "s-maxage=60"}, fresh: time.Minute},
		{name: "authorization must-revalidate", request: []string{"Authorization", "x"}, header: []string{"Cache-Control", "max-age=60, must-revalidate"}, fresh: time.Minute},
		// ours
		{name: "set-cookie", header: []string{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"}, why: "set-cookie"},
		{name: "set-cookie public", header: []string{"Cache-Control", "public, max-age=60", "Set-Cookie", "a=b"}, fresh: time.Minute},
		{name: "cookie", rules: ttl, request: []string{"Cookie", "a=b"}, why: "cookie"},
		{name: "cookie explicit", rules: ttl, request: []string{"Cookie", "a=b"}, header: []string{"Cache-Control", "max-age=60"}, fresh: time.Minute},
		// section 4.2.1
		{name: "max-age", header: []string{"Cache-Control", "max-age=60"}, fresh: time.Minute},
		{name: "s-maxage first", header: []string{"Cache-Control", "max-age=9, s-maxage=60", "Expires", "0"}, fresh: time.Minute},
		{name: "max-age before Expires", header: []string{"Cache-Control", "max-age=60", "Expires", httpDate(t0)}, fresh: time.Minute},
		{name: "Expires", header: []string{"Expires", httpDate(t0.Add(time.Minute)), "Date", httpDate(t0)}, fresh: time.Minute},
		{name: "Expires without Date", header: []string{"Expires", httpDate(t0.Add(time.Minute))}, fresh: time.Minute},
		{name: "Expires by their clock", header: []string{"Expires", httpDate(t0.Add(11 * time.Minute)), "Date", httpDate(t0.Add(10 * time.Minute))}, fresh: time.Minute},
		{name: "Expires unreadable", rules: ttl, header: []string{"Expires", "0"}, why: "not-fresh"},
		{name: "Expires twice", rules: ttl, header: []string{"Expires", httpDate(t0.Add(time.Hour)), "Expires", httpDate(t0.Add(time.Hour))}, why: "not-fresh"},
		{name: "max-age unreadable", rules: ttl, header: []string{"Cache-Control", "max-age=soon"}, why: "not-fresh"},
		{name: "max-age negative", rules: ttl, header: []string{"Cache-Control", "max-age=-5"}, why: "not-fresh"},
		{name: "max-age huge", header: []string{"Cache-Control", "max-age=99999999999"}, fresh: forever},
		{name: "quoted directive", header: []string{"Cache-Control", `x="max-age=60", max-age=5`}, fresh: 5 * time.Second},
		{name: "stale with validator", header: []string{"Cache-Control", "max-age=0", "Etag", `"x"`}, fresh: 0},
		{name: "stale without", header: []string{"Cache-Control", "max-age=0"}, why: "not-fresh"},
		{name: "stale with a use", rules: Rules{Stale: true}, header: []string{"Cache-Control", "max-age=0"}, fresh: 0},
		{name: "stale with no use", rules: Rules{Stale: true}, header: []string{"Cache-Control", "max-age=0, must-revalidate"}, why: "not-fresh"},
		{name: "no-cache", header: []string{"Cache-Control", "max-age=60, no-cache", "Last-Modified", day}, fresh: 0},
		{name: "no-cache without validator", header: []string{"Cache-Control", "max-age=60, no-cache"}, why: "not-fresh"},
		{name: "no-cache field", header: []string{"Cache-Control", `max-age=60, no-cache="a"`}, fresh: time.Minute},
		// section 4.2.3
		{name: "Age", header: []string{"Cache-Control", "max-age=60", "Age", "20"}, fresh: 40 * time.Second},
		{name: "Age list", header: []string{"Cache-Control", "max-age=60", "Age", "20, 0"}, fresh: 40 * time.Second},
		{name: "Age unreadable", header: []string{"Cache-Control", "max-age=60", "Age", "20.0"}, fresh: time.Minute},
		{name: "Date shows age", header: []string{"Cache-Control", "max-age=60", "Date", httpDate(t0.Add(-20 * time.Second))}, fresh: 40 * time.Second},
		// section 4.2.2
		{name: "ttl", rules: ttl, fresh: time.Minute},
		{name: "ttl of an error", rules: ttl, status: 404, fresh: time.Second},
		{name: "bad request", rules: ttl, status: 400, header: []string{"Cache-Control", "public, max-age=60"}, why: "status"},
		{name: "forbidden", rules: ttl, status: 403, header: []string{"Cache-Control", "public, max-age=60"}, why: "status"},
		{name: "gone", rules: ttl, status: 410, fresh: time.Second},
		{name: "ttl of public", rules: ttl, status: 201, header: []string{"Cache-Control", "public"}, fresh: time.Minute},
		{name: "pragma", rules: ttl, header: []string{"Pragma", "no-cache"}, why: "not-fresh"},
		{name: "heuristic", rules: heuristic, header: []string{"Last-Modified", day}, fresh: 144 * time.Minute},
		{name: "heuristic bounded", rules: heuristic, header: []string{"Last-Modified", httpDate(t0.Add(-9000 * time.Hour))}, fresh: 24 * time.Hour},
		{name: "heuristic of 202", rules: heuristic, status: 202, header: []string{"Last-Modified", day, "Etag", `"x"`}, fresh: 0},
		{name: "heuristic of nothing", rules: heuristic, why: "not-fresh"},
		{name: "none", rules: none, why: "not-fresh"},
		{name: "none with validator", rules: none, header: []string{"Last-Modified", day}, fresh: 0},
		// RFC 9213
		{name: "cdn", header: []string{"Cdn-Cache-Control", "max-age=60", "Cache-Control", "no-store", "Expires", "0"}, fresh: time.Minute},
		{name: "cdn private", header: []string{"Cdn-Cache-Control", "private", "Cache-Control", "max-age=60"}, why: "private"},
		{name: "cdn malformed", header: []string{"Cdn-Cache-Control", "max-age=60, &&", "Cache-Control", "no-store"}, why: "no-store"},
		{name: "cdn of the wrong type", header: []string{"Cdn-Cache-Control", `max-age="60"`, "Cache-Control", "max-age=5"}, fresh: 5 * time.Second},
		{name: "cdn parameters", header: []string{"Cdn-Cache-Control", `a;b=1;c="x", max-age=60;d, e=:aGk=:, f=?0, g=1.5, h=tok/x`}, fresh: time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := Exchanged{Method: "GET", Request: fields(tt.request...), Status: 200, Header: fields(tt.header...), Sent: t0, Received: t0}
			if tt.method != "" {
				x.Method = tt.method
			}
			if tt.status != 0 {
				x.Status = tt.status
			}
			v := tt.rules.Judge(x)
			if tt.rules == (Rules{}) {
				v = none.Judge(x)
			}
			if v.Why != tt.why || tt.why == "" && v.Fresh != tt.fresh {
				t.Errorf("%q for %v, want %q for %v", v.Why, v.Fresh, tt.why, tt.fresh)
			}
		})
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("a" + strconv.Itoa(i) + ", ")
	}
	return b.String()
}

func TestNoAgeIsTooLongToBeCounted(t *testing.T) {
	h := fields("Date", "Mon, 01 Jan 0001 00:00:00 GMT", "Age", "99999999999", "Etag", `"x"`, "Cache-Control", "max-age=60")
	v := Rules{}.Judge(Exchanged{Method: "GET", Status: 200, Header: h, Sent: t0.Add(-time.Minute), Received: t0})
	a := NewAnswer(200, h, nil, t0, v)
	if later := t0.Add(time.Hour); v.Why != "" || v.Fresh > 0 || a.AgeAt(later) <= forever || a.Left(later) > 0 {
		t.Errorf("%+v, age %v", v, a.AgeAt(later))
	}
}

func TestFieldsOfTwoDirectivesAddUp(t *testing.T) {
	h := fields("Cache-Control", `max-age=60, private="x-user"`, "Cache-Control", `private="x-plan"`, "X-User", "u", "X-Plan", "p", "Set-Cookie", "a=b")
	v := Rules{}.Judge(Exchanged{Method: "GET", Status: 200, Header: h, Sent: t0, Received: t0})
	if v.Why != "set-cookie" {
		t.Errorf("%+v", v)
	}
	h["Cache-Control"] = append(h["Cache-Control"], "public")
	v = Rules{}.Judge(Exchanged{Method: "GET", Status: 200, Header: h, Sent: t0, Received: t0})
	if a := NewAnswer(200, h, nil, t0, v); v.Why != "" || len(a.Header["X-User"])+len(a.Header["X-Plan"])+len(a.Header["Set-Cookie"]) > 0 {
		t.Errorf("%+v %v", v, a.Header)
	}
}

func TestTheTimeUnderWayIsAge(t *testing.T) {
	v := Rules{}.Judge(Exchanged{
		Method: "GET", Status: 200, Header: fields("Cache-Control", "max-age=60", "Age", "10"), Sent: t0.Add(-5 * time.Second), Received: t0,
	})
	if v.Age != 15*time.Second || v.Fresh != 45*time.Second {
		t.Errorf("%+v", v)
	}
}

func TestForHowLongAnAnswerMayBeUsedStale(t *testing.T) {
	for control, want := range map[string][2]time.Duration{
		"max-age=1": {0, 0},
		"max-age=1, stale-while-revalidate=5, stale-if-error=7": {5 * time.Second, 7 * time.Second},
		"max-age=1, must-revalidate, stale-if-error=7":          {-1, -1},
		"max-age=1, proxy-revalidate":                           {-1, -1},
		"no-cache, stale-while-revalidate=5":                    {-1, -1},
		"s-maxage=1":                                            {-1, -1},
		"s-maxage=1, stale-while-revalidate=5":                  {5 * time.Second, -1},
	} {
		v := Rules{}.Judge(Exchanged{Method: "GET", Status: 200, Header: fields("Cache-Control", control, "Etag", `"x"`), Sent: t0, Received: t0})
		if v.Revalidate != want[0] || v.IfError != want[1] || v.Why != "" {
			t.Errorf("%s: %+v", control, v)
		}
	}
}

func TestWhatIsNotForEverybodyIsLeftOut(t *testing.T) {
	h := fields("Cache-Control", `max-age=60, private="x-user, x-plan", no-cache="x-seen"`, "X-User", "u", "X-Plan", "p", "X-Seen", "s", "X-All", "a")
	v := Rules{}.Judge(Exchanged{Method: "GET", Status: 200, Header: h, Sent: t0, Received: t0})
	a := NewAnswer(200, h, []byte("body"), t0, v)
	if a.Header.Get("X-All") != "a" || len(a.Header["X-User"])+len(a.Header["X-Plan"])+len(a.Header["X-Seen"]) != 0 {
		t.Errorf("%v", a.Header)
	}
	if a.Header.Get("Date") != httpDate(t0) || a.Header.Get("Content-Length") != "4" || h.Get("Date") != "" {
		t.Errorf("%v, from %v", a.Header, h)
	}
}

func TestWishes(t *testing.T) {
	tests := []struct {
		header []string
		want   Wishes
	}{
		{nil, Wishes{}},
		{[]string{"Cache-Control", "no-store"}, Wishes{NoStore: true}},
		{[]string{"Cache-Control", "No-Cache"}, Wishes{Confirm: true}},
		{[]string{"Cache-Control", "max-age=0"}, Wishes{Confirm: true}},
		{[]string{"Cache-Control", "max-age=5, min-fresh=6, max-stale=7"}, Wishes{MaxAge: 5 * time.Second, MinFresh: 6 * time.Second, MaxStale: 7 * time.Second}},
		{[]string{"Cache-Control", "max-stale"}, Wishes{MaxStale: forever}},
		{[]string{"Cache-Control", "only-if-cached"}, Wishes{OnlyIfCached: true}},
		{[]string{"Pragma", "no-cache"}, Wishes{Confirm: true}},
		{[]string{"Pragma", "no-cache", "Cache-Control", "x"}, Wishes{}},
		{[]string{"Pragma", "x"}, Wishes{}},
	}
	for _, tt := range tests {
		if got := WishesOf(fields(tt.header...)); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.header, got, tt.want)
		}
	}
}

func TestDates(t *testing.T) {
	good := map[string]time.Time{
		"Sun, 06 Nov 1994 08:49:37 GMT":    time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC),
		"SUN, 06 nOV 1994 08:49:37 gmt":    time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC),
		"Sunday, 06-Nov-94 08:49:37 GMT":   time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC),
		"Thursday, 18-Aug-50 02:01:18 GMT": time.Date(2050, 8, 18, 2, 1, 18, 0, time.UTC),
		"Sun Nov  6 08:49:37 1994":         time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC),
		"Sun Nov 16 08:49:37 1994":         time.Date(1994, 11, 16, 8, 49, 37, 0, time.UTC),
		"Thu, 29 Feb 2024 23:59:60 GMT":    time.Date(2024, 2, 29, 23, 59, 59, 0, time.UTC),
	}
	for s, want := range good {
		if got, ok := ParseDate(s, t0); !ok || !got.Equal(want) {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "0", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 2050 02:01:18 AEST", "Thu, 18 Aug 50 02:01:18 GMT",
		"Thu 18 Aug 2050 02:01:18 GMT", "Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT",
		"Thu, 18 Aug 2050 02.01.18 GMT", "Thu, 18 Aug 2050 2:01:18 GMT", "Xxx, 18 Aug 2050 02:01:18 GMT",
		"Thu, 31 Feb 2050 02:01:18 GMT", "Thu, 18 uga 2050 02:01:18 GMT", "Thu, 18 Aug 2050 24:01:18 GMT", "Thu, -1 Aug 2050 02:01:18 GMT",
	} {
		if got, ok := ParseDate(s, t0); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func FuzzParseDate(f *testing.F) {
	f.Add("Sun, 06 Nov 1994 08:49:37 GMT")
	f.Add("Sunday, 06-Nov-94 08:49:37 GMT")
	f.Add("Sun Nov  6 08:49:37 1994")
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := ParseDate(s, t0); ok {
			again, ok := ParseDate(httpDate(at), t0)
			if !ok || !again.Equal(at) {
				t.Errorf("%q is %v, then %v", s, at, again)
			}
		}
	})
}

func FuzzDirectives(f *testing.F) {
	f.Add(`max-age=1, private="a, b", x`, "a")
	f.Add(`max-age = 1,,"`, "")
	f.Fuzz(func(t *testing.T, a, b string) {
		d := ParseDirectives([]string{a, b})
		for _, x := range d.list {
			if x.name == "" {
				t.Error("a directive without a name")
			}
			if n, said := d.Seconds(x.name); !said || n < 0 || n > forever {
				t.Error(x, n)
			}
			d.Fields(x.name)
		}
		parseTargeted([]string{a, b})
	})
}
