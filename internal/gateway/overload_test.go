package gateway

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/longpole/longpole/call"
)

func TestPressureIsThatOfTheScarcestResource(t *testing.T) {
	for _, c := range []struct {
		name string
		u    usage
		want float64
	}{
		{"nothing is bounded", usage{memory: 1 << 40, descriptors: 1 << 20, goroutines: 1 << 20}, 0},
		{"below 80% nothing is scarce", usage{memory: 79, memoryLimit: 100, goroutines: 80, routineMax: 100}, 0},
		{"half way from 80% to the bound", usage{memory: 90, memoryLimit: 100}, 0.5},
		{"the worst of three", usage{memory: 10, memoryLimit: 100, descriptors: 95, descriptorLimit: 100, goroutines: 85, routineMax: 100}, 0.75},
		{"beyond the bound", usage{goroutines: 300, routineMax: 100}, 1},
	} {
		if got := c.u.pressure(); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestOverloadShedsTheLowestFirst(t *testing.T) {
	for _, c := range []struct {
		pressure float64
		priority call.Priority
		cohort   uint8
		want     bool
	}{
		{0, call.Speculative, 127, true},
		{0.01, call.Speculative, 127, false},
		{0.01, call.Background, 127, true},
		{0.49, call.Normal, 127, true},
		{0.6, call.Normal, 127, false}, // within a tier some callers
		{0.6, call.Normal, 0, true},    // before others
		{0.7, call.Normal, 0, false},
		{0.66, call.Important, 127, true},
		{0.99, call.Critical, 0, true},
		{1, call.Critical, 0, false}, // at a bound nobody is served, or the process ends
	} {
		if got := admitted(c.pressure, call.Info{Priority: c.priority, Cohort: c.cohort}); got != c.want {
			t.Errorf("pressure %v, %v, cohort %d: admitted = %t", c.pressure, c.priority, c.cohort, got)
		}
	}
}

func TestTheReaderSeesThisProcess(t *testing.T) {
	u := newReader(func() Overload { return Overload{Memory: 64 << 20} }).read(true)
	if u.memory <= 0 || u.goroutines <= 0 || u.descriptors <= 0 || u.memoryLimit != 64<<20 || u.routineMax != 500_000 {
		t.Errorf("%+v", u)
	}
}

func TestAGatewayShortOfResourcesRefusesAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("yes")) })
		// Off, so that the watch does not undo what the test sets.
		g := n.start(t, one("{}", "http://a:80")+"overload: {off: true}\n", nil)
		c := n.client(t)
		synctest.Wait()
		if a := get(t, c, "http://gw:80/"); a.status != http.StatusOK {
			t.Fatalf("at ease: %+v", a)
		}
		g.overload.look(usage{memory: 99, memoryLimit: 100}, false)
		if a := get(t, c, "http://gw:80/"); a.status != http.StatusServiceUnavailable || a.header.Get("X-Longpole-Error") != "overload" || a.header.Get("Retry-After") == "" {
			t.Errorf("near the bound: %+v", a)
		}
		g.overload.look(usage{memory: 50, memoryLimit: 100}, false)
		if a := get(t, c, "http://gw:80/"); a.status != http.StatusOK {
			t.Errorf("at ease again: %+v", a)
		}
		if s := g.Overload(); s.Shed["normal"] != 1 {
			t.Errorf("shed %v, want one of normal priority", s.Shed)
		}
	})
}
