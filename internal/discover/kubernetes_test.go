package discover

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// api is a fake API server for EndpointSlices of one namespace.
type api struct {
	t      *testing.T
	server *httptest.Server
	token  string // that is accepted

	mu      sync.Mutex
	version int
	oldest  int                        // versions before it are gone
	slices  map[string]json.RawMessage // by name
	log     []change
	lists   int
	watches int
	refused int
	down    bool
	moved   chan struct{} // closed at each change
}

type change struct {
	version int
	event   string
}

func newAPI(t *testing.T) (*api, Kubernetes) {
	a := &api{t: t, token: "first", slices: make(map[string]json.RawMessage), moved: make(chan struct{}), version: 10}
	a.server = httptest.NewTLSServer(a)
	t.Cleanup(a.server.Close)
	dir := t.TempDir()
	c := Kubernetes{Service: "orders", Namespace: "shop", Server: a.server.URL, CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token"), Scheme: "http"}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	for path, data := range map[string][]byte{c.CAFile: ca, c.TokenFile: []byte("first\n")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a, c
}

// slice is an EndpointSlice with a port called http.
func slice(name string, version int, endpoints ...string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"kind":"EndpointSlice","metadata":{"name":%q,"resourceVersion":"%d","labels":{"kubernetes.io/service-name":"orders"}},
		"addressType":"IPv4","ports":[{"name":"metrics","port":9000},{"name":"http","port":8080}],"endpoints":[%s]}`, name, version, strings.Join(endpoints, ",")))
}

func pod(ip, conditions string) string {
	return fmt.Sprintf(`{"addresses":[%q],"conditions":{%s},"zone":"eu-1a","nodeName":"n"}`, ip, conditions)
}

func (a *api) put(name string, endpoints ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	kind := "ADDED"
	if a.slices[name] != nil {
		kind = "MODIFIED"
	}
	a.slices[name] = slice(name, a.version, endpoints...)
	a.happen(kind, a.slices[name])
}

func (a *api) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	delete(a.slices, name)
	a.happen("DELETED", slice(name, a.version))
}

func (a *api) bookmark(version int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = version
	a.happen("BOOKMARK", slice("", version))
}

func (a *api) happen(kind string, object json.RawMessage) {
	var b bytes.Buffer
	_ = json.Compact(&b, object)
	a.log = append(a.log, change{a.version, fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, b.String())})
	a.wake()
}

func (a *api) wake() {
	close(a.moved)
	a.moved = make(chan struct{})
}

// compact forgets what happened, as etcd does; watches that stand are told.
func (a *api) compact() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version += 100
	a.oldest = a.version
	a.log = append(a.log, change{a.version, `{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}` + "\n"})
	a.wake()
}

// ServeHTTP lists in pages of one slice, and watches.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	q := r.URL.Query()
	status := func(code int, reason string) {
		a.refused++
		a.mu.Unlock()
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"kind":"Status","code":%d,"reason":%q,"message":"no"}`, code, reason)
	}
	switch {
	case a.down:
		status(http.StatusServiceUnavailable, "")
		return
	case r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" || q.Get("labelSelector") != "kubernetes.io/service-name=orders":
		status(http.StatusNotFound, "NotFound")
		return
	case r.TLS != nil && r.Header.Get("Authorization") != "Bearer "+a.token:
		status(http.StatusUnauthorized, "Unauthorized")
		return
	}
	if q.Get("watch") == "" {
		defer a.mu.Unlock()
		a.lists++
		a.list(w, q.Get("continue"))
		return
	}
	since, err := strconv.Atoi(q.Get("resourceVersion"))
	if err != nil || since < a.oldest {
		status(http.StatusGone, "Expired")
		return
	}
	a.watches++
	a.mu.Unlock()
	a.watch(w, r, since)
}

func (a *api) list(w http.ResponseWriter, from string) {
	var names []string
	for name := range a.slices {
		names = append(names, name)
	}
	slices.Sort(names)
	i := max(0, slices.Index(names, from))
	next := ""
	var items []json.RawMessage
	if len(names) > 0 {
		items = append(items, a.slices[names[i]])
	}
	if i+1 < len(names) {
		next = names[i+1]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]string{"resourceVersion": strconv.Itoa(a.version), "continue": next}, "items": items})
}

func (a *api) watch(w http.ResponseWriter, r *http.Request, since int) {
	w.WriteHeader(http.StatusOK)
	for {
		a.mu.Lock()
		moved, down := a.moved, a.down
		for _, c := range a.log {
			if c.version > since {
				_, _ = w.Write([]byte(c.event))
				since = c.version
			}
		}
		a.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler)
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-moved:
		case <-r.Context().Done():
			return
		}
	}
}

func (a *api) counts() (lists, watches, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lists, a.watches, a.refused
}

// inbox is what a source sends, for a test in real time.
type inbox chan []Endpoint

func (in inbox) expect(t *testing.T, want string) []Endpoint {
	t.Helper()
	patience := time.After(30 * time.Second)
	last := "nothing"
	for {
		select {
		case set := <-in:
			if last = urls(set); last == want {
				return set
			}
		case <-patience:
			t.Fatalf("got %s; want %s", last, want)
		}
	}
}

func run(t *testing.T, c Config) inbox {
	t.Helper()
	in := make(inbox, 100)
	done := make(chan struct{})
	s := New(c, nil)
	ctx := t.Context() // done before the clean-up
	go func() { defer close(done); s.Run(ctx, nil, func(set []Endpoint) { in <- set }) }()
	t.Cleanup(func() { <-done })
	return in
}

func TestEndpointSlicesAreWatched(t *testing.T) {
	a, c := newAPI(t)
	c.Port = "http"
	a.put("orders-1", pod("10.0.0.1", `"ready":true`), pod("10.0.0.2", `"ready":false`))
	a.put("orders-2", pod("10.0.0.3", ``))
	in := run(t, Config{Kubernetes: &c, KeepEmpty: 1})
	set := in.expect(t, "10.0.0.1:8080 10.0.0.3:8080")
	if set[0].Zone != "eu-1a" {
		t.Errorf("got %+v", set)
	}
	a.put("orders-1", pod("10.0.0.1", `"ready":true`), pod("10.0.0.2", `"ready":true`))
	in.expect(t, "10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080")
	a.put("orders-3", pod("10.0.0.9", `"ready":true`))
	a.remove("orders-2")
	in.expect(t, "10.0.0.1:8080 10.0.0.2:8080 10.0.0.9:8080")
	a.put("orders-3", pod("10.0.0.9", `"ready":false,"serving":true,"terminating":true`))
	in.expect(t, "10.0.0.1:8080 10.0.0.2:8080")
	a.remove("orders-1")
	in.expect(t, "10.0.0.9:8080") // it leaves, but it is all there is
	a.remove("orders-3")
	in.expect(t, "")
	if lists, watches, refused := a.counts(); lists != 2 || watches != 1 || refused != 0 {
		t.Errorf("%d pages, %d watches, %d refused; want 2, 1, 0", lists, watches, refused)
	}
}

func TestAWatchGoesOnFromABookmark(t *testing.T) {
	a, c := newAPI(t)
	a.put("orders-1", pod("10.0.0.1", ``))
	in := run(t, Config{Kubernetes: &c})
	in.expect(t, "10.0.0.1:9000") // the first port
	a.bookmark(500)
	a.put("orders-2", pod("10.0.0.2", ``))
	in.expect(t, "10.0.0.1:9000 10.0.0.2:9000")
	a.mu.Lock()
	a.oldest = 400 // known since the bookmark only
	a.mu.Unlock()
	a.server.CloseClientConnections()
	a.put("orders-2", pod("10.0.0.3", ``))
	in.expect(t, "10.0.0.1:9000 10.0.0.3:9000")
	if lists, watches, _ := a.counts(); lists != 1 || watches != 2 {
		t.Errorf("%d lists, %d watches; want 1, 2", lists, watches)
	}
}

func TestAVersionThatIsTooOldMeansAnotherList(t *testing.T) {
	a, c := newAPI(t)
	a.put("orders-1", pod("10.0.0.1", ``))
	in := run(t, Config{Kubernetes: &c})
	in.expect(t, "10.0.0.1:9000")
	a.compact() // an event of the watch
	a.put("orders-1", pod("10.0.0.2", ``))
	in.expect(t, "10.0.0.2:9000")
	// And the status of a watch that begins, after a while without the server.
	a.mu.Lock()
	a.down = true
	a.wake()
	a.mu.Unlock()
	a.put("orders-1", pod("10.0.0.3", ``))
	a.mu.Lock()
	a.oldest, a.down = a.version+1, false
	a.version += 2
	a.mu.Unlock()
	in.expect(t, "10.0.0.3:9000")
}

func TestATokenIsReadAgain(t *testing.T) {
	a, c := newAPI(t)
	a.put("orders-1", pod("10.0.0.1", ``))
	in := run(t, Config{Kubernetes: &c})
	in.expect(t, "10.0.0.1:9000")
	a.mu.Lock()
	a.token = "second"
	a.mu.Unlock()
	if err := os.WriteFile(c.TokenFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.server.CloseClientConnections()
	a.put("orders-1", pod("10.0.0.2", ``))
	in.expect(t, "10.0.0.2:9000")
}

func TestWithoutItsFilesNothingIsSent(t *testing.T) {
	a, c := newAPI(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, change := range map[string]func(*Kubernetes){
		"ca_file": func(c *Kubernetes) { c.CAFile = missing }, "no PEM": func(c *Kubernetes) { c.CAFile = c.TokenFile },
		"token_file": func(c *Kubernetes) { c.TokenFile = missing }, "no pod": func(c *Kubernetes) { c.Server = "" },
		"this is no pod": func(c *Kubernetes) { c.Namespace = "" },
	} {
		t.Setenv("KUBERNETES_SERVICE_HOST", "")
		other := c
		change(&other)
		k := &cluster{cfg: other}
		if err := k.list(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		k.close()
	}
	if lists, _, refused := a.counts(); lists+refused != 0 {
		t.Error("the server was asked")
	}
}

func TestARedirectDoesNotTakeTheTokenAway(t *testing.T) {
	a, c := newAPI(t)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Error(r.Header) }))
	defer thief.Close()
	a.server.Config.Handler = http.RedirectHandler(thief.URL, http.StatusFound)
	k := &cluster{cfg: c}
	defer k.close()
	if err := k.list(t.Context()); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("got %v", err)
	}
}

func TestAnAPIServerThatFailsIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Kubernetes{Service: "orders", Namespace: "shop", Server: "https://127.0.0.1:1", CAFile: "/does/not/exist", Scheme: "http"}
		k := &cluster{cfg: c}
		var mu sync.Mutex
		var asked []time.Duration
		start := time.Now()
		done := make(chan struct{})
		ctx := t.Context()
		go func() {
			defer close(done)
			k.run(ctx, func(_ []Endpoint, err error) {
				if err == nil {
					t.Error("a set out of nothing")
				}
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, time.Since(start))
			})
		}()
		t.Cleanup(func() { <-done })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if n := len(asked); n < 20 || n > 50 {
			t.Errorf("asked %d times in 10 minutes", n)
		}
		if first, last := asked[1]-asked[0], asked[len(asked)-1]-asked[len(asked)-2]; first > time.Second || last < 15*time.Second {
			t.Errorf("pauses from %v to %v", first, last)
		}
	})
}

func TestAnEventIsBounded(t *testing.T) {
	q := &quota{r: strings.NewReader(strings.Repeat("x", maxEvent+10)), left: maxEvent}
	n := 0
	for p := make([]byte, 1<<16); ; {
		m, err := q.Read(p)
		if n += m; err != nil {
			if n != maxEvent || !errors.Is(err, errQuota) {
				t.Errorf("%d bytes, %v", n, err)
			}
			return
		}
	}
}

func TestConditionsAndPortsChooseEndpoints(t *testing.T) {
	six := strings.NewReplacer(`"IPv4"`, `"IPv6"`)
	tests := []struct {
		what, port string
		slices     []json.RawMessage
		want       string
	}{
		{"by the name of the port", "http", []json.RawMessage{slice("a", 1, pod("10.0.0.1", ``))}, "10.0.0.1:8080"},
		{"by its number", "8080", []json.RawMessage{slice("a", 1, pod("10.0.0.1", ``))}, "10.0.0.1:8080"},
		{"by none that is there", "grpc", []json.RawMessage{slice("a", 1, pod("10.0.0.1", ``))}, ""},
		{"not what is ready but leaves", "", []json.RawMessage{slice("a", 1, pod("10.0.0.1", `"ready":true,"terminating":true`), pod("10.0.0.2", `"ready":true`))}, "10.0.0.2:9000"},
		{"nothing that neither is ready nor serves", "", []json.RawMessage{slice("a", 1, pod("10.0.0.1", `"ready":false,"serving":false,"terminating":true`))}, ""},
		{"one family", "", []json.RawMessage{json.RawMessage(six.Replace(string(slice("b", 1, pod("2001:db8::1", ``))))), slice("a", 1, pod("10.0.0.1", ``))}, "10.0.0.1:9000"},
		{"the only family", "", []json.RawMessage{json.RawMessage(six.Replace(string(slice("b", 1, pod("2001:db8::1", ``)))))}, "[2001:db8::1]:9000"},
		{"no nonsense", "", []json.RawMessage{slice("a", 1, pod("10.0.0.1/@x", ``), `{"addresses":[]}`)}, ""},
	}
	for _, tt := range tests {
		v := view{cfg: Kubernetes{Port: tt.port, Scheme: "http"}}
		v.replace(nil, "1")
		for _, s := range tt.slices {
			if _, err := v.apply(watchEvent{Type: "ADDED", Object: s}); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := settle(v.endpoints()); urls(got) != tt.want {
			t.Errorf("%s: %s; want %s", tt.what, urls(got), tt.want)
		}
	}
}

func FuzzEndpointSlice(f *testing.F) {
	f.Add([]byte(`{"type":"ADDED","object":` + string(slice("a", 1, pod("10.0.0.1", `"ready":true`))) + `}`))
	f.Add([]byte(`{"type":"ERROR","object":{"code":410}}`))
	f.Add([]byte(`{"type":"DELETED","object":{"metadata":{"name":"a"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v := view{cfg: Kubernetes{Scheme: "http"}}
		v.replace(nil, "1")
		for d := json.NewDecoder(bytes.NewReader(data)); ; {
			var e watchEvent
			if d.Decode(&e) != nil {
				break
			}
			if _, err := v.apply(e); err != nil {
				break
			}
		}
		for _, e := range v.endpoints() {
			if err := e.Validate(); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
		}
	})
}
