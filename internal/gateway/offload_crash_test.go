package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The gateway that is killed is this test program again, with the file of its configuration in the environment.
const (
	envVictim    = "GATEWAY_TEST_VICTIM"
	envCrashJobs = "OFFLOAD_TEST_JOBS" // default 400
)

// TestVictim is no test: it is the process that TestNothingAcknowledgedIsLostWhenTheGatewayIsKilled kills.
func TestVictim(t *testing.T) {
	file := os.Getenv(envVictim)
	if file == "" {
		t.Skip("only as a process of its own")
	}
	g, err := New(load(t, file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-g.Ready()
		fmt.Printf("\nlistening %s\n", g.Addr())
	}()
	t.Fatal(g.Run(context.Background()))
}

// victim is the gateway of now.
type victim struct {
	file string
	mu   sync.Mutex
	cmd  *exec.Cmd
	addr string
}

func (p *victim) start(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^TestVictim$") //nolint:noctx // it is killed
	cmd.Env = append(os.Environ(), envVictim+"="+p.file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening "); ok {
			p.mu.Lock()
			p.cmd, p.addr = cmd, addr
			p.mu.Unlock()
			return
		}
	}
	t.Fatal("the gateway did not start")
}

func (p *victim) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *victim) url(path string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addr + path
}

// receiver notes the keys that each path came with.
type receiver struct {
	mu   sync.Mutex
	keys map[string]map[string]bool
	n    int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[q.URL.Path] == nil {
		r.keys[q.URL.Path] = make(map[string]bool)
	}
	r.keys[q.URL.Path][q.Header.Get("Idempotency-Key")] = true
	if r.n++; r.n%23 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (r *receiver) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.keys[path]) > 0
}

func TestNothingAcknowledgedIsLostWhenTheGatewayIsKilled(t *testing.T) {
	total := 400
	if n, err := strconv.Atoi(os.Getenv(envCrashJobs)); err == nil {
		total = n
	}
	book := &receiver{keys: make(map[string]map[string]bool)}
	upstream := httptest.NewServer(book)
	defer upstream.Close()
	p := &victim{file: fmt.Sprintf(`
listen: 127.0.0.1:0
admin: "off"
otlp: {grpc: "off", http: "off"}
offload: {dir: %s}
upstreams: {up: {endpoints: [%q]}}
routes:
- {name: jobs, upstream: up, offload: {base_delay: 10ms, max_delay: 100ms, max_attempts: 1000}}
`, t.TempDir(), upstream.URL)}
	p.start(t)
	defer func() { p.kill() }()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()

	acked := make([]bool, total)
	work := make(chan int)
	var run sync.WaitGroup
	for range 8 {
		run.Go(func() {
			pause := time.NewTicker(time.Millisecond)
			defer pause.Stop()
			for n := range work {
				for end := time.Now().Add(time.Minute); !acked[n] && time.Now().Before(end); <-pause.C {
					acked[n] = offer(client, p.url(fmt.Sprintf("/job/%d", n)), n)
				}
			}
		})
	}
	kills := 0
	for n := range total {
		work <- n
		if n%(total/6) == total/12 {
			p.kill()
			p.start(t)
			kills++
		}
	}
	close(work)
	run.Wait()
	p.kill()
	p.start(t)
	for n := range total {
		path := fmt.Sprintf("/job/%d", n)
		if !acked[n] {
			t.Errorf("job %d was never taken", n)
			continue
		}
		happens(t, path+" is delivered", func() bool { return book.has(path) })
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	for path, keys := range book.keys {
		if want := "key-" + strings.TrimPrefix(path, "/job/"); len(keys) != 1 || !keys[want] {
			t.Errorf("%s came with the keys %v", path, keys)
		}
	}
	t.Logf("%d jobs, %d deliveries, %d kills", total, book.n, kills+1)
}

// offer makes one job, as a client does that knows its key and tries again.
func offer(client *http.Client, url string, n int) bool {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(strings.Repeat("x", n%2000))) //nolint:noctx // the client has a timeout
	if err != nil {
		return false
	}
	r.Header.Set("Idempotency-Key", fmt.Sprint("key-", n))
	res, err := client.Do(r)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode == http.StatusAccepted
}
