package gateway

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/longpole/longpole/internal/trace"
)

// checkTree fails unless the spans form one call each: a SERVER span, and CLIENT spans that lie below it.
func checkTree(t *testing.T, list []trace.Span) {
	t.Helper()
	servers := map[string]trace.Span{}
	seen := map[string]bool{}
	for _, s := range list {
		if seen[s.ID] {
			t.Errorf("two spans are %s", s.ID)
		}
		seen[s.ID] = true
		if s.Kind == trace.Server {
			servers[s.ID] = s
		}
	}
	for _, s := range list {
		if s.Duration() < 0 {
			t.Errorf("span ends before it starts: %+v", s)
		}
		if s.Kind != trace.Client {
			continue
		}
		p, ok := servers[s.Parent]
		if !ok || p.TraceID != s.TraceID || s.Start < p.Start {
			t.Errorf("span does not lie below a call: %+v", s)
		}
	}
}

func TestSpansChainFromTheClientToTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const traceID, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
		n := newNetwork()
		var arrived []http.Header
		first := true
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			arrived = append(arrived, r.Header)
			if first {
				first = false
				w.WriteHeader(503)
			}
		})
		var spans collector
		n.start(t, one("{}", "http://a:1"), spans.add)
		got := get(t, n.client(t), "http://gw:80/x?q=1", "Traceparent", "00-"+traceID+"-"+parent+"-00", "Tracestate", "v=1", "Baggage", "k=v")
		synctest.Wait()
		list := spans.all()
		if got.status != 200 || len(list) != 3 || len(arrived) != 2 {
			t.Fatalf("got %+v, %d spans, %d attempts", got, len(list), len(arrived))
		}
		checkTree(t, list)
		server := list[2]
		if server.Parent != parent || server.TraceID != traceID || server.Service != "longpole-gateway" || server.Name != "all" || server.Failed ||
			server.Attr("url.path") != "/x" || server.Attr("url.query") != "q=1" || server.Attr("http.response.status_code") != "200" ||
			server.Attr("longpole.segment") != "gateway" || server.Attr("longpole.cache") != "uncached" {
			t.Errorf("server span is %+v", server)
		}
		for i, h := range arrived {
			if want := "00-" + traceID + "-" + list[i].ID + "-00"; h.Get("Traceparent") != want || h.Get("Tracestate") != "v=1" || h.Get("Baggage") != "k=v" {
				t.Errorf("attempt %d came with %v; want %s", i, h, want)
			}
		}
		a, b := list[0], list[1]
		if !a.Failed || a.Attr("http.response.status_code") != "503" || a.Attr("http.request.resend_count") != "" ||
			b.Failed || b.Attr("http.request.resend_count") != "1" || b.Attr("server.address") != "a" || b.Attr("service.peer.name") != "up" || b.Attr("server.port") != "1" || b.Attr("longpole.endpoint") != "a:1" {
			t.Errorf("attempts are %+v\n%+v", a, b)
		}
	})
}

func TestABadTraceparentBeginsANewTrace(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true, "01" + good[2:] + "-more": true, "01" + good[2:]: true,
		"": false, good + "-more": false, "ff" + good[2:]: false, good[:54]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01": false,
		"01" + good[2:] + "x": false,
	} {
		if _, got := parseTraceparent(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
	p, inherited := parentOf(http.Header{"Traceparent": {good, good}, "Tracestate": {"x"}})
	if inherited || p.parent != "" || len(p.trace) != 32 || p.flags != "01" {
		t.Errorf("got %+v", p)
	}
}
