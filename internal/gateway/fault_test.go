package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/fault"
)

// inject starts a fault on the only route.
func inject(t *testing.T, g *Gateway, c fault.Config) {
	t.Helper()
	if c.Name == "" {
		c.Name = "f"
	}
	if c.Share == 0 {
		c.Share = 1
	}
	if c.TTL == 0 {
		c.TTL = time.Minute
	}
	if err := g.StartFault("all", c); err != nil {
		t.Fatal(err)
	}
}

func TestAFaultDelaysAndAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var calls atomic.Int64
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) { calls.Add(1); _, _ = io.WriteString(w, "a") })
		var spans collector
		g := n.start(t, one("{timeout: 500ms}", "http://a:1"), spans.add)
		c := n.client(t)

		inject(t, g, fault.Config{Delay: &fault.Delay{Mean: 200 * time.Millisecond}, Headers: map[string]string{"X-Fault": "slow"}})
		if got := get(t, c, "http://gw:80/", "X-Fault", "slow"); got.body != "a" || got.took != 200*time.Millisecond {
			t.Errorf("delayed: %+v", got)
		}
		if got := get(t, c, "http://gw:80/"); got.body != "a" || got.took != 0 {
			t.Errorf("another call: %+v", got)
		}
		inject(t, g, fault.Config{Name: "g", Delay: &fault.Delay{Mean: time.Second}, Headers: map[string]string{"X-Fault": "late"}})
		if got := get(t, c, "http://gw:80/", "X-Fault", "late"); got.status != 504 || got.took != 500*time.Millisecond {
			t.Errorf("delayed beyond the deadline: %+v", got)
		}
		inject(t, g, fault.Config{Name: "h", Abort: 418, Headers: map[string]string{"X-Fault": "teapot"}})
		if got := get(t, c, "http://gw:80/", "X-Fault", "teapot"); got.status != 418 || got.header.Get("X-Longpole-Error") != "fault" {
			t.Errorf("aborted: %+v", got)
		}
		inject(t, g, fault.Config{Name: "i", Blackhole: true, Headers: map[string]string{"X-Fault": "hole"}})
		if got := get(t, c, "http://gw:80/", "X-Fault", "hole"); got.status != 504 || got.took != 500*time.Millisecond {
			t.Errorf("a black hole: %+v", got)
		}
		if calls.Load() != 2 {
			t.Errorf("%d calls reached the upstream", calls.Load())
		}
		marked := make(map[string]bool)
		for _, s := range spans.all() {
			for _, a := range s.Attributes {
				if a.Key == "longpole.fault" {
					marked[a.Value] = true
				}
			}
		}
		if len(marked) != 4 {
			t.Errorf("marked are %v", marked)
		}
		synctest.Wait()
		if s := g.Routes()[0]; len(s.Faults) != 4 || s.Faults[0].Hits != 1 || s.Faults[0].Active != 0 || s.Faults[0].Route != "all" {
			t.Errorf("%+v", s.Faults)
		}
	})
}

func TestAFaultEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{timeout: 1m}", "http://a:1"), nil)
		inject(t, g, fault.Config{Blackhole: true, TTL: 10 * time.Second})
		if got := get(t, n.client(t), "http://gw:80/"); got.status != 504 || got.took != 10*time.Second {
			t.Errorf("%+v", got)
		}
		if got := get(t, n.client(t), "http://gw:80/"); got.body != "a" {
			t.Errorf("after its end: %+v", got)
		}
		synctest.Wait()
		if s := g.Routes()[0]; s.Faults != nil || len(g.Faults()) != 1 || g.Faults()[0].Stopped != "ttl" {
			t.Errorf("%+v, %+v", s.Faults, g.Faults())
		}
	})
}

func TestAFallbackStandsInForAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{fallback: {static: {status: 200, body: spare}}}", "http://a:1"), nil)
		inject(t, g, fault.Config{Abort: 503})
		if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 || got.body != "spare" {
			t.Errorf("%+v", got)
		}
	})
}

// A fault in place of an endpoint is for the policies to cope with.
func TestRetriesCopeWithAFaultyEndpoint(t *testing.T) {
	for name, c := range map[string]fault.Config{
		"abort": {Abort: 503}, "reset": {Reset: fault.BeforeHead}, "blackhole": {Blackhole: true}, "slow": {Delay: &fault.Delay{Mean: time.Hour / 6}},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", ok("a"))
			n.serve(t, "b:1", ok("b"))
			g := n.start(t, one("{try_timeout: 100ms, breaker: {off: true}, balance: {algorithm: round_robin}}", "http://a:1", "http://b:1"), nil)
			c.At, c.Endpoint = fault.AtAttempt, "a:1"
			inject(t, g, c)
			for range 4 {
				if got := get(t, n.client(t), "http://gw:80/"); got.body != "b" || got.took > 200*time.Millisecond {
					t.Errorf("%s: %+v", name, got)
				}
			}
			synctest.Wait()
			if s := g.Routes()[0]; s.Tally.Retries == 0 || s.Tally.Failed != 0 || s.Faults[0].Hits == 0 || s.Faults[0].Active != 0 {
				t.Errorf("%s: %+v %+v", name, s.Tally, s.Faults)
			}
		})
	}
}

func TestAFaultSlowsTheBody(t *testing.T) {
	for _, at := range []fault.Point{fault.AtCall, fault.AtAttempt} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", ok(strings.Repeat("x", 10_000)))
			g := n.start(t, one("{timeout: 1m}", "http://a:1"), nil)
			inject(t, g, fault.Config{BytesPerSecond: 1000, At: at})
			if got := get(t, n.client(t), "http://gw:80/"); len(got.body) != 10_000 || got.took < 9*time.Second || got.took > 11*time.Second {
				t.Errorf("%s: %d bytes took %s, %v", at, len(got.body), got.took, got.err)
			}
		})
	}
}

// In memory there is no RST; that the connection ends is seen.
func TestAFaultBreaksOffTheBody(t *testing.T) {
	for _, at := range []fault.Point{fault.AtCall, fault.AtAttempt} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			n.serve(t, "a:1", ok(strings.Repeat("x", 10_000)))
			g := n.start(t, one("{}", "http://a:1"), nil)
			inject(t, g, fault.Config{Reset: fault.MidBody, ResetAfter: 3000, At: at})
			if got := get(t, n.client(t), "http://gw:80/"); got.status != 200 || len(got.body) != 3000 || got.err == nil {
				t.Errorf("%s: %d, %d bytes, %v", at, got.status, len(got.body), got.err)
			}
			synctest.Wait()
			if s := g.Routes()[0]; s.Tally.Failed != 1 {
				t.Errorf("%s: %+v", at, s.Tally)
			}
		})
	}
}

func TestAResetIsOneOnTheWire(t *testing.T) {
	g, url := real(t, "{}", ok(strings.Repeat("x", 10_000)))
	for _, c := range []fault.Config{{Name: "head", Reset: fault.BeforeHead}, {Name: "body", Reset: fault.MidBody}} {
		inject(t, g, c)
		// Faults are on the client's side, so that our own client sees them.
		got := get(t, plainClient(t), url)
		if !errors.Is(got.err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", c.Name, got.err)
		}
		if err := g.StopFault(c.Name, "seen"); err != nil {
			t.Error(err)
		}
	}
	if got := get(t, plainClient(t), url); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestErrorsThatAFaultCausesEndIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		inject(t, g, fault.Config{Abort: 500, Stop: &fault.Stop{ErrorRatio: 0.2, MinCalls: 10}, Hypothesis: "clients retry"})
		c := n.client(t)
		for range 10 {
			if got := get(t, c, "http://gw:80/"); got.status != 500 {
				t.Fatalf("%+v", got)
			}
			synctest.Wait()
		}
		if got := get(t, c, "http://gw:80/"); got.body != "a" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if s := g.Faults()[0]; !strings.Contains(s.Stopped, "10 of 10") || s.Hypothesis != "clients retry" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatIsBrokenOnPurposeSpeaksForNoArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{}", "http://a:1"), nil)
		if err := errors.Join(g.Stage("all", longpole.Config{}), g.Weight("all", 0.5)); err != nil {
			t.Fatal(err)
		}
		inject(t, g, fault.Config{Abort: 500, Share: 0.5})
		failed := 0
		for range 40 {
			if get(t, n.client(t), "http://gw:80/").status == 500 {
				failed++
			}
		}
		synctest.Wait()
		baseline, candidate, err := g.Tallies("all")
		if err != nil || failed == 0 || baseline.Failed+candidate.Failed != 0 || baseline.Calls+candidate.Calls != uint64(40-failed) {
			t.Errorf("%d failed; %d and %d calls of the arms, %d and %d failed: %v", failed, baseline.Calls, candidate.Calls, baseline.Failed, candidate.Failed, err)
		}
	})
}

func TestFaultsOfTheFileOutliveAReloadThatLeavesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		file := func(faults string) Config { return load(t, with("faults: ["+faults+"]", "{}", "http://a:1")) }
		g := run(t, file("{name: f, share: 100%, abort: 503, ttl: 10s}"), Options{Dial: n.dial, Listen: n.listen})
		status := func() int { return get(t, n.client(t), "http://gw:80/").status }
		if status() != 503 {
			t.Error("it did not begin with the file")
		}
		time.Sleep(6 * time.Second)
		if err := g.Reload(file("{name: f, share: 100%, abort: 503, ttl: 10s}")); err != nil || status() != 503 {
			t.Error("it did not go on", err)
		}
		time.Sleep(5 * time.Second)
		if status() != 200 {
			t.Error("a reload made it longer")
		}
		if err := g.Reload(file("{name: f, share: 100%, abort: 504, ttl: 10s}")); err != nil || status() != 504 {
			t.Error("a changed one did not begin", err)
		}
		if err := g.Reload(file("")); err != nil || status() != 200 {
			t.Error("it did not end", err)
		}
		if err := g.StartFault("none", fault.Config{}); !errors.Is(err, ErrNoRoute) {
			t.Error(err)
		}
		if err := g.StopFault("none", ""); !errors.Is(err, fault.ErrUnknown) {
			t.Error(err)
		}
		inject(t, g, fault.Config{Abort: 500})
		if err := g.StartFault("all", fault.Config{Name: "f", Share: 1, TTL: 1, Abort: 500}); !errors.Is(err, fault.ErrRunning) {
			t.Error(err)
		}
	})
}

// What does not run costs a call no allocation.
func TestNoFaultCostsNothing(t *testing.T) {
	g := &Gateway{}
	v := &visit{g: g, route: &route{side: side{faults: new(faults)}}, x: &exchange{}}
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { v.strike(ctx); v.unstruck(time.Time{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Over HTTP/2 a reset is of the stream: other calls on the connection go on.
func TestAResetOverHTTP2IsOfTheStream(t *testing.T) {
	g, url := real(t, "{}", ok(strings.Repeat("x", 10_000)))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr}
	inject(t, g, fault.Config{Name: "head", Reset: fault.BeforeHead, Headers: map[string]string{"X-Fault": "head"}})
	inject(t, g, fault.Config{Name: "body", Reset: fault.MidBody, Headers: map[string]string{"X-Fault": "body"}})
	local := ""
	for _, kind := range []string{"", "head", "", "body", ""} {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if at := i.Conn.LocalAddr().String(); local == "" {
				local = at
			} else if at != local {
				t.Error("the connection was lost")
			}
		}})
		got := do(c, request(t, "GET", url, nil, "X-Fault", kind).WithContext(ctx))
		if broken := got.err != nil; broken != (kind != "") || !broken && len(got.body) != 10_000 {
			t.Errorf("%q: %d bytes, %v", kind, len(got.body), got.err)
		}
	}
}
