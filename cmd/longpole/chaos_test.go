package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// The chaos test runs a gateway, three upstreams, Redis and NATS as processes, breaks one thing after the other under
// load, and checks every single answer. LONGPOLE_CHAOS says for how long, as 10m; `make chaos` does that.
const chaosVariable = "LONGPOLE_CHAOS"

// chaosBackend is the program of an upstream: ADDRESS JOURNAL. What it answers can be foretold, and each job that it is
// brought stands in its journal before it is acknowledged. Its /control turns faults on.
func chaosBackend() {
	address, journal := os.Args[1], os.Args[2]
	jobs, err := os.OpenFile(journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	var delay, resets atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/control", func(_ http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.ParseInt(r.FormValue("delay"), 10, 64)
		percent, _ := strconv.ParseInt(r.FormValue("resets"), 10, 64)
		delay.Store(ms)
		resets.Store(percent)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(delay.Load()) * time.Millisecond)
		if rand.Int64N(100) < resets.Load() {
			panic(http.ErrAbortHandler)
		}
		if strings.HasPrefix(r.URL.Path, "/cached/") {
			w.Header().Set("Cache-Control", "max-age=1, stale-if-error=600")
		}
		if strings.HasPrefix(r.URL.Path, "/jobs/") {
			if _, err := fmt.Fprintf(jobs, "%s %s\n", r.Header.Get("Idempotency-Key"), r.URL.Path); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		fmt.Fprint(w, chaosAnswer(r.Method, r.URL.RequestURI(), body))
	})
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	panic(s.ListenAndServe())
}

// chaosAnswer is the one right answer of a call.
func chaosAnswer(method, target string, body []byte) string {
	return fmt.Sprintf("%s %s %x", method, target, sha256.Sum256(body))
}

// chaosNATS is a NATS server with JetStream as a program of its own: PORT FOLDER.
func chaosNATS() {
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: os.Args[2], SyncAlways: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	s.Start()
	s.WaitForShutdown()
}

// process is a program that can be killed and started again.
type process struct {
	t    *testing.T
	name string
	args []string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the present one has ended
}

func startProcess(t *testing.T, name string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; scripts/setup-tests.sh installs it", name)
	}
	p := &process{t: t, name: path, args: args, log: filepath.Join(t.TempDir(), name+".log")}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd, p.done = exec.Command(p.name, p.args...), make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, done := p.cmd, p.done
	go func() { defer close(done); _ = cmd.Wait() }()
}

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// residentKiB is the memory of the process that is not paged out.
func (p *process) residentKiB() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// freePort is one that nobody uses now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// chaos is the whole system.
type chaos struct {
	t        *testing.T
	rand     *rand.Rand
	round    []int // faults that are still to come before one comes again
	url      string
	gateway  *process
	backends []*process
	address  []string // of the backends
	journals []string
	redis    *process
	nats     *process
	client   *http.Client

	calls, failed, wrong, hung atomic.Int64
	mu                         sync.Mutex
	failures                   map[string]int
	accepted                   map[string]string // idempotency keys of jobs that were answered 202, and their paths
}

func newChaos(t *testing.T) *chaos {
	dir := t.TempDir()
	c := &chaos{
		t: t, rand: rand.New(rand.NewPCG(7, 7)), failures: make(map[string]int), accepted: make(map[string]string),
		client: &http.Client{Timeout: chaosPatience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	t.Cleanup(c.client.CloseIdleConnections)
	for i := range 3 {
		address, journal := "127.0.0.1:"+freePort(t), filepath.Join(dir, fmt.Sprintf("jobs-%d", i))
		c.address, c.journals = append(c.address, address), append(c.journals, journal)
		c.backends = append(c.backends, startProcess(t, "chaos-backend", address, journal))
	}
	redis, nats, port := freePort(t), freePort(t), freePort(t)
	c.redis = startProcess(t, "redis-server", "--port", redis, "--bind", "127.0.0.1", "--save", "", "--dir", dir)
	c.nats = startProcess(t, "chaos-nats", nats, filepath.Join(dir, "nats"))
	c.url = "http://127.0.0.1:" + port
	file := filepath.Join(dir, "longpole.yaml")
	if err := os.WriteFile(file, []byte(c.config(port, redis, nats)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.gateway = startProcess(t, "longpole", "serve", "--config", file)
	eventually(t, "the first answer", func() bool { return get(c.url + "/echo/first").ok() })
	return c
}

// config has a short timeout, so that what hangs shows, and keeps few traces: their store fills for minutes before it is at
// its bound, which would hide what leaks.
func (c *chaos) config(port, redis, nats string) string {
	return fmt.Sprintf(`listen: 127.0.0.1:%s
admin: off
otlp: {http: off, grpc: off}
tracing: {traces_per_second: 1}
redis: {addresses: ["127.0.0.1:%s"]}
offload: {url: "nats://127.0.0.1:%s", timeout: 2s}
upstreams:
  up:
    endpoints: ["http://%s"]
    health: {path: /health, interval: 200ms, timeout: 200ms}
routes:
  - name: jobs
    match: {path: /jobs}
    upstream: up
    offload: {concurrency: 8, base_delay: 100ms, max_delay: 1s, max_attempts: 1000}
    policy: {timeout: 2s, try_timeout: 500ms}
  - name: cached
    match: {path: /cached}
    upstream: up
    policy: {timeout: 3s, try_timeout: 500ms, cache: {ttl: 1s, shared: true}}
  - name: echo
    match: {path: /echo}
    upstream: up
    policy: {timeout: 3s, try_timeout: 500ms}
`, port, redis, nats, strings.Join(c.address, `", "http://`))
}

// chaosPatience is longer than every timeout of the configuration: a call that takes as long hangs.
const chaosPatience = 20 * time.Second

// call makes one call and checks its answer.
func (c *chaos) call(n int) {
	method, target, header := http.MethodGet, fmt.Sprintf("/echo/%d?x=%d", n, n*7), http.Header{}
	var body []byte
	switch n % 4 {
	case 1:
		target = fmt.Sprintf("/cached/%d", n%50)
	case 2:
		method, body = http.MethodPost, bytes.Repeat([]byte(strconv.Itoa(n)), n%2000)
	case 3:
		method, target, body = http.MethodPost, fmt.Sprintf("/jobs/%d", n), []byte(strconv.Itoa(n))
		header.Set("Idempotency-Key", fmt.Sprintf("key-%d", n))
	}
	c.calls.Add(1)
	r, err := http.NewRequest(method, c.url+target, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return
	}
	r.Header = header
	res, err := c.client.Do(r)
	if err != nil {
		c.fail(err)
		return
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		c.fail(err)
	case n%4 == 3 && res.StatusCode == http.StatusAccepted:
		c.mu.Lock()
		c.accepted[header.Get("Idempotency-Key")] = target
		c.mu.Unlock()
	case res.StatusCode >= 500:
		c.fail(fmt.Errorf("%s: %d %s", strings.Split(target, "/")[1], res.StatusCode, res.Header.Get("X-Longpole-Error")))
	case res.StatusCode != http.StatusOK || string(got) != chaosAnswer(method, target, body):
		c.wrong.Add(1)
		c.t.Errorf("%s %s: %d %q", method, target, res.StatusCode, got)
	}
}

func (c *chaos) fail(err error) {
	c.failed.Add(1)
	if wait, ok := errors.AsType[net.Error](err); ok && wait.Timeout() {
		c.hung.Add(1)
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); strings.HasPrefix(text, "Get ") || strings.HasPrefix(text, "Post ") {
		text = text[i+2:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures[text]++
}

// load makes calls at a steady pace, whether or not the ones before have ended, until ctx is done.
func (c *chaos) load(ctx context.Context, perSecond int) {
	var run sync.WaitGroup
	defer run.Wait()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			run.Go(func() { c.call(n) })
		}
	}
}

// fault breaks one thing, and returns what mends it.
func (c *chaos) fault() (name string, mend func()) {
	i := c.rand.IntN(len(c.backends))
	b, control := c.backends[i], "http://"+c.address[i]+"/control"
	set := func(query string) {
		res, err := http.Get(control + query)
		if err != nil {
			c.t.Errorf("a fault cannot be set: %v", err)
			return
		}
		_ = res.Body.Close()
	}
	if len(c.round) == 0 {
		c.round = c.rand.Perm(6)
	}
	next := c.round[0]
	c.round = c.round[1:]
	switch next {
	case 0:
		b.kill()
		return fmt.Sprint("killed upstream ", i), b.start
	case 1:
		b.signal(syscall.SIGSTOP)
		return fmt.Sprint("stopped upstream ", i), func() { b.signal(syscall.SIGCONT) }
	case 2:
		set("?delay=400")
		return fmt.Sprint("slowed upstream ", i), func() { set("") }
	case 3:
		set("?resets=50")
		return fmt.Sprint("resets at upstream ", i), func() { set("") }
	case 4:
		c.redis.kill()
		return "killed redis", c.redis.start
	}
	c.nats.kill()
	return "killed nats", c.nats.start
}

func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("runs seven processes")
	}
	length := 12 * time.Second
	if v := os.Getenv(chaosVariable); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatalf("%s: %v", chaosVariable, err)
		}
	}
	c := newChaos(t)
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	loaded := make(chan struct{})
	go func() { defer close(loaded); c.load(ctx, 100) }()
	var resident []int // KiB, once every tenth of the time
	for start := time.Now(); ctx.Err() == nil; {
		name, mend := c.fault()
		lasts, rests := time.Duration(500+c.rand.IntN(1500))*time.Millisecond, time.Duration(300+c.rand.IntN(700))*time.Millisecond
		t.Logf("%6.1fs %s for %v", time.Since(start).Seconds(), name, lasts)
		time.Sleep(lasts)
		mend()
		time.Sleep(rests)
		if !c.gateway.running() {
			text, _ := os.ReadFile(c.gateway.log)
			t.Fatalf("the gateway ended:\n%s", text)
		}
		if time.Since(start) > time.Duration(len(resident)+1)*length/10 {
			resident = append(resident, c.gateway.residentKiB())
		}
	}
	<-loaded
	c.judge(length, resident)
}

// judge checks that nothing was wrong, that all is well again by itself, and that no job was lost.
func (c *chaos) judge(length time.Duration, resident []int) {
	t := c.t
	for i := range 20 {
		eventually(t, "an answer after the storm", func() bool {
			before := c.failed.Load()
			c.call(4*i + 1_000_000)
			c.call(4*i + 1_000_001)
			c.call(4*i + 1_000_002)
			return c.failed.Load() == before
		})
	}
	missing := 0
	eventually(t, "the delivery of every accepted job", func() bool { missing = c.missing(); return missing == 0 })
	resident = append(resident, c.gateway.residentKiB())
	t.Logf("%d calls, %d failed %v, %d jobs accepted and delivered; resident KiB from tenth to tenth %d",
		c.calls.Load(), c.failed.Load(), c.failures, len(c.accepted), resident)
	if c.wrong.Load() > 0 || c.hung.Load() > 0 || missing > 0 {
		t.Errorf("%d wrong answers, %d hung calls, %d lost jobs", c.wrong.Load(), c.hung.Load(), missing)
	}
	// One upstream of three, or one store, is broken most of the time. Calls that must not be made twice may fail with it.
	if share := float64(c.failed.Load()) / float64(c.calls.Load()); share > 0.1 {
		t.Errorf("%.1f %% of the calls failed", 100*share)
	}
	// Single values wander by a fifth with the collector of garbage, and traces are kept until their place is full.
	if half := len(resident) / 2; length >= 5*time.Minute {
		if early, late := middle(resident[:half]), middle(resident[half:]); late > early+early/4 {
			t.Errorf("memory grew from %d to %d KiB", early, late)
		}
	}
}

// middle is the upper median.
func middle(of []int) int { return slices.Sorted(slices.Values(of))[len(of)/2] }

// missing counts the accepted jobs that stand in no journal.
func (c *chaos) missing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[string]bool)
	for _, j := range c.journals {
		text, err := os.ReadFile(j)
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			seen[strings.TrimSpace(line)] = true
		}
	}
	n := 0
	for key, path := range c.accepted {
		if !seen[key+" "+path] {
			n++
		}
	}
	return n
}
