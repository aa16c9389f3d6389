package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
)

func TestServerTimingIsRead(t *testing.T) {
	for field, want := range map[string]string{
		`cpu;dur=2.5, db;dur=8;count=3;desc="a, b"`: "[{cpu 2.5ms 1} {db 8ms 3}]",
		`DB;DUR="7"`:                         "[{db 7ms 1}]",
		`miss`:                               "[]",
		`db;dur=x, cache;dur=1`:              "[{cache 1ms 1}]",
		`db;dur=-1`:                          "[]",
		`db;dur=NaN`:                         "[]",
		`db;dur=1e300`:                       "[]",
		`db;dur=1;count=9999999999`:          "[]",
		`bad name;dur=1, ;dur=1`:             "[]",
		strings.Repeat("a;dur=1,", 100):      shown(make16()),
		strings.Repeat("x", 5000) + ";dur=1": "[]",
	} {
		if got := shown(timingsOf(http.Header{"Server-Timing": {field}})); got != want {
			t.Errorf("%.60s: got %s, want %s", field, got, want)
		}
	}
}

func shown(all []timing) string {
	texts := make([]string, 0, len(all))
	for _, t := range all {
		texts = append(texts, fmt.Sprintf("{%s %s %d}", t.name, t.took, t.calls))
	}
	return fmt.Sprint(texts)
}

func make16() (all []timing) {
	for range mostTimings {
		all = append(all, timing{"a", time.Millisecond, 1})
	}
	return all
}

func FuzzServerTiming(f *testing.F) {
	f.Add(`cpu;dur=2.5, db;dur=8;count=3`)
	f.Fuzz(func(t *testing.T, field string) {
		for _, m := range timingsOf(http.Header{"Server-Timing": {field}}) {
			if m.took < 0 || m.took > longestTiming || !token(m.name) {
				t.Errorf("%+v", m)
			}
		}
	})
}

func TestACohortKnowsWhatItsCallsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server-Timing", "cpu;dur=2, db;dur=8;count=3")
			time.Sleep(10 * time.Millisecond)
			_, _ = w.Write([]byte("hello"))
		})
		g := n.start(t, one("{}", "http://a:1"), nil)
		c := n.client(t)
		must(t, g.Stage("all", longpole.Config{Timeout: time.Second}), g.Turn("all", true, true))
		for range 10 {
			get(t, c, "http://gw:80/")
		}
		synctest.Wait()
		_, got, err := g.Tallies("all")
		must(t, err)
		if got.CPU != 20*time.Millisecond || got.Bytes != 50 || len(got.Downstreams) != 2 {
			t.Fatalf("%+v", got)
		}
		db, up := got.Downstreams[0], got.Downstreams[1]
		if db.Name != "db" || db.Calls != 30 || db.Latency.Count() != 10 || up.Name != "up" || up.Calls != 10 || up.Latency.Quantile(0.5).Round(time.Millisecond) != 10*time.Millisecond {
			t.Errorf("%+v and %+v", db, up)
		}
		for i := range 2 * mostDownstreams {
			g.table.Load().byName["all"].live.arms.Load().candidate.tried.down(fmt.Sprint("d", i))
		}
		if _, got, _ = g.Tallies("all"); len(got.Downstreams) != mostDownstreams {
			t.Errorf("%d downstreams are told apart", len(got.Downstreams))
		}
	})
}

// TestARefusalIsNoQuickAnswer compares arms by the calls that they served.
func TestARefusalIsNoQuickAnswer(t *testing.T) {
	var c cohort
	c.add(&call.Record{Class: call.OK, Latency: 80 * time.Millisecond}, "", nil)
	for range 9 {
		c.add(&call.Record{Class: call.Shed, Latency: 20 * time.Microsecond}, "", nil)
	}
	for _, class := range []call.Class{call.Server, call.Refused} {
		rec := call.Record{Class: class, Latency: time.Millisecond}
		rec.Add(call.Attempt{Class: class, Latency: time.Millisecond})
		c.add(&rec, "orders", nil)
	}
	c.add(&call.Record{Class: call.Timeout, Latency: time.Second}, "", nil)
	got := c.tally()
	if got.Calls != 13 || got.Shed != 9 || got.Failed != 3 || got.Latency.Count() != 2 || got.Latency.Quantile(0) < 79*time.Millisecond {
		t.Errorf("%d calls, %d shed, %d failed, p0 of %d is %v", got.Calls, got.Shed, got.Failed, got.Latency.Count(), got.Latency.Quantile(0))
	}
	if down := got.Downstreams[0]; got.FailedLatency.Count() != 2 || down.Latency.Count() != 0 || down.FailedLatency.Count() != 2 || down.Failed != 2 {
		t.Errorf("%d failed, and downstream %+v", got.FailedLatency.Count(), down)
	}
}
