package load_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/setting"
)

// tripper fakes the system under test.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("ok"))}
}

// after answers with 200 after d, or fails when the call is given up.
func after(d time.Duration) tripper {
	return func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return answer(http.StatusOK), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func plan(perSecond float64) load.Plan {
	return load.Plan{
		Arrivals: load.Uniform,
		Targets:  []load.Target{{Name: "a", PerSecond: perSecond, URL: load.Fixed("http://a.test/x?n=1")}},
	}
}

func newGenerator(t *testing.T, p load.Plan, o load.Options) *load.Generator {
	t.Helper()
	g, err := load.New(p, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// run lets g run for d of virtual time, less a moment: no call is due just when the run ends.
func run(t *testing.T, g *load.Generator, d time.Duration) load.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d-time.Millisecond)
	defer cancel()
	if err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return g.Snapshot().Results[0]
}

// within tells whether got is want, give or take the histogram's resolution.
func within(got, want time.Duration) bool {
	return got >= want*99/100 && got <= want*101/100
}

func TestStalledServerIsSeenByEveryCallThatWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		stalled := tripper(func(r *http.Request) (*http.Response, error) {
			if age := time.Since(start); age >= time.Second && age < 2*time.Second {
				time.Sleep(2*time.Second - age)
			}
			time.Sleep(time.Millisecond)
			return answer(http.StatusOK), nil
		})
		g := newGenerator(t, plan(100), load.Options{Transport: stalled})
		r := run(t, g, 10*time.Second)
		if r.Calls != 1000 || r.Failed != 0 || r.Dropped != 0 {
			t.Fatalf("got %d calls, %d failed, %d dropped; want 1000, 0, 0", r.Calls, r.Failed, r.Dropped)
		}
		// A closed loop with one worker would have seen one slow call.
		if slow := r.Response.Above(12 * time.Millisecond); slow < 95 || slow > 100 {
			t.Errorf("%d calls were slow; want about 100, one for each call due while the server stood still", slow)
		}
		if p99 := r.Response.Quantile(0.99); p99 < 850*time.Millisecond {
			t.Errorf("p99 is %s; want about 900ms", p99)
		}
		if doubt := r.Doubt(); doubt != "" {
			t.Errorf("a sound run is doubted: %s", doubt)
		}
	})
}

func TestResponseTimeCountsFromTheIntendedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan(10)
		p.Targets[0].URL = func(*rand.Rand) string { // the generator itself is held up
			time.Sleep(200 * time.Millisecond)
			return "http://a.test/"
		}
		r := run(t, newGenerator(t, p, load.Options{Transport: after(10 * time.Millisecond)}), time.Second)
		if got := r.Service.Quantile(1); !within(got, 10*time.Millisecond) {
			t.Errorf("service time is %s; want 10ms", got)
		}
		if got := r.Response.Quantile(0); !within(got, 210*time.Millisecond) {
			t.Errorf("the shortest response time is %s; want 210ms", got)
		}
		if got := r.Response.Quantile(1); got < 600*time.Millisecond {
			t.Errorf("the longest response time is %s; want the lateness to add up", got)
		}
		if !strings.Contains(r.Doubt(), "sent late") {
			t.Errorf("doubt is %q; want it to say that the generator was late", r.Doubt())
		}
	})
}

func TestInFlightIsBoundedAndTheRestIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var now, most int
		track := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			now += by
			most = max(most, now)
		}
		slow := tripper(func(r *http.Request) (*http.Response, error) {
			track(1)
			defer track(-1)
			time.Sleep(995 * time.Millisecond)
			return answer(http.StatusOK), nil
		})
		p := plan(100)
		p.MaxInFlight = 5
		r := run(t, newGenerator(t, p, load.Options{Transport: slow}), 10*time.Second)
		if most != 5 {
			t.Errorf("%d calls were in flight at once; want 5", most)
		}
		if r.Calls != 50 || r.Dropped != 950 {
			t.Errorf("got %d calls and %d dropped; want 50 and 950", r.Calls, r.Dropped)
		}
		if !strings.Contains(r.Doubt(), "950 of 1000 calls were dropped") {
			t.Errorf("doubt is %q; want it to count the dropped calls", r.Doubt())
		}
	})
}

func TestPhasesSplitOneStreamByWhenCallsWereDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGenerator(t, plan(10), load.Options{Transport: after(350 * time.Millisecond)})
		if err := g.Begin("before"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second-time.Millisecond)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		time.Sleep(10*time.Second - time.Millisecond)
		if err := g.Begin("after"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint64{"": 0, "before": 100, "after": 200} {
			s, ok := g.Phase(name)
			if got, _ := s.Target("a"); !ok || got.Calls != want {
				t.Errorf("phase %q: %d calls; want %d", name, got.Calls, want)
			}
		}
		before, _ := g.Phase("before")
		all := g.Snapshot()
		if want := 10*time.Second - time.Millisecond; before.Took != want {
			t.Errorf("phase before took %s; want %s", before.Took, want)
		}
		if late := all.Sub(before); late.Results[0].Calls != 200 || late.Results[0].Response.Count() != 200 || late.Took != 20*time.Second {
			t.Errorf("all less before: %d calls in %s; want 200 in 20s", late.Results[0].Calls, late.Took)
		}
		if _, ok := g.Phase("never"); ok {
			t.Error("a phase that never was is there")
		}
	})
}

func TestPhasesAreBounded(t *testing.T) {
	g := newGenerator(t, plan(1), load.Options{})
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = g.Begin(strings.Repeat("p", i))
	}
	if !errors.Is(err, load.ErrPhases) {
		t.Fatalf("got %v; want ErrPhases", err)
	}
	if err := g.Begin("p"); err != nil {
		t.Errorf("a known phase can no longer be continued: %v", err)
	}
}

func TestFailuresAreCountedByStatusClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n int
		mixed := tripper(func(*http.Request) (*http.Response, error) {
			n++ // calls 100 ms apart, each ended before the next
			switch n % 4 {
			case 0:
				return nil, errors.New("refused")
			case 1:
				return answer(200), nil
			case 2:
				return answer(404), nil
			}
			return answer(503), nil
		})
		r := run(t, newGenerator(t, plan(10), load.Options{Transport: mixed}), 2*time.Second)
		if want := [6]uint64{5, 0, 5, 0, 5, 5}; r.Statuses != want {
			t.Errorf("statuses by class: %v; want %v", r.Statuses, want)
		}
		if r.Calls != 20 || r.Failed != 15 || r.ErrorRatio() != 0.75 {
			t.Errorf("got %d calls, %d failed, ratio %g; want 20, 15, 0.75", r.Calls, r.Failed, r.ErrorRatio())
		}
	})
}

func TestCallsOutliveTheRunByDrainAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan(1)
		p.Drain = 500 * time.Millisecond
		start := time.Now()
		r := run(t, newGenerator(t, p, load.Options{Transport: after(10 * time.Second)}), 3500*time.Millisecond)
		if took := time.Since(start); took != 3999*time.Millisecond {
			t.Errorf("Run took %s; want 3.499s and 500ms of drain", took)
		}
		if r.Abandoned != 4 || r.Calls != 0 || r.Failed != 0 {
			t.Errorf("got %d abandoned, %d calls, %d failed; want 4, 0, 0", r.Abandoned, r.Calls, r.Failed)
		}
	})
}

func TestCallThatTakesTooLongFailsAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan(1)
		p.Timeout = 250 * time.Millisecond
		r := run(t, newGenerator(t, p, load.Options{Transport: after(time.Hour)}), 2500*time.Millisecond)
		if r.Failed != 3 || !within(r.Response.Quantile(1), p.Timeout) {
			t.Errorf("got %d failed after %s; want 3 after 250ms", r.Failed, r.Response.Quantile(1))
		}
	})
}

func TestGeneratorRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGenerator(t, plan(1), load.Options{Transport: after(0)})
		run(t, g, time.Second)
		if err := g.Run(t.Context()); !errors.Is(err, load.ErrRan) {
			t.Errorf("got %v; want ErrRan", err)
		}
	})
}

func TestEachCallCarriesItsClientSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var spans []trace.Span
		headers := make(map[string]bool)
		system := tripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			headers[r.Header.Get("Traceparent")] = true
			mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			return answer(503), nil
		})
		p := plan(10)
		p.Targets[0].Template = "/x"
		g := newGenerator(t, p, load.Options{Transport: system, Spans: func(s []trace.Span) {
			mu.Lock()
			spans = append(spans, s...)
			mu.Unlock()
		}})
		run(t, g, time.Second)
		if len(spans) != 10 || len(headers) != 10 {
			t.Fatalf("got %d spans and %d different headers; want 10 of each", len(spans), len(headers))
		}
		shape := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
		for _, s := range spans {
			if parent := "00-" + s.TraceID + "-" + s.ID + "-01"; !headers[parent] || !shape.MatchString(parent) {
				t.Errorf("the span's identity %s was not sent, or is malformed", parent)
			}
			if s.Parent != "" || s.Kind != trace.Client || s.Service != "client" || s.Name != "GET /x" || !s.Failed {
				t.Errorf("unexpected span %+v", s)
			}
			if s.Duration() != 20*time.Millisecond {
				t.Errorf("the span lasted %s; want 20ms", s.Duration())
			}
			for key, want := range map[string]string{
				"http.request.method": "GET", "url.path": "/x", "url.query": "n=1", "server.address": "a.test",
				"server.port": "80", "http.response.status_code": "503", "error.type": "503", "url.template": "/x",
			} {
				if got := s.Attr(key); got != want {
					t.Errorf("%s is %q; want %q", key, got, want)
				}
			}
		}
	})
}

func TestEqualSeedsSendEqualTraffic(t *testing.T) {
	record := func(seed uint64) (log []string) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var mu sync.Mutex
			system := tripper(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, time.Since(start).String()+" "+r.URL.Path)
				return answer(200), nil
			})
			p := plan(50)
			p.Arrivals, p.Seed = load.Poisson, seed
			p.Targets[0].URL = load.Weighted(load.Choice{URL: "http://a.test/1", Weight: 1}, load.Choice{URL: "http://a.test/2", Weight: 3})
			run(t, newGenerator(t, p, load.Options{Transport: system}), 10*time.Second)
		})
		return log
	}
	one, again, other := record(7), record(7), record(8)
	if strings.Join(one, "\n") != strings.Join(again, "\n") {
		t.Error("two runs with one seed differ")
	}
	if strings.Join(one, "\n") == strings.Join(other, "\n") {
		t.Error("two seeds gave the same traffic")
	}
}

func TestFaultsOfAPlanAreAllReported(t *testing.T) {
	_, err := load.New(load.Plan{
		Arrivals: "bursts", MaxInFlight: -1, Timeout: -1, Drain: -1,
		Targets: []load.Target{{Name: "a", PerSecond: -1}, {Name: "a", PerSecond: 1, URL: load.Fixed("")}},
	}, load.Options{})
	var paths []string
	for _, e := range setting.List(errors.Unwrap(err)) {
		if fault, ok := errors.AsType[*setting.Error](e); ok {
			paths = append(paths, fault.Path)
		}
	}
	want := "arrivals max_in_flight timeout drain targets[0].per_second targets[0].url targets[1].name"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("faulty settings: %s; want %s", got, want)
	}
	if _, err := load.New(load.Plan{}, load.Options{}); err == nil {
		t.Error("a plan without targets was accepted")
	}
}

func TestSystemConnectionsAreUsedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("uses real sockets")
	}
	var opened sync.Map
	var count int
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		opened.Store(r.RemoteAddr, true)
		io.WriteString(w, strings.Repeat("x", 100_000))
		mu.Lock()
		defer mu.Unlock()
		if count++; count == 200 {
			cancel()
		}
	}))
	defer server.Close()
	p := plan(500)
	p.Targets[0].URL, p.MaxInFlight, p.Drain = load.Fixed(server.URL), 4, time.Minute
	g := newGenerator(t, p, load.Options{})
	if err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var connections int
	opened.Range(func(any, any) bool { connections++; return true })
	if r := g.Snapshot().Results[0]; connections > 50 || r.Failed != 0 {
		t.Errorf("%d calls took %d connections, %d failed; want few, at best 4", r.Calls, connections, r.Failed)
	}
}
