package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/stats"
)

// pipes is a network in memory: what is dialled arrives at its listener.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed atomic.Int64
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial(string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		p.dialed.Add(1)
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// serve answers on p until the test's bubble ends its work with stop.
func serve(p *pipes, h http.HandlerFunc) (stop func()) {
	server := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(p) })
	return func() {
		_ = server.Close()
		done.Wait()
	}
}

// scenario is uniform traffic to h, judged by nothing that a busy machine could spoil.
func scenario(rate float64, d time.Duration) load.Scenario {
	return load.Scenario{
		Targets:  []load.Call{{Name: "a", URL: "http://a.test/x"}},
		Arrivals: load.Uniform, Rate: rate, Duration: d, MaxLag: time.Hour, MaxCPU: 1,
	}
}

func runScenario(t *testing.T, s load.Scenario, h http.HandlerFunc) load.Report {
	t.Helper()
	p := newPipes()
	defer serve(p, h)()
	r, err := load.Run(t.Context(), s, load.RunOptions{Dial: p.dial})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// near tells whether got ms is want, give or take 1 %.
func near(got float64, want time.Duration) bool {
	w := float64(want) / 1e6
	return math.Abs(got-w) <= 0.01*w+0.001
}

func checkLatency(t *testing.T, what string, got load.Latency, want []time.Duration) {
	t.Helper()
	slices.Sort(want)
	for _, c := range []struct {
		name string
		q    float64
		got  float64
	}{{"p50", 0.5, got.P50}, {"p90", 0.9, got.P90}, {"p95", 0.95, got.P95}, {"p99", 0.99, got.P99}, {"p99.9", 0.999, got.P999}, {"max", 1, got.Max}} {
		if exact := stats.ExactQuantile(want, c.q); !near(c.got, exact) {
			t.Errorf("%s %s is %g ms; the calls as they were served give %s", what, c.name, c.got, exact)
		}
	}
}

// A server that stands still for 1 s in every 10 s, behind one connection: what wrk2 measures with -c1, worked out call by call.
func TestStallIsInResponseTimeAndNotInServiceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const work = time.Millisecond
		stall := func(at time.Duration) time.Duration { // what is left of the one at this moment
			if in := at % (10 * time.Second); in >= 5*time.Second && in < 6*time.Second {
				return 6*time.Second - in
			}
			return 0
		}
		s := scenario(100, 20*time.Second)
		s.Connections = 1
		r := runScenario(t, s, func(http.ResponseWriter, *http.Request) {
			time.Sleep(stall(time.Since(start)) + work)
		})
		var response, service []time.Duration
		var free time.Duration
		for i := range 2000 {
			due := time.Duration(i) * 10 * time.Millisecond
			sent := max(due, free)
			free = sent + stall(sent) + work
			response, service = append(response, free-due), append(service, free-sent)
		}
		if r.Total.Calls != 2000 || r.Total.Failed != 0 || r.Total.Dropped != 0 || !r.Valid {
			t.Fatalf("got %d calls, %d failed, %d dropped, doubts %v; want 2000, 0, 0, none", r.Total.Calls, r.Total.Failed, r.Total.Dropped, r.Doubts)
		}
		checkLatency(t, "response", r.Total.Response, response)
		checkLatency(t, "service", r.Total.Service, service)
		if r.Total.Response.P99 < 800 || r.Total.Service.P99 > 1.02 {
			t.Errorf("p99 of response %g ms and of service %g ms; want the stall in the first only", r.Total.Response.P99, r.Total.Service.P99)
		}
	})
}

func TestQuantilesAreThoseOfTheServer(t *testing.T) {
	for _, protocol := range []load.Protocol{load.HTTP1, load.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var n int
				var want []time.Duration
				s := scenario(50, 20*time.Second)
				s.Protocol = protocol
				r := runScenario(t, s, func(w http.ResponseWriter, _ *http.Request) {
					mu.Lock()
					n++
					d := time.Duration(1+n%500) * time.Millisecond
					if n%200 == 0 {
						d = 3 * time.Second
					}
					want = append(want, d)
					mu.Unlock()
					time.Sleep(d)
					_, _ = io.WriteString(w, "hello")
				})
				if r.Total.Calls != 1000 || r.Total.BytesIn != 5000 || r.Total.Codes["200"] != 1000 {
					t.Errorf("got %d calls, %d bytes, answers %v; want 1000, 5000, 1000 of 200", r.Total.Calls, r.Total.BytesIn, r.Total.Codes)
				}
				checkLatency(t, "response", r.Total.Response, want)
				checkLatency(t, "service", r.Total.Service, want)
			})
		})
	}
}

func TestSlicesHoldEveryCallOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scenario(100, 5500*time.Millisecond)
		s.Warmup = 2 * time.Second
		var progress []load.Progress
		p := newPipes()
		defer serve(p, func(http.ResponseWriter, *http.Request) { time.Sleep(1500 * time.Millisecond) })()
		r, err := load.Run(t.Context(), s, load.RunOptions{Dial: p.dial, Progress: func(p load.Progress) { progress = append(progress, p) }})
		if err != nil {
			t.Fatal(err)
		}
		var calls uint64
		var all load.Bins
		for _, slice := range r.Slices {
			calls += slice.Calls
			all.Zero += slice.Response.Count()
		}
		if calls != r.Total.Calls || all.Zero != calls || calls < 549 || calls > 551 {
			t.Errorf("%d calls and %d response times in the slices, %d in all; want 550", calls, all.Zero, r.Total.Calls)
		}
		if len(r.Slices) != 5 && len(r.Slices) != 6 {
			t.Errorf("%d slices; want one a second", len(r.Slices))
		}
		if len(progress) < 6 || !progress[0].Warmup || progress[len(progress)-1].Warmup {
			t.Errorf("%d looks at the run, the first in the warm-up %v", len(progress), progress[0].Warmup)
		}
		for _, look := range progress {
			if look.Second.Calls > 201 {
				t.Errorf("%d calls in one second; want about 100", look.Second.Calls)
			}
		}
	})
}

func TestConnectionsAreAsManyAsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*load.Scenario)
		at, most int64
	}{
		{"keep-alive", func(s *load.Scenario) { s.Connections = 3 }, 3, 3},
		{"h2c", func(s *load.Scenario) { s.Connections, s.Protocol = 3, load.H2C }, 3, 3},
		{"one h2c", func(s *load.Scenario) { s.Protocol = load.H2C }, 1, 1},
		{"none kept", func(s *load.Scenario) { k := false; s.KeepAlive = &k }, 100, 100},
		{"none kept, few at once", func(s *load.Scenario) { k := false; s.KeepAlive, s.Connections = &k, 2 }, 100, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := scenario(50, 2*time.Second)
				c.change(&s)
				p := newPipes()
				defer serve(p, func(http.ResponseWriter, *http.Request) { time.Sleep(50 * time.Millisecond) })()
				r, err := load.Run(t.Context(), s, load.RunOptions{Dial: p.dial})
				if err != nil {
					t.Fatal(err)
				}
				if n := p.dialed.Load(); n < c.at || n > c.most || r.Total.Failed != 0 || r.Total.Calls != 100 {
					t.Errorf("%d connections, %d calls, %d failed; want %d to %d, 100, 0", n, r.Total.Calls, r.Total.Failed, c.at, c.most)
				}
			})
		})
	}
}

func TestTargetsShareTheArrivalsByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[string]int{}
		var bodies []string
		s := scenario(100, 10*time.Second)
		s.Headers = map[string]string{"X-All": "{{seq 5}}"}
		s.Targets = []load.Call{
			{Name: "read", URL: "http://a.test/orders/{{random 1 9}}", Weight: 3},
			{Name: "write", URL: "http://a.test/orders", Body: `{"n": {{seq}}}`, Headers: map[string]string{"x-all": "no", "Host": "other.test"}},
		}
		r := runScenario(t, s, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			seen[r.Method+" "+r.Host+" "+r.URL.Path]++
			if r.Method == http.MethodPost {
				bodies = append(bodies, string(body))
				if r.Header.Get("X-All") != "no" {
					t.Errorf("X-All is %q; the target's own replaces it", r.Header.Get("X-All"))
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		read, write := r.Targets[0], r.Targets[1]
		if read.Calls+write.Calls != 1000 || read.Calls < 700 || read.Calls > 800 || write.Failed != write.Calls || read.Failed != 0 {
			t.Errorf("read %d, write %d of which %d failed; want about 750 and 250, all of which fail", read.Calls, write.Calls, write.Failed)
		}
		if len(seen) != 10 || bodies[0] != `{"n": 0}` || bodies[len(bodies)-1] == bodies[0] {
			t.Errorf("saw %v and bodies from %s to %s", seen, bodies[0], bodies[len(bodies)-1])
		}
		if r.Total.Codes["503"] != write.Calls || r.Total.BytesOut == 0 {
			t.Errorf("answers %v, %d bytes sent", r.Total.Codes, r.Total.BytesOut)
		}
	})
}

func TestRunThatMeasuresTheGeneratorIsInvalid(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	t.Run("in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := scenario(100, 5*time.Second)
			s.MaxInFlight, s.Timeout = 20, time.Minute
			r := runScenario(t, s, hang)
			if r.Valid || r.Total.Dropped != 480 || r.Total.Calls != 20 || r.Total.Faults["timeout"] != 20 || !strings.Contains(r.Doubts[0], "480 of 500") {
				t.Errorf("valid %v, %d dropped, %d ended, %v, doubts %v; want 480 of 500 dropped, 20 timed out", r.Valid, r.Total.Dropped, r.Total.Calls, r.Total.Faults, r.Doubts)
			}
		})
	})
	t.Run("lag", func(t *testing.T) {
		r := load.Result{Lag: stats.Of(20 * time.Millisecond), Response: stats.Of(30 * time.Millisecond), Calls: 1}
		if r.Doubt() == "" {
			t.Error("a generator that is late by half of the response time is not doubted")
		}
	})
	t.Run("no call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			s := scenario(1, time.Second)
			s.Warmup = time.Second
			p := newPipes()
			defer serve(p, hang)()
			r, err := load.Run(ctx, s, load.RunOptions{Dial: p.dial})
			if err != nil || r.Valid || !r.Interrupted || len(r.Targets) != 1 {
				t.Errorf("error %v, valid %v, interrupted %v, %d targets", err, r.Valid, r.Interrupted, len(r.Targets))
			}
		})
	})
}

func TestFailingTargetIsCountedByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		p.Close()
		r, err := load.Run(t.Context(), scenario(1000, 3*time.Second), load.RunOptions{Dial: p.dial})
		if err != nil {
			t.Fatal(err)
		}
		if r.Total.Calls != 3000 || r.Total.Failed != 3000 || r.Total.Faults["connection closed"] != 3000 || r.Total.Dropped != 0 {
			t.Errorf("%d calls, %d failed, %v", r.Total.Calls, r.Total.Failed, r.Total.Faults)
		}
	})
}

func TestThresholdsJudgeTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := scenario(100, 10*time.Second)
		s.Thresholds = []string{"p99<=51ms", "p99<20ms", "errors<1%", "errors<=11%", "rate>85", "rate>95", "a:service.p50<60ms", "mean>40ms", "timeouts<1%", "dropped<=0%", "max>10s"}
		r := runScenario(t, s, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * time.Millisecond)
			if n.Add(1)%10 == 0 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		var held []bool
		for _, c := range r.Thresholds {
			held = append(held, c.Held)
		}
		if want := []bool{true, false, false, true, true, false, true, true, true, true, false}; !slices.Equal(held, want) {
			t.Errorf("held %v of %+v; want %v", held, r.Thresholds, want)
		}
	})
}

func TestReportIsReadBackAndDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scenario(100, 4*time.Second)
		s.Targets[0].Name = `<script>alert("x")</script>`
		r := runScenario(t, s, func(http.ResponseWriter, *http.Request) { time.Sleep(7 * time.Millisecond) })
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := load.ParseReport(data)
		if err != nil || back.Total.Calls != 400 || back.Response.Count() != 400 || back.Response.Quantile(0.5) != r.Response.Quantile(0.5) {
			t.Errorf("read back %d calls: %v", back.Total.Calls, err)
		}
		if !near(float64(back.Response.Quantile(0.99))/1e6, 7*time.Millisecond) {
			t.Errorf("p99 of the kept histogram is %s", back.Response.Quantile(0.99))
		}
		var page, hdr bytes.Buffer
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []string{"<script", "http://www", "https://", "src=", "@import"} {
			if strings.Contains(page.String(), foreign) {
				t.Errorf("the page holds %q", foreign)
			}
		}
		if n := strings.Count(page.String(), "<svg"); n != 4 {
			t.Errorf("%d charts; want 4", n)
		}
		if err := r.WriteHDR(&hdr); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(hdr.String(), "1/(1-Percentile)") || !strings.Contains(hdr.String(), "1.000000000000        400") || !strings.Contains(hdr.String(), "#[Max     =") {
			t.Errorf("the percentiles are\n%s", hdr.String())
		}
	})
}

func TestForeignReportIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "{}", `{"format":"longpole-load","version":2}`, `{"format":"longpole-load","version":1,"slice_seconds":1,"valid":true}`,
		`{"format":"longpole-load","version":1,"slice_seconds":1,"slices":[{"calls":1,"response":{"first":99999,"counts":[1]}}]}`,
		`{"format":"longpole-load","version":1,"slice_seconds":1,"slices":[{"calls":1,"response":{"first":0,"counts":[18446744073709551615,2]}}]}`,
		`{"format":"longpole-load","version":1,"slice_seconds":1,"slices":[{"calls":1,"failed":2,"response":{}}]}`,
	} {
		if _, err := load.ParseReport([]byte(text)); !errors.Is(err, load.ErrReport) {
			t.Errorf("%s: error is %v", text, err)
		}
	}
}

func TestRecordingIsAScenario(t *testing.T) {
	name := filepath.Join(t.TempDir(), "traffic")
	body, err := file(entry(0, "/a"), entry(500*time.Millisecond, "/b"), entry(time.Second, "/c"))()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(body)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var seen []string
		s := load.Scenario{Replay: &load.Recorded{File: name, To: "http://a.test", Speed: 0.5}, MaxLag: time.Hour, MaxCPU: 1, Thresholds: []string{"replay: errors<1%"}}
		r := runScenario(t, s, func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, time.Since(start).String()+r.URL.Path)
		})
		if want := []string{"0s/a", "1s/b", "2s/c"}; !slices.Equal(seen, want) || r.Total.Calls != 3 || !r.Thresholds[0].Held || r.Workload.Replay == "" {
			t.Errorf("sent %v of %d calls, thresholds %+v; want %v", seen, r.Total.Calls, r.Thresholds, want)
		}
	})
}
