package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/fault"
	traffic "github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/recording"
)

// twin is a file with a route to a:1 and a mirror at m:1.
func twin(mirror string) string {
	return "listen: gw:80\nupstreams: {up: {endpoints: http://a:1}, staging: {endpoints: http://m:1}}\nroutes:\n- {name: all, upstream: up, mirror: {upstream: staging, " + mirror + "}}\n"
}

// inbox keeps what a server was asked.
type inbox struct {
	mu   sync.Mutex
	list []*http.Request
	body []string
}

func (b *inbox) take(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.list, b.body = append(b.list, r), append(b.body, string(text))
		b.mu.Unlock()
		next(w, r)
	}
}

func (b *inbox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.list)
}

func TestASafeCallIsCopiedWithoutCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var a, m inbox
		n.serve(t, "a:1", a.take(ok("a")))
		n.serve(t, "m:1", m.take(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			http.Error(w, "m", 500)
		}))
		g := n.start(t, twin("share: 100%"), nil)
		got := get(t, n.client(t), "http://gw:80/x%2Fy?q=1", "Authorization", "secret", "Cookie", "a=1", "X-Api-Key", "1", "Accept", "a/b", "Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
		if got.body != "a" || got.took != 0 {
			t.Errorf("the call waited for its copy: %+v", got)
		}
		do(n.client(t), request(t, "POST", "http://gw:80/", strings.NewReader("once")))
		time.Sleep(2 * time.Second)
		if m.count() != 1 {
			t.Fatalf("%d copies", m.count())
		}
		r := m.list[0]
		if r.RequestURI != "/x%2Fy?q=1" || r.Header.Get(MirrorHeader) != "1" || r.Header.Get("Accept") != "a/b" || r.Header.Get("X-Forwarded-Host") != "gw:80" {
			t.Errorf("%s %v", r.RequestURI, r.Header)
		}
		for _, name := range []string{"Authorization", "Cookie", "X-Api-Key"} {
			if r.Header.Get(name) != "" || a.list[0].Header.Get(name) == "" {
				t.Errorf("%s: %q was sent to the mirror", name, r.Header.Get(name))
			}
		}
		if p := r.Header.Get("Traceparent"); strings.Contains(p, "0123456789abcdef0123456789abcdef") || len(p) != 55 {
			t.Errorf("the copy is a part of the call's trace: %s", p)
		}
		synctest.Wait()
		s := g.Routes()[0]
		if s.Mirror.Sent != 1 || s.Mirror.Differ != 1 || s.Mirror.Same != 0 || s.Mirror.LatencyMS.P50 < 990 || s.Mirror.OriginalMS.P50 > 1 {
			t.Errorf("%+v", s.Mirror)
		}
		if s.Calls != 2 || s.Tally.Failed != 0 || len(s.Endpoints) != 1 {
			t.Errorf("the copy stands in the figures of the route: %+v", s)
		}
	})
}

func TestAMirrorThatIsSlowDropsCopiesAndDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		var m inbox
		n.serve(t, "m:1", m.take(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
			}
		}))
		g := n.start(t, twin("share: 100%, at_once: 2, queue: 3, timeout: 10s"), nil)
		c := n.client(t)
		for range 10 {
			if got := get(t, c, "http://gw:80/"); got.body != "a" || got.took != 0 {
				t.Errorf("%+v", got)
			}
			synctest.Wait()
		}
		synctest.Wait()
		if s := g.Routes()[0].Mirror; s.Sent != 2 || s.Dropped != 5 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := g.Routes()[0].Mirror; s.Sent != 5 || s.Failed != 5 || s.Dropped != 5 {
			t.Errorf("after a minute: %+v", s)
		}
	})
}

func TestAMirrorMayBeToldMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		var m inbox
		n.serve(t, "m:1", m.take(ok("m")))
		g := n.start(t, twin("share: 100%, method: POST, keep_credentials: true"), nil)
		c := n.client(t)
		do(c, request(t, "POST", "http://gw:80/", strings.NewReader("body"), "Authorization", "secret"))
		do(c, request(t, "POST", "http://gw:80/", bytes.NewReader(make([]byte, 1<<20)))) // too long to be kept
		do(c, request(t, "POST", "http://gw:80/", strings.NewReader("copy of a copy"), MirrorHeader, "1"))
		get(t, c, "http://gw:80/")
		inject(t, g, fault.Config{Abort: 500})
		do(c, request(t, "POST", "http://gw:80/", strings.NewReader("broken on purpose")))
		synctest.Wait()
		if m.count() != 1 || m.body[0] != "body" || m.list[0].Header.Get("Authorization") != "secret" {
			t.Errorf("%v", m.body)
		}
		synctest.Wait()
		if s := g.Routes()[0].Mirror; s.Sent != 1 || s.Same != 1 || s.Unfit != 1 {
			t.Errorf("%+v", s)
		}
		before := g.table.Load().routes[0].side.mirror
		if err := g.Reload(load(t, twin("share: 100%, method: POST, keep_credentials: true"))); err != nil || g.table.Load().routes[0].side.mirror != before {
			t.Error("a reload that changes nothing lost the counters", err)
		}
		if err := g.Reload(load(t, twin("share: 50%"))); err != nil || g.Routes()[0].Mirror.Sent != 0 {
			t.Error("a reload changed nothing", err)
		}
	})
}

func TestCallsAreRecorded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{}", "http://a:1")+"record: {files: {dir: '"+dir+"'}, share: 100%, scrub: {hash_ids: true, hash_query: user, body_bytes: 10}}\n", nil)
		c := n.client(t)
		get(t, c, "http://gw:80/orders/8013?user=alice&page=2", "Authorization", "hunter2", "Accept", "a/b", "X-Other", "hunter2")
		time.Sleep(1500 * time.Millisecond)
		do(c, request(t, "POST", "http://gw:80/orders", strings.NewReader("short")))
		do(c, request(t, "POST", "http://gw:80/orders", strings.NewReader("much too long")))
		time.Sleep(2 * time.Second)
		entries := recordings(t, dir)
		if len(entries) != 3 {
			t.Fatalf("%+v", entries)
		}
		e := entries[0]
		if e.Method != "GET" || e.Host != "gw:80" || !strings.HasPrefix(e.Path, "/orders/") || strings.Contains(e.Path, "8013") || strings.Contains(e.Query, "alice") || !strings.Contains(e.Query, "page=2") || len(e.Header) != 1 || e.Status != 200 || e.Route != "all" {
			t.Errorf("%+v", e)
		}
		if e := entries[1]; e.At != 1500*time.Millisecond || string(e.Body) != "short" {
			t.Errorf("%+v", e)
		}
		if e := entries[2]; e.Body != nil || !e.Clipped {
			t.Errorf("%+v", e)
		}
		synctest.Wait()
		if s := g.Recorded(); s.Written != 3 || s.Dropped != 0 || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		if err := g.Reload(load(t, one("{}", "http://a:1"))); err != nil {
			t.Fatal(err)
		}
		get(t, c, "http://gw:80/")
		synctest.Wait()
		if s := g.Recorded(); s.Written != 3 {
			t.Errorf("a reload did not end it: %+v", s)
		}
	})
}

func TestADiskThatRefusesHarmsNoCall(t *testing.T) {
	dir := t.TempDir() + "/file"
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		g := n.start(t, one("{}", "http://a:1")+"record: {files: {dir: '"+dir+"'}, share: 100%}\n", nil)
		for range 3 {
			if got := get(t, n.client(t), "http://gw:80/"); got.body != "a" {
				t.Errorf("%+v", got)
			}
		}
		synctest.Wait()
		if s := g.Recorded(); s.Failed != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func recordings(t *testing.T, dir string) (all []recording.Entry) {
	t.Helper()
	names, err := recording.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := recording.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		r.Close()
	}
	return all
}

// What was recorded through the gateway is what a replay sends, when it came.
func TestARecordingIsReplayed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var a inbox
		n.serve(t, "a:1", a.take(ok("a")))
		g := n.start(t, one("{}", "http://a:1")+"record: {files: {dir: '"+dir+"'}, share: 100%}\n", nil)
		c := n.client(t)
		for _, path := range []string{"/one?x=1", "/two", "/three%20"} {
			get(t, c, "http://gw:80"+path, "Accept", "a/b")
			time.Sleep(700 * time.Millisecond)
		}
		if err := g.Reload(load(t, one("{}", "http://a:1"))); err != nil { // ends the file
			t.Fatal(err)
		}
		synctest.Wait()
		names, err := recording.List(dir)
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		var staging inbox
		n.serve(t, "s:1", staging.take(ok("s")))
		start := time.Now()
		plan := traffic.Plan{Targets: []traffic.Target{{Name: "s", Replay: &traffic.Replay{Open: traffic.File(names[0]), Base: "http://s:1"}}}}
		again, err := traffic.New(plan, traffic.Options{Transport: c.Transport})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Run(t.Context()); err != nil || time.Since(start) != 1400*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		if staging.count() != 3 {
			t.Fatalf("%d calls", staging.count())
		}
		for i, r := range staging.list {
			if r.RequestURI != a.list[i].RequestURI || r.Header.Get("Accept") != "a/b" || r.Header.Get(traffic.ReplayHeader) != "1" {
				t.Errorf("%s became %s %v", a.list[i].RequestURI, r.RequestURI, r.Header)
			}
		}
	})
}

// Copies do not hold up the end of the gateway.
func TestAGatewayThatStopsGivesItsCopiesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("a"))
		n.serve(t, "m:1", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		g, err := New(load(t, twin("share: 100%, timeout: 1h, at_once: 1")), Options{Dial: n.dial, Listen: n.listen})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		<-g.Ready()
		c := n.client(t)
		for range 3 {
			get(t, c, "http://gw:80/")
			synctest.Wait()
		}
		c.CloseIdleConnections()
		start := time.Now()
		stop()
		if err := <-ended; err != nil || time.Since(start) > time.Second {
			t.Errorf("it ended after %s: %v", time.Since(start), err)
		}
	})
}
