package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

// ended opens and closes spans of a process.
func ended(t *testing.T, p *process, spans int) {
	t.Helper()
	for range spans {
		_, x := p.begin(t.Context(), oteltrace.SpanKindInternal, "work", 0)
		x.end()
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// stubborn is an exporter whose receiver answers so.
func stubborn(answer func(*http.Request) (*http.Response, error)) *exporter {
	e := newExporter("http://receiver.test/v1/traces")
	e.client.Transport = tripper(answer)
	e.start()
	return e
}

func accepted(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestExporterDropsAndCountsWhatItCannotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := stubborn(func(r *http.Request) (*http.Response, error) {
			<-release
			return accepted(r)
		})
		p := newProcess(e, "shop", "shop-1", "host")
		ended(t, p, spanQueue+7)
		if got := e.dropped.Load(); got != 7 {
			t.Errorf("dropped %d; want 7", got)
		}
		close(release)
		e.finish()
		if sent, dropped := e.sent.Load(), e.dropped.Load(); sent != spanQueue || dropped != 7 {
			t.Errorf("sent %d, dropped %d; want %d and 7", sent, dropped, spanQueue)
		}
		idle := newExporter("")
		idle.start()
		ended(t, newProcess(idle, "shop", "shop-1", "host"), 3)
		if idle.finish(); idle.sent.Load() != 0 || idle.dropped.Load() != 0 {
			t.Error("spans are kept though there is no receiver")
		}
	})
}

func TestExporterSendsWhatIsLeftAndGivesUpOnce(t *testing.T) {
	const spans = 100
	for name, c := range map[string]struct {
		answer        func(*http.Request) (*http.Response, error)
		sent, dropped uint64
	}{
		"accepted": {accepted, spans, 0},
		"refused": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody}, nil
		}, 0, spans},
		"gone": {func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, 0, spans},
		"hangs": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}, 0, spans},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				e := stubborn(c.answer)
				ended(t, newProcess(e, "shop", "shop-1", "host"), spans)
				e.finish()
				if sent, dropped := e.sent.Load(), e.dropped.Load(); sent != c.sent || dropped != c.dropped {
					t.Errorf("%d spans sent, %d dropped; want %d, %d", sent, dropped, c.sent, c.dropped)
				}
				if took := time.Since(began); took > 2*sendTimeout {
					t.Errorf("the end took %s; want at most %s", took, 2*sendTimeout)
				}
			})
		})
	}
}

func TestExporterDoesNotKeepAFewSpansWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := stubborn(accepted)
		ended(t, newProcess(e, "shop", "shop-1", "host"), 1)
		time.Sleep(spanLinger + time.Millisecond)
		synctest.Wait()
		if got := e.sent.Load(); got != 1 {
			t.Errorf("%d spans are sent after the linger time; want 1", got)
		}
		e.finish()
	})
}

func TestSpansTellTheirProcessAndItsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string]trace.Span{}
		e := stubborn(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			err = ingest.DecodeOTLP(body, func(s trace.Span) { got[s.Name] = s })
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
		})
		shop, mail := newProcess(e, "shop", "shop-1.2", "shop-1"), newProcess(e, "mail", "mail-1", "mail-1")
		silent := newProcess(nil, "ads", "ads-1", "ads-1")
		began := time.Now()
		ctx, outer := shop.begin(t.Context(), oteltrace.SpanKindServer, "outer", 0)
		hidden, between := silent.begin(ctx, oteltrace.SpanKindServer, "hidden", 0)
		_, inner := mail.begin(hidden, oteltrace.SpanKindInternal, "inner", -time.Hour)
		time.Sleep(time.Second)
		inner.fail("timeout")
		inner.end()
		between.end()
		outer.end()
		e.finish()
		o, i := got["outer"], got["inner"]
		if len(got) != 2 || i.Parent != o.ID || i.TraceID != o.TraceID || o.Parent != "" || o.Kind != trace.Server || i.Kind != trace.Internal {
			t.Fatalf("the spans do not make one trace: %+v", got)
		}
		if o.Host != "shop-1" || o.Service != "shop" || o.Attr("service.instance.id") != "shop-1.2" || o.Attr("process.creation.time") == "" {
			t.Errorf("its process does not show: %+v", o)
		}
		if o.Start != began.UnixNano() || o.End-o.Start != int64(time.Second) || i.Start != began.Add(-time.Hour).UnixNano() || i.End-i.Start != int64(time.Second) {
			t.Errorf("outer %d..%d, inner %d..%d; want a second each, and an hour between their clocks", o.Start, o.End, i.Start, i.End)
		}
		if !i.Failed || i.Attr("error.type") != "timeout" || o.Failed {
			t.Errorf("the failure is told as %+v", i)
		}
	})
}
