package report_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/report"
	"github.com/longpole/longpole/internal/systemtest"
	"github.com/longpole/longpole/internal/trace"
)

// hostile is a name that would be markup if it were not text.
const hostile = `<img src=x onerror=alert(1)>`

// shop is n traces: a query that gets slower, a loop of calls on another service, and names that are markup.
func shop(t *testing.T, n int) []trace.Trace {
	t.Helper()
	var all []trace.Trace
	for i := range n {
		query := 10 + i*i*100/(n*n)
		tenant := "t1"
		if i > n*9/10 {
			tenant = "t7"
		}
		one, err := trace.Parse(fmt.Sprintf(`
			"GET /cart" 0ms %[1]dms service=shop kind=server host=a trace=t%[3]d tenant=%[4]s
			  "GET /price" 2ms 8ms x10 kind=client
			    "GET /price" 56ms 62ms service=price kind=server host=b
			  "SELECT items" 64ms %[2]dms kind=client db.system.name=postgresql db.query.text="SELECT name FROM items WHERE order_id = 7"
			  %[5]q %[2]dms %[1]dms
			  audit %[1]dms %[1]dms kind=producer
		`, 70+query, 64+query, i, tenant, hostile))
		if err != nil {
			t.Fatal(err)
		}
		for k := range one.Spans {
			one.Spans[k].Start += int64(i) * int64(time.Second)
			one.Spans[k].End += int64(i) * int64(time.Second)
		}
		all = append(all, one)
	}
	return all
}

// facts are what a database and a process told of the shop.
func facts() evidence.Facts {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	leaf := func(name string, v float64) *evidence.Frame { return &evidence.Frame{Name: name, Value: v, Self: v} }
	return evidence.Facts{
		From: at, To: at.Add(10 * time.Second),
		Postgres: []evidence.PostgresFacts{{
			Name:     "db:5432/shop",
			Sessions: &evidence.Sessions{Max: 100, Total: 42, WaitingForLock: 2},
			Top:      []evidence.StatementStat{{QueryID: 1, Text: "SELECT name FROM items WHERE order_id = $1", Calls: 1000, TotalMS: 80_000}},
			Chains: []evidence.LockChain{{
				Root:    evidence.Backend{PID: 77, Application: "batch", State: "idle in transaction", Query: "UPDATE items SET name = $1"},
				Waiters: []evidence.Waiter{{Depth: 1}}, Longest: 3 * time.Second,
			}},
			Gaps: []evidence.Gap{{What: "planner's gain of an index", Why: "hypopg is not installed in this database"}},
		}},
		Services: []evidence.ServiceFacts{{
			Service: "shop", Pools: []evidence.PoolStats{{Name: "main", Max: 4, Used: 4, Pending: 3}},
			Profiles: []evidence.ProfileFacts{{
				Kind: "cpu", Samples: 900, Top: []evidence.Function{{Name: "encoding/json.Marshal", Flat: 60, Cum: 80, FlatShare: 0.6, CumShare: 0.8}},
				Flame: &evidence.Frame{Value: 100, Children: []*evidence.Frame{
					{Name: "main.serve", Value: 90, Self: 10, Children: []*evidence.Frame{leaf("encoding/json.Marshal", 60), leaf(hostile, 20)}}, leaf("runtime.gcBgMarkWorker", 10),
				}},
			}},
		}},
	}
}

func pageOf(t *testing.T, n int) (report.Page, []trace.Trace) {
	t.Helper()
	traces := shop(t, n)
	o := diagnose.Options{Files: 1, Facts: facts()}
	r := advise.Run(traces, o, map[string]longpole.Config{})
	return report.Page{
		Report: r, Pictures: diagnose.Pictures(traces, o, report.MaxRoutes), Facts: facts(),
		Made: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Version: "test",
	}, traces
}

// beside is the page of the shop with a baseline in which the query was fast and the loop there already.
func beside(t *testing.T) report.Page {
	t.Helper()
	traces := shop(t, 300)
	o := diagnose.Options{Files: 1, Baseline: shop(t, 300)}
	const more = 60 * int64(time.Millisecond)
	for i := range traces {
		for k := range traces[i].Spans {
			s := &traces[i].Spans[k]
			s.Attributes = append(s.Attributes, trace.Attribute{Key: "service.version", Value: "2"})
			after := s.End - int64(i)*int64(time.Second)
			if s.Name == "SELECT items" || s.Parent == "" {
				s.End += more
			} else if after > 64*int64(time.Millisecond) {
				s.Start, s.End = s.Start+more, s.End+more
			}
		}
	}
	return report.Page{Report: advise.Run(traces, o, map[string]longpole.Config{}), Pictures: diagnose.Pictures(traces, o, report.MaxRoutes)}
}

// TestABaselineIsShownBesideEachRoute: how it changed, whose time did and by how much, what the traces have now, and which findings
// are new.
func TestABaselineIsShownBesideEachRoute(t *testing.T) {
	p := beside(t)
	text := render(t, p)
	a := p.Report.Routes[0].Against
	if a == nil || a.Change != diagnose.Slower || len(a.Segments) == 0 || len(a.Differences) == 0 {
		t.Fatalf("%+v", a)
	}
	for _, want := range []string{
		"Beside the baseline <span class=\"badge\">slower</span>", "300 traces of the baseline: p50", "chance alone", "Change of the slowest ms",
		"service.version = 2", "new since the baseline", "as in the baseline", "What makes it slower than the baseline",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, s := range a.Segments {
		if want := report.Milliseconds(s.BeforeMS.P99) + " → " + report.Milliseconds(s.NowMS.P99); !strings.Contains(text, want) {
			t.Errorf("%s %s: the page does not say %q", s.Segment, s.Service, want)
		}
	}
	alone, _ := pageOf(t, 60)
	if text := render(t, alone); strings.Contains(text, "aseline") {
		t.Error("a page without a baseline speaks of one")
	}
}

func render(t *testing.T, p report.Page) string {
	t.Helper()
	var out bytes.Buffer
	if err := report.Write(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestAPageOfAThousandTracesIsSmallAndWhole: all parts are there, nothing is loaded, and names stay text.
func TestAPageOfAThousandTracesIsSmallAndWhole(t *testing.T) {
	p, _ := pageOf(t, 1000)
	text := render(t, p)
	if len(text) >= report.MaxBytes {
		t.Errorf("%d bytes", len(text))
	}
	t.Logf("%d bytes of 1000 traces", len(text))
	for _, want := range []string{
		"1000 traces", "shop GET /cart", "What the time is spent on", "LP102 n_plus_one", "What speaks for it", "A typical trace", "A slow trace",
		"What goes with slow", "tenant = t7", "PostgreSQL db:5432/shop", "process 77 of batch", "encoding/json.Marshal", "Content-Security-Policy", "4 March 2026, 05:06 UTC", "predicted",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(text, hostile) {
		t.Error("a name became markup")
	}
	for _, a := range outside(t, text) {
		t.Errorf("the page loads %s", a)
	}
}

// outside lists what the page would load, and the handlers and styles that its policy forbids.
func outside(t *testing.T, text string) (list []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			switch {
			case a.Key == "src", a.Key == "style", strings.HasPrefix(a.Key, "on"), a.Key == "href" && !strings.HasPrefix(a.Val, "#") && a.Val != "data:,":
				list = append(list, n.Data+" "+a.Key+"="+a.Val)
			}
		}
	}
	return list
}

// TestAPageStaysBelowItsBound: of many routes with long names the largest stay.
func TestAPageStaysBelowItsBound(t *testing.T) {
	p, _ := pageOf(t, 60)
	long := strings.Repeat("very long evidence ", 40)
	one := p.Report.Routes[0]
	for i := range one.Findings {
		one.Findings[i].Evidence = append(one.Findings[i].Evidence, long, long)
		for k := range one.Findings[i].Actions {
			one.Findings[i].Actions[k].Snippets = []advise.Snippet{{For: "envoy", Text: strings.Repeat("setting: value\n", 500)}}
		}
	}
	picture := p.Pictures[0]
	p.Report.Routes, p.Pictures = nil, nil
	for range 200 {
		p.Report.Routes = append(p.Report.Routes, one)
		p.Pictures = append(p.Pictures, picture)
	}
	if n := len(render(t, p)); n >= report.MaxBytes {
		t.Errorf("%d bytes", n)
	}
	if text := render(t, report.Page{}); !strings.Contains(text, "Where the time goes") {
		t.Error("an empty report is no page")
	}
}

// TestThePageInABrowser says what it looks for in ui/report.test.mjs. With LONGPOLE_SCREENSHOTS it leaves pictures in that
// folder.
func TestThePageInABrowser(t *testing.T) {
	systemtest.NeedBrowser(t)
	p, _ := pageOf(t, 300)
	pages := map[string]string{"/": render(t, p), "/beside": render(t, beside(t))}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(pages[r.URL.Path]))
	}))
	defer server.Close()
	systemtest.Look(t, "report.test.mjs", server.URL)
}
