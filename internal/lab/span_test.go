package lab

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

func TestTraceparentIsReadStrictly(t *testing.T) {
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for header, want := range map[string]bool{
		"00-" + id + "-" + parent + "-01":                               true,
		"00-" + id + "-" + parent + "-00":                               true,
		"cc-" + id + "-" + parent + "-01-later":                         true,
		"00-" + id + "-" + parent + "-01-later":                         false,
		"ff-" + id + "-" + parent + "-01":                               false,
		"00-" + strings.ToUpper(id) + "-" + parent + "-01":              false,
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01":          false,
		"00-" + id + "-" + strings.Repeat("0", 16) + "-01":              false,
		"00-" + id + "-" + parent:                                       false,
		"00-" + id[1:] + "-" + parent + "-01":                           false,
		"00-" + strings.Replace(id, "4", "g", 1) + "-" + parent + "-01": false,
		"": false, "----": false,
	} {
		got, ok := parseTraceparent(header)
		if ok != want || (ok && (got.trace != id || got.span != parent)) {
			t.Errorf("%q: %+v, %v; want accepted %v", header, got, ok, want)
		}
	}
}

func FuzzTraceparentSurvivesAnything(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("00--")
	f.Fuzz(func(t *testing.T, header string) {
		if got, ok := parseTraceparent(header); ok {
			if again, ok := parseTraceparent(got.traceparent()); !ok || again != got {
				t.Errorf("%q was read as %+v, which is not read back", header, got)
			}
		}
	})
}

func TestExporterDropsAndCountsWhatItCannotHold(t *testing.T) {
	e := newExporter("http://receiver.test/")
	for range spanQueue + 7 {
		e.add(trace.Span{})
	}
	if got := e.dropped.Load(); got != 7 || len(e.queue) != spanQueue {
		t.Errorf("dropped %d, queued %d; want 7 and %d", got, len(e.queue), spanQueue)
	}
	idle := newExporter("")
	if idle.add(trace.Span{}); len(idle.queue) != 0 || idle.dropped.Load() != 0 {
		t.Error("spans are kept though there is no receiver")
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestExporterSendsWhatIsLeftAndGivesUpOnce(t *testing.T) {
	const spans = 2*spanBatch + 100
	for name, c := range map[string]struct {
		answer        func() (*http.Response, error)
		posts         int
		sent, dropped uint64
	}{
		"accepted": {func() (*http.Response, error) { return &http.Response{StatusCode: 200, Body: http.NoBody}, nil }, 3, spans, 0},
		"refused":  {func() (*http.Response, error) { return &http.Response{StatusCode: 503, Body: http.NoBody}, nil }, 1, 0, spans},
		"gone":     {func() (*http.Response, error) { return nil, errors.New("refused") }, 1, 0, spans},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var posts int
				e := newExporter("http://receiver.test/v1/traces")
				e.client.Transport = tripper(func(*http.Request) (*http.Response, error) {
					posts++
					return c.answer()
				})
				for range spans {
					e.add(trace.Span{TraceID: "1", ID: "1"})
				}
				e.flush(nil)
				if sent, dropped := e.sent.Load(), e.dropped.Load(); posts != c.posts || sent != c.sent || dropped != c.dropped {
					t.Errorf("%d posts, %d spans sent, %d dropped; want %d, %d, %d", posts, sent, dropped, c.posts, c.sent, c.dropped)
				}
			})
		})
	}
}

func TestExporterDoesNotKeepAFewSpansWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter("http://receiver.test/v1/traces")
		e.client.Transport = tripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { e.run(ctx) })
		e.add(trace.Span{TraceID: "1", ID: "1"})
		time.Sleep(spanLinger + time.Millisecond)
		if got := e.sent.Load(); got != 1 {
			t.Errorf("%d spans are sent after the linger time; want 1", got)
		}
		cancel()
		ended.Wait()
	})
}
