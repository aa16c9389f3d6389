package gateway

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestFewTracesAreAllKept(t *testing.T) {
	var s sampler
	for i := range 5000 {
		if now := time.Unix(100, 0).Add(time.Duration(i) * 10 * time.Millisecond); !s.keep(now, 200, newID(2)) {
			t.Fatalf("call %d of a route with 100 a second is not kept", i)
		}
	}
}

func TestOfManyTracesAShareIsKept(t *testing.T) {
	var s sampler
	kept := 0
	for i := range 100_000 { // 10,000 a second
		if now := time.Unix(100, 0).Add(time.Duration(i) * 100 * time.Microsecond); s.keep(now, 200, newID(2)) && i >= 10_000 {
			kept++
		}
	}
	if kept < 1500 || kept > 2100 {
		t.Errorf("%d of nine busy seconds, want about 1800", kept)
	}
	// A quiet second later it keeps all again.
	s.keep(time.Unix(200, 0), 200, newID(2))
	for range 100 {
		if !s.keep(time.Unix(201, 0), 200, newID(2)) {
			t.Fatal("a quiet route still loses traces")
		}
	}
}

func TestARushIsNotKeptAsAWhole(t *testing.T) {
	var s sampler
	kept := 0
	for range 20_000 { // within one second, after none
		if s.keep(time.Unix(100, 0), 200, newID(2)) {
			kept++
		}
	}
	if kept < 800 || kept > 1500 { // 200 and 200 times the logarithm of 100
		t.Errorf("%d of a second's 20000, want about 1120", kept)
	}
}

func TestCallsOfOneTraceStayTogether(t *testing.T) {
	var a, b sampler
	for i := range 20_000 {
		now, id := time.Unix(100, 0).Add(time.Duration(i)*100*time.Microsecond), newID(2)
		if x, y := a.keep(now, 100, id), b.keep(now, 100, id); x != y {
			t.Fatalf("trace %s is kept here and not there", id)
		}
	}
}

func TestTheShareFallsWithTheRateButNeverToNone(t *testing.T) {
	if shareOf(200, 10_000, 1) >= shareOf(200, 1000, 1) || shareOf(200, 1<<40, 1) == 0 {
		t.Error("the share does not fall with the rate, or falls to none")
	}
}

func TestTracesThatOthersSampledAreKeptWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		flags := make(chan string, 1)
		n.serve(t, "a:80", func(_ http.ResponseWriter, r *http.Request) { h := r.Header.Get("Traceparent"); flags <- h[len(h)-2:] })
		var spans collector
		n.start(t, one("{}", "http://a:80")+"tracing: {traces_per_second: 1}\n", spans.add)
		c := n.client(t)
		const busy = 40 // calls a second
		count := func(header ...string) (kept int, passed map[string]int) {
			passed = make(map[string]int)
			before := len(spans.all())
			for range 4 * busy {
				get(t, c, "http://gw:80/", header...)
				passed[<-flags]++
				time.Sleep(time.Second / busy)
			}
			synctest.Wait()
			return len(spans.all()) - before, passed
		}
		if kept, passed := count(); kept > 2*busy+2*30 || passed["00"] < 2*busy {
			t.Errorf("of the gateway's own traces %d spans were kept, flags %v", kept, passed)
		}
		if kept, passed := count("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"); kept != 2*4*busy || passed["01"] != 4*busy {
			t.Errorf("of traces that were sampled before %d spans were kept, flags %v", kept, passed)
		}
	})
}
