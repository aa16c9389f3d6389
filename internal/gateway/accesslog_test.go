package gateway

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/call"
)

func TestFailedAndSlowCallsAreAlwaysLogged(t *testing.T) {
	l := newAccessLog()
	c := AccessLog{File: "stderr", Sample: 0, Slow: time.Second}
	for _, tc := range []struct {
		name   string
		rec    call.Record
		status int
		want   bool
	}{
		{"a good call that lots did not choose", call.Record{Total: time.Millisecond}, 200, false},
		{"a slow one", call.Record{Total: time.Second}, 200, true},
		{"one with a slow body", call.Record{Latency: time.Millisecond, Total: 2 * time.Second}, 200, true},
		{"a failed one", call.Record{Class: call.Server}, 502, true},
		{"a refused one", call.Record{Class: call.Shed}, 429, true},
		{"the client's own fault", call.Record{Class: call.Client}, 404, false},
	} {
		if got := l.wants(&c, &tc.rec, tc.status); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
	c.File = ""
	if l.wants(&c, &call.Record{Class: call.Server}, 502) {
		t.Error("a log that is off wants a line")
	}
}

func TestLinesBeyondTheBoundsAreDroppedAndCounted(t *testing.T) {
	l := newAccessLog()
	c := AccessLog{MaxPerSecond: 10}
	now := time.Unix(100, 0)
	for range 25 {
		l.write(&c, accessLine{at: now})
	}
	if d := l.dropped.Load(); d != 15 || len(l.queue) != 10 {
		t.Errorf("dropped %d, queued %d; want 15 and 10", d, len(l.queue))
	}
	l.write(&c, accessLine{at: now.Add(time.Second)})
	if len(l.queue) != 11 {
		t.Error("the next second has no share of its own")
	}
	c.MaxPerSecond = 1 << 20
	for range 2 * accessQueue {
		l.write(&c, accessLine{at: now.Add(2 * time.Second)})
	}
	if len(l.queue) != accessQueue || l.dropped.Load() != 15+2*accessQueue-(accessQueue-11) {
		t.Errorf("queued %d, dropped %d", len(l.queue), l.dropped.Load())
	}
}

func TestAccessLogOnDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/bad" {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		c := load(t, one("{}", "http://a:80")+"access_log: {file: "+file+", sample: 100%}\n")
		g := run(t, c, Options{Dial: n.dial, Listen: n.listen, Log: slog.New(slog.DiscardHandler)})
		get(t, n.client(t), "http://gw:80/good?secret=1")
		time.Sleep(2 * time.Second)
		if err := os.Rename(file, file+".1"); err != nil {
			t.Fatal(err)
		}
		if err := g.Reload(c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		get(t, n.client(t), "http://gw:80/bad")
	})
	first, second := lines(t, file+".1"), lines(t, file)
	if len(first) != 1 || first[0]["path"] != "/good" || first[0]["status"] != 200.0 || first[0]["endpoint"] != "a:80" || first[0]["query"] != nil {
		t.Errorf("before the rotation: %v", first)
	}
	if len(second) != 1 || second[0]["path"] != "/bad" || second[0]["class"] != "server" || second[0]["trace_id"] == "" {
		t.Errorf("after it, the line of the last moment included: %v", second)
	}
}

func lines(t *testing.T, file string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for line := range strings.Lines(string(text)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}
