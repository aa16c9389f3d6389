package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/offload"
	"github.com/longpole/longpole/internal/trace"
)

// offloading is a file with one route that puts its calls off. The embedded store needs real time.
func offloading(t *testing.T, settings, policy string) string {
	t.Helper()
	return fmt.Sprintf(`
listen: gw:80
offload: {dir: %s}
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: orders, match: {path: /orders}, upstream: up, policy: %s, offload: %s}
- {name: rest, upstream: up}
`, t.TempDir(), policy, settings)
}

// happens waits for what others bring about.
func happens(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("this did not happen: ", what)
		}
	}
}

// accepted wants a 202 and returns the job's place.
func accepted(t *testing.T, a answer) (id, place string) {
	t.Helper()
	var body struct {
		ID        string `json:"id"`
		StatusURL string `json:"status_url"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != 202 || body.ID == "" || a.header.Get("Location") != body.StatusURL {
		t.Fatalf("%+v, %v", a, err)
	}
	return body.ID, body.StatusURL
}

func stateOf(t *testing.T, c *http.Client, place string) offload.Status {
	t.Helper()
	var s offload.Status
	a := get(t, c, "http://gw:80"+place)
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.status != 200 {
		t.Fatalf("%+v, %v", a, err)
	}
	return s
}

func TestAnOffloadedCallIsAnsweredAtOnceAndMadeLater(t *testing.T) {
	n := newNetwork()
	var mu sync.Mutex
	var seen []*http.Request
	var bodies []string
	gate := make(chan struct{})
	n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
		b := new(strings.Builder)
		buf := make([]byte, 100)
		for k, err := r.Body.Read(buf); ; k, err = r.Body.Read(buf) {
			b.Write(buf[:k])
			if err != nil {
				break
			}
		}
		if r.Method == http.MethodPost {
			<-gate
		}
		mu.Lock()
		defer mu.Unlock()
		seen, bodies = append(seen, r), append(bodies, b.String())
		w.WriteHeader(201)
	})
	var spans collector
	g := n.start(t, offloading(t, "{strip_headers: [X-Secret]}", "{retry: {off: true}}"), spans.add)
	c := n.client(t)
	const traceID, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	r := request(t, "POST", "http://gw:80/orders/%2Fa?x=1&y", strings.NewReader("the order"), "X-Secret", "s", "Authorization", "Bearer t", "X-A", "1", "X-A", "2",
		"Connection", "X-Hop", "X-Hop", "h", "Traceparent", "00-"+traceID+"-"+parent+"-01", "X-Request-Timeout-Ms", "50000", "Prefer", "respond-async")
	r.Host = "shop.example"
	a := do(c, r)
	id, place := accepted(t, a)
	if a.header.Get("Preference-Applied") != "respond-async" || a.header.Get("Cache-Control") != "no-store" {
		t.Error(a.header)
	}
	happens(t, "running", func() bool { return stateOf(t, c, place).State == offload.Running })
	close(gate)
	happens(t, "done", func() bool { return stateOf(t, c, place).State == offload.Done })
	if s := stateOf(t, c, place); s.Attempts != 1 || s.Status != 201 || s.ID != id || s.Error != "" || s.Queue != "" {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	got, body := seen[0], bodies[0]
	mu.Unlock()
	if got.RequestURI != "/orders/%2Fa?x=1&y" || got.Host != "shop.example" || body != "the order" || got.Header.Get("X-Secret") != "" ||
		got.Header.Get("Authorization") != "Bearer t" || strings.Join(got.Header["X-A"], "") != "12" || got.Header.Get("X-Hop") != "" ||
		got.Header.Get("Idempotency-Key") != `"`+id+`"` || got.Header.Get("X-Forwarded-Host") != "shop.example" || got.Header.Get("Prefer") != "" {
		t.Errorf("delivered %s %v to %s: %q", got.RequestURI, got.Header, got.Host, body)
	}
	if a := get(t, c, "http://gw:80/orders/1"); a.status != 201 {
		t.Error("a GET was put off:", a)
	}
	happens(t, "counted", func() bool { return g.Routes()[0].Calls == 2 })
	checkJobSpans(t, spans.all(), traceID, parent, id)
	for _, path := range []string{"/.longpole/jobs/" + strings.Repeat("0", 40), "/.longpole/jobs/", "/.longpole/jobs/x/y"} {
		if a := get(t, c, "http://gw:80"+path); a.status != 404 || a.header.Get("X-Longpole-Error") != "no_job" {
			t.Error(path, a)
		}
	}
	if a := do(c, request(t, "DELETE", "http://gw:80"+place, nil)); a.status != 405 {
		t.Error(a)
	}
}

// checkJobSpans wants client's parent -> SERVER -> PRODUCER -> CONSUMER -> CLIENT in one trace.
func checkJobSpans(t *testing.T, list []trace.Span, traceID, parent, id string) {
	t.Helper()
	find := func(kind trace.Kind, parent string) trace.Span {
		for _, s := range list {
			if s.TraceID == traceID && s.Kind == kind && s.Parent == parent {
				return s
			}
		}
		t.Errorf("no %v span below %s", kind, parent)
		return trace.Span{}
	}
	server := find(trace.Server, parent)
	producer := find(trace.Producer, server.ID)
	consumer := find(trace.Consumer, producer.ID)
	attempt := find(trace.Client, consumer.ID)
	if server.Attr("http.response.status_code") != "202" || producer.Attr("messaging.system") != "nats" || producer.Attr("messaging.operation.type") != "send" ||
		producer.Attr("messaging.message.id") != id || consumer.Attr("messaging.operation.type") != "process" || consumer.Attr("messaging.message.id") != id ||
		consumer.Attr("messaging.destination.name") != "orders" || consumer.Start < producer.Start || attempt.Attr("http.response.status_code") != "201" {
		t.Errorf("%+v\n%+v\n%+v\n%+v", server, producer, consumer, attempt)
	}
}

func TestWhatAnAnswerMeansForTheJob(t *testing.T) {
	n := newNetwork()
	var status atomic.Int32
	var keys sync.Map
	n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			keys.Store(r.Header.Get("Idempotency-Key"), true)
			if status.Load() == 0 {
				panic(http.ErrAbortHandler)
			}
		}
		w.WriteHeader(int(status.Load()))
	})
	g := n.start(t, offloading(t, "{base_delay: 1ms, max_delay: 2ms, max_attempts: 3}", "{retry: {off: true}, breaker: {min_calls: 100000}}"), nil)
	c := n.client(t)
	for _, tt := range []struct {
		status   int
		state    offload.State
		attempts int
		reason   string
	}{
		{200, offload.Done, 1, ""},
		{302, offload.Done, 1, ""},
		{400, offload.Dead, 1, "permanent"},
		{501, offload.Dead, 1, "permanent"},
		{409, offload.Dead, 3, "exhausted"},
		{429, offload.Dead, 3, "exhausted"},
		{500, offload.Dead, 3, "exhausted"},
		{0, offload.Dead, 3, "exhausted"},
	} {
		status.Store(int32(tt.status))
		_, place := accepted(t, do(c, request(t, "POST", "http://gw:80/orders", strings.NewReader("x"), "Idempotency-Key", fmt.Sprint("k", tt.status))))
		happens(t, fmt.Sprint(tt.status, " settled"), func() bool { s := stateOf(t, c, place); return s.State == tt.state })
		if s := stateOf(t, c, place); s.Attempts != tt.attempts || s.Reason != tt.reason || s.Status != tt.status {
			t.Errorf("%d: %+v, want %d attempts, %q", tt.status, s, tt.attempts, tt.reason)
		}
		if _, ok := keys.Load(fmt.Sprint("k", tt.status)); !ok {
			t.Errorf("%d: the key was not delivered", tt.status)
		}
	}
	letters, _, err := g.Jobs().Queues()[0].Dead(t.Context(), 0, 100)
	if err != nil || len(letters) != 6 || !strings.Contains(letters[0].Error, "400") {
		t.Error(letters, err)
	}
}

func TestAFallbackIsNoDelivery(t *testing.T) {
	n := newNetwork()
	n.serve(t, "a:1", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	n.start(t, offloading(t, "{base_delay: 1ms, max_delay: 2ms, max_attempts: 2}", "{retry: {off: true}, fallback: {static: {status: 200, body: fine}}}"), nil)
	c := n.client(t)
	_, place := accepted(t, do(c, request(t, "POST", "http://gw:80/orders", nil)))
	happens(t, "dead", func() bool { return stateOf(t, c, place).State == offload.Dead })
}

func TestWhatCannotBeStoredIsNotPromised(t *testing.T) {
	n := newNetwork()
	gate := make(chan struct{})
	n.serve(t, "a:1", func(http.ResponseWriter, *http.Request) { <-gate })
	g := n.start(t, offloading(t, "{jobs: 2, concurrency: 1, body_bytes: 10}", "{}"), nil)
	t.Cleanup(func() { close(gate) }) // before the gateway ends, which waits for the delivery
	c := n.client(t)
	post := func(body string, header ...string) answer {
		return do(c, request(t, "POST", "http://gw:80/orders", strings.NewReader(body), header...))
	}
	first, _ := accepted(t, post("a", "Idempotency-Key", "k"))
	if again, _ := accepted(t, post("a", "Idempotency-Key", "k")); again != first {
		t.Error("one key, two jobs")
	}
	for _, tt := range []struct {
		name   string
		got    answer
		status int
		reason string
	}{
		{"another call with the same key", post("b", "Idempotency-Key", "k"), 422, "key_reused"},
		{"a key too long", post("b", "Idempotency-Key", strings.Repeat("k", 256)), 400, "bad_request"},
		{"a body too long", post("01234567890"), 413, "body_too_large"},
	} {
		if tt.got.status != tt.status || tt.got.header.Get("X-Longpole-Error") != tt.reason {
			t.Errorf("%s: %+v", tt.name, tt.got)
		}
	}
	accepted(t, post("c"))
	if a := post("d"); a.status != 503 || a.header.Get("X-Longpole-Error") != "queue_full" || a.header.Get("Retry-After") == "" {
		t.Error(a)
	}
	if s := g.Jobs().Queues()[0].Status(t.Context()); s.Full != 1 || s.Duplicates != 2 || s.Accepted != 2 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutAStoreCallsAreRefusedOrForwarded(t *testing.T) {
	n := newNetwork()
	var key atomic.Value
	n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
		key.Store(r.Header.Get("Idempotency-Key"))
		b := make([]byte, 10)
		k, _ := r.Body.Read(b)
		_, _ = w.Write(b[:k])
	})
	n.start(t, `
listen: gw:80
offload: {url: "nats://127.0.0.1:1"}
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: one, match: {path: /one}, upstream: up, offload: {}}
- {name: two, match: {path: /two}, upstream: up, offload: {on_error: forward}}
- {name: three, match: {path: /three}, upstream: up, offload: {only_preferred: true}}
`, nil)
	c := n.client(t)
	post := func(path string, header ...string) answer {
		return do(c, request(t, "POST", "http://gw:80"+path, strings.NewReader("body"), header...))
	}
	if a := post("/one"); a.status != 503 || a.header.Get("X-Longpole-Error") != "queue_unreachable" || a.header.Get("Retry-After") == "" {
		t.Error(a)
	}
	if a := post("/two"); a.status != 200 || a.body != "body" || key.Load() == "" {
		t.Error(a, key.Load())
	}
	if a := post("/two", "Idempotency-Key", "mine"); a.status != 200 || key.Load() != "mine" {
		t.Error(a, key.Load())
	}
	if a := post("/three"); a.status != 200 {
		t.Error(a)
	}
	if a := post("/three", "Prefer", "wait=1, respond-async"); a.status != 503 {
		t.Error(a)
	}
	if a := get(t, c, "http://gw:80/.longpole/jobs/"+strings.Repeat("0", 40)); a.status != 404 {
		t.Error(a)
	}
}

func TestReloadKeepsJobsAndWorkers(t *testing.T) {
	n := newNetwork()
	var posts atomic.Int32
	var bad atomic.Bool
	n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		if bad.Load() {
			w.WriteHeader(500)
		}
	})
	file := offloading(t, "{base_delay: 1ms, max_delay: 2ms}", "{retry: {off: true}, breaker: {min_calls: 100000}}")
	g := n.start(t, file, nil)
	c := n.client(t)
	bad.Store(true)
	_, place := accepted(t, do(c, request(t, "POST", "http://gw:80/orders", nil)))
	happens(t, "tried", func() bool { return posts.Load() > 1 })
	if err := g.Reload(load(t, strings.Replace(file, "offload: {base_delay: 1ms, max_delay: 2ms}", "stream: false", 1))); err != nil {
		t.Fatal(err)
	}
	if a := do(c, request(t, "POST", "http://gw:80/orders", nil)); a.status != 500 {
		t.Error("put off, though the route no longer does:", a)
	}
	bad.Store(false)
	if err := g.Reload(load(t, file)); err != nil {
		t.Fatal(err)
	}
	happens(t, "done", func() bool { return stateOf(t, c, place).State == offload.Done })
	other := load(t, file)
	other.Offload.Dir = t.TempDir()
	if err := g.Reload(other); err == nil || !strings.Contains(err.Error(), "offload") {
		t.Error(err)
	}
}

func TestWhatARouteRewritesIsRewrittenOnceForAJob(t *testing.T) {
	n := newNetwork()
	seen := make(chan string, 10)
	n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Host + " " + r.RequestURI })
	file := strings.Replace(offloading(t, "{}", "{retry: {off: true}}"), "match: {path: /orders}", `match: {pattern: "/orders/{id}/{rest...}"}, rewrite: {path: "/v2/{id}/x/{rest}", host: "{id}.internal", set_query: {from: "{request.path}"}}`, 1)
	n.start(t, file, nil)
	c := n.client(t)
	_, place := accepted(t, do(c, request(t, "POST", "http://gw:80/orders/7/a%2Fb/c?x=1", strings.NewReader("o"))))
	const want = "7.internal /v2/7/x/a%2Fb/c?x=1&from=%2Forders%2F7%2Fa%252Fb%2Fc"
	if got := <-seen; got != want {
		t.Errorf("delivered as %q, want %q", got, want)
	}
	happens(t, "done", func() bool { return stateOf(t, c, place).State == offload.Done })
}

// TestADeliveryAsksForNoOtherProtocol has a client ask for one, and whether it may send a body, in a call that is put off:
// both were questions about its own connection.
func TestADeliveryAsksForNoOtherProtocol(t *testing.T) {
	n := newNetwork()
	seen := make(chan http.Header, 1)
	n.serve(t, "a:1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	n.start(t, offloading(t, "{}", "{retry: {off: true}}"), nil)
	_, r := n.raw(t, "POST /orders HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nContent-Length: 0\r\n\r\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 202 {
		t.Fatalf("%+v, %v", res, err)
	}
	h := <-seen
	for _, name := range []string{"Connection", "Upgrade", "Expect"} {
		if v := h[name]; len(v) > 0 {
			t.Errorf("delivered with %s: %v", name, v)
		}
	}
}
