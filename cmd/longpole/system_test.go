package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/ingest"
)

// patience bounds every wait: long enough for a machine that does ten other things.
const patience = 30 * time.Second

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually asks until ok, or until patience is over.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// backend is an upstream that can be killed and come back at its address.
type backend struct {
	t       *testing.T
	address string
	handler http.Handler
	server  *http.Server
	ended   chan struct{}
}

func newBackend(t *testing.T, h http.HandlerFunc) *backend {
	b := &backend{t: t, address: "127.0.0.1:0", handler: h}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *backend) start() {
	b.t.Helper()
	var l net.Listener
	eventually(b.t, "listening on "+b.address, func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", b.address)
		return err == nil
	})
	b.address, b.server, b.ended = l.Addr().String(), &http.Server{Handler: b.handler, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	server, ended := b.server, b.ended
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
}

// kill closes the address and breaks every connection.
func (b *backend) kill() {
	_ = b.server.Close()
	<-b.ended
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }
}

// system is a gateway in this process.
type system struct {
	*server
	t    *testing.T
	path string // of its configuration
	log  *logBuffer
	url  string // where calls go
}

// newSystem runs a configuration whose addresses have port 0 until the test ends.
func newSystem(t *testing.T, config string) *system {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a gateway on real sockets")
	}
	y := &system{t: t, path: filepath.Join(t.TempDir(), "longpole.yaml"), log: &logBuffer{}}
	y.write(config)
	cfg, err := loadConfig(y.path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(y.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if y.server, err = newServer(t.Context(), cfg, log); err != nil {
		t.Fatal(err)
	}
	y.url = "http://" + y.front[0].Addr().String()
	y.every = 0
	y.analysis.assembler = ingest.NewAssembler(ingest.AssemblerConfig{QuietPeriod: 50 * time.Millisecond})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- y.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server ends with %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	})
	return y
}

func (y *system) write(config string) {
	y.t.Helper()
	if err := os.WriteFile(y.path, []byte(config), 0o600); err != nil {
		y.t.Fatal(err)
	}
}

// config is a file with one upstream, one route and ports of the system's choice.
func config(policy string, endpoints ...*backend) string {
	var urls []string
	for _, e := range endpoints {
		urls = append(urls, "http://"+e.address)
	}
	return fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
otlp: {http: 127.0.0.1:0, grpc: 127.0.0.1:0}
limits: {drain_timeout: 2s}
upstreams:
  orders:
    endpoints: [%s]
    health: {path: /health, interval: 100ms}
routes:
  - name: all
    match: {path: /}
    upstream: orders
    policy: %s
`, strings.Join(urls, ", "), policy)
}

// adminURL is what --admin takes.
func (y *system) adminURL() string { return "http://" + y.admin.Addr().String() }

// cli runs a command and returns its exit code and what it wrote.
func (y *system) cli(args ...string) (code int, stdout, stderr string) {
	y.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(y.t.Context(), 3*patience)
	defer cancel()
	code = run(ctx, args, strings.NewReader(""), &out, &errs)
	if strings.ContainsAny(out.String()+errs.String(), "\x1b\r") {
		y.t.Errorf("longpole %v writes control characters to what is no terminal", args)
	}
	return code, out.String(), errs.String()
}

// answer is what a client got.
type answer struct {
	status       int
	reason, body string
	took         time.Duration
	err          error
}

func (a answer) ok() bool { return a.err == nil && a.status == http.StatusOK }

var client = &http.Client{
	Timeout:   patience,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64},
}

func get(url string) (a answer) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	resp, err := client.Get(url)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, reason: resp.Header.Get("X-Longpole-Error"), body: string(body), err: err}
}

// traffic is a number of clients that call one after the other.
type traffic struct {
	calls, failed atomic.Int64
	stop          func()

	mu    sync.Mutex
	worst answer // the last failed
}

// drive calls url from n clients until stopped, which is at the end of the test at the latest.
func drive(t *testing.T, url string, n int) *traffic {
	f := &traffic{}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	for range n {
		run.Go(func() {
			for ctx.Err() == nil {
				a := get(url)
				f.calls.Add(1)
				if !a.ok() {
					f.failed.Add(1)
					f.mu.Lock()
					f.worst = a
					f.mu.Unlock()
				}
			}
		})
	}
	f.stop = sync.OnceFunc(func() { cancel(); run.Wait() })
	t.Cleanup(f.stop)
	return f
}

// more waits until n more calls have ended.
func (f *traffic) more(t *testing.T, n int64) {
	t.Helper()
	from := f.calls.Load()
	eventually(t, fmt.Sprintf("%d more calls", n), func() bool { return f.calls.Load() >= from+n })
}

func TestServeForwardsAndAnswersAdmin(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, config("{}", a, b))
	seen := map[string]bool{}
	eventually(t, "answers of both endpoints", func() bool {
		got := get(y.url + "/x?y=1")
		if !got.ok() {
			t.Fatalf("got %+v", got)
		}
		seen[got.body] = true
		return len(seen) == 2
	})
	for path, want := range map[string]string{
		"/livez": "ok", "/readyz?verbose": "route all: 2 of 2 endpoints fit", "/api/v1/routes": `"name": "all"`,
		"/api/v1/rollouts": `"rollouts": []`, "/api/v1/findings": `"routes"`, "/metrics": "longpole_", "/": "<html",
	} {
		got := get(y.adminURL() + path)
		if flat := strings.ReplaceAll(got.body, `":`, `": `); !got.ok() || !strings.Contains(flat, want) && !strings.Contains(got.body, want) {
			t.Errorf("%s answers %d with %.200q; want %q in it", path, got.status, got.body, want)
		}
	}
}

func TestReloadKeepsTheLastGoodFile(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, config("{}", a))
	serves := func(want string) func() bool {
		return func() bool { got := get(y.url); return got.ok() && got.body == want }
	}
	eventually(t, "the first endpoint", serves("a"))

	y.write(config("{timeout: never, retri: {}}", b))
	_ = y.reread(y.path)
	if got := get(y.url); got.body != "a" {
		t.Errorf("after a bad file the answer is %+v", got)
	}
	for _, want := range []string{"reload refused; the running configuration stays", "2 faults in", "policy.timeout", "did you mean"} {
		if !strings.Contains(strings.ReplaceAll(y.log.String(), `\"`, `"`), want) {
			t.Errorf("the log does not say %q: %s", want, y.log)
		}
	}

	y.write(strings.Replace(config("{}", b), "listen: 127.0.0.1:0", "listen: 127.0.0.1:7", 1))
	_ = y.reread(y.path)
	if !strings.Contains(y.log.String(), "restart it to change them") || !serves("a")() {
		t.Errorf("an address was changed while the gateway runs: %s", y.log)
	}

	if err := os.Remove(y.path); err != nil {
		t.Fatal(err)
	}
	_ = y.reread(y.path)
	if !serves("a")() {
		t.Error("a removed file takes the gateway with it")
	}

	y.write(config("{}", b))
	_ = y.reread(y.path)
	eventually(t, "the second endpoint after a good file", serves("b"))
	if !strings.Contains(y.log.String(), "msg=reloaded") {
		t.Errorf("the log does not tell the reload: %s", y.log)
	}
}

func TestServeReloadsByItselfWhenTheFileChanges(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, config("{}", a))
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	stamp := fileStamp(y.path)
	go func() {
		defer close(watched)
		y.watchConfig(ctx, y.path, stamp)
	}()
	defer func() { stop(); <-watched }()
	y.write(config("{timeout: 7s}", b))
	eventually(t, "the second endpoint", func() bool { return get(y.url).body == "b" })
}

// TestServeReloadsOnSIGHUP leaves the file alone, so that only the signal can be the reason.
func TestServeReloadsOnSIGHUP(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	// Before the server listens for it, the signal would end the test. So would the last one, which may come after the
	// server has ended: it is caught from here on and never let go.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	stamp := fileStamp(y.path)
	go func() {
		defer close(watched)
		y.watchConfig(ctx, y.path, stamp)
	}()
	defer func() { stop(); <-watched }()
	eventually(t, "a reload", func() bool {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(y.log.String(), "msg=reloaded")
	})
}

// TestServeEndsInOrder runs the whole command: it says where it listens, and ends with 0 when it is told to.
func TestServeEndsInOrder(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a")))) // for its file
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var log logBuffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--config", y.path}, strings.NewReader(""), io.Discard, &log)
	}()
	eventually(t, "the line that says where it listens", func() bool { return strings.Contains(log.String(), `"msg":"serving"`) })
	stop()
	select {
	case got := <-code:
		if got != 0 || !strings.Contains(log.String(), `"msg":"stopped"`) {
			t.Errorf("exits %d and logs %s", got, log.String())
		}
	case <-time.After(patience):
		t.Error("serve does not end")
	}
}

// TestRetriesAloneCoverADeadUpstream has no health checks: retries and breakers do all.
func TestRetriesAloneCoverADeadUpstream(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, strings.Replace(config("{}", a, b), "health: {path: /health, interval: 100ms}", "health: {}", 1))
	f := drive(t, y.url, 8)
	f.more(t, 500)
	a.kill()
	f.more(t, 1000)
	f.stop()
	if n := f.failed.Load(); n > 8 {
		t.Errorf("%d of %d calls failed; want at most one a client: %+v", n, f.calls.Load(), f.worst)
	}
}

func TestOneDeadUpstreamOfTwoCostsHardlyACall(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, config("{}", a, b))
	f := drive(t, y.url, 8)
	f.more(t, 500)
	if n := f.failed.Load(); n > 0 {
		t.Fatalf("%d calls failed before anything was broken: %+v", n, f.worst)
	}
	a.kill()
	eventually(t, "the dead endpoint is taken out", func() bool { return strings.Contains(get(y.adminURL()+"/readyz?verbose").body, "1 of 2 endpoints fit") })
	during := f.failed.Load()
	if during > 8 {
		t.Errorf("%d calls failed while one of two endpoints died; want at most one a client: %+v", during, f.worst)
	}
	f.more(t, 500)
	if n := f.failed.Load() - during; n > 0 {
		t.Errorf("%d calls failed after the dead endpoint was taken out: %+v", n, f.worst)
	}
	a.start()
	eventually(t, "the endpoint is back", func() bool { return get(y.url).body == "a" })
	f.stop()
	if n := f.failed.Load() - during; n > 0 {
		t.Errorf("%d calls failed when the endpoint came back: %+v", n, f.worst)
	}
}

func TestAllUpstreamsDeadAnswersAtOnceAndRecovers(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	y := newSystem(t, config("{timeout: 5s, breaker: {open_for: 500ms}}", a, b))
	f := drive(t, y.url, 4)
	f.more(t, 100)
	a.kill()
	b.kill()
	eventually(t, "a refusal", func() bool { return get(y.url).status == http.StatusServiceUnavailable })
	for range 50 {
		got := get(y.url)
		if got.err != nil || got.status < 502 || got.status > 504 || got.reason == "" || !strings.Contains(got.body, `"route":"all"`) {
			t.Fatalf("got %+v; want 502, 503 or 504 with a reason", got)
		}
		if got.took > 10*time.Second {
			t.Errorf("the refusal took %s", got.took)
		}
	}
	if got := get(y.adminURL() + "/readyz"); got.status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %+v", got)
	}
	a.start()
	b.start()
	eventually(t, "answers again", func() bool { return get(y.url).ok() })
	failed := int64(0)
	eventually(t, "100 calls without a failure", func() bool {
		failed = f.failed.Load()
		f.more(t, 100)
		return f.failed.Load() == failed
	})
}

func TestAnUpstreamThatHangsIsATimeout(t *testing.T) {
	y := newSystem(t, config("{timeout: 200ms}", newBackend(t, slow(time.Hour))))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got := get(y.url); got.status != http.StatusGatewayTimeout || got.reason != "timeout" || got.took > patience/2 {
				t.Errorf("got %+v; want 504 within the timeout", got)
			}
		})
	}
	all.Wait()
}

func TestTheAdminSideAsksForItsToken(t *testing.T) {
	t.Setenv(tokenVariable, "secret")
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	list := []string{"rollout", "list", "--admin", y.adminURL()}
	if code, _, stderr := y.cli(list...); code != 0 {
		t.Errorf("with the token list exits %d: %s", code, stderr)
	}
	t.Setenv(tokenVariable, "")
	if code, _, stderr := y.cli(list...); code != exitError || !strings.Contains(stderr, "longpole: hint: put the gateway's token in LONGPOLE_ADMIN_TOKEN") {
		t.Errorf("without the token list exits %d: %s", code, stderr)
	}
	if got := get(y.adminURL() + "/livez"); !got.ok() {
		t.Errorf("/livez answers %+v; want 200 without a token", got)
	}
}

func TestABusyAddressIsNamed(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	y.write(strings.Replace(config("{}", newBackend(t, named("a"))), "listen: 127.0.0.1:0", "listen: "+y.front[0].Addr().String(), 1))
	code, _, stderr := y.cli("serve", "--config", y.path)
	if code != exitError || !strings.Contains(stderr, y.front[0].Addr().String()) || !strings.Contains(stderr, "longpole: hint: another program uses the address") {
		t.Errorf("exits %d: %s", code, stderr)
	}
	cfg, err := loadConfig(y.path)
	if err != nil {
		t.Fatal(err)
	}
	var fail *failure
	if _, err := newServer(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.As(err, &fail) || fail.code != exitError {
		t.Errorf("newServer gives %v", err)
	}
}
