package offload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test program is also the process that is killed: with these set it keeps a store in a folder, takes jobs by HTTP,
// and delivers them to a receiver.
const (
	envDir      = "OFFLOAD_TEST_DIR"
	envReceiver = "OFFLOAD_TEST_RECEIVER"
	envJobs     = "OFFLOAD_TEST_JOBS" // how many jobs TestNothingIsLostWhenTheProcessIsKilled makes; default 1000
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		if err := victim(dir, os.Getenv(envReceiver)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// victim runs until it is killed.
func victim(dir, receiver string) error {
	s, err := Open(StoreConfig{Dir: dir}, nil)
	if err != nil {
		return err
	}
	q := s.Queue("orders", QueueConfig{BaseDelay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond, MaxAttempts: 1000})
	go q.Run(context.Background(), time.Minute, func(ctx context.Context, d Delivery) Outcome {
		r, err := http.NewRequestWithContext(ctx, d.Job.Method, receiver+d.Job.Target, bytes.NewReader(d.Job.Body))
		if err != nil {
			return Outcome{Verdict: Permanent, Error: err.Error()}
		}
		r.Header.Set("Idempotency-Key", d.Job.Key)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return Outcome{Verdict: Retry, Error: err.Error()}
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return Outcome{Verdict: Retry, Status: res.StatusCode}
		}
		return Outcome{Status: res.StatusCode}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // it is killed before it could be slow
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(q.Status(r.Context()))
			return
		}
		j := &Job{Key: r.Header.Get("Idempotency-Key"), Method: r.Method, Target: r.URL.RequestURI(), Body: body}
		receipt, err := q.Submit(r.Context(), j)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, receipt.Key)
	}))
}

// process is the victim of now.
type process struct {
	mu   sync.Mutex
	cmd  *exec.Cmd
	addr string
}

func (p *process) start(dir, receiver string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe) //nolint:noctx // it is killed
	cmd.Env = append(os.Environ(), envDir+"="+dir, envReceiver+"="+receiver)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.addr = cmd, line[:len(line)-1]
	return nil
}

// kill ends it as no signal handler can see.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) url() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addr
}

// ledger is what the receiver has seen.
type ledger struct {
	mu   sync.Mutex
	seen map[string]map[string]int // deliveries by target and key
	n    int
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	if l.seen[r.URL.Path] == nil {
		l.seen[r.URL.Path] = make(map[string]int)
	}
	l.seen[r.URL.Path][r.Header.Get("Idempotency-Key")]++
	if rand.IntN(20) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// TestNothingIsLostWhenTheProcessIsKilled makes jobs while the process that takes and delivers them is killed again and
// again. Half of the calls bring a key, and are made again until they are acknowledged; the others are not, and count
// only when they were.
func TestNothingIsLostWhenTheProcessIsKilled(t *testing.T) {
	total := 1000
	if n, err := strconv.Atoi(os.Getenv(envJobs)); err == nil {
		total = n
	}
	book := &ledger{seen: make(map[string]map[string]int)}
	receiver := httptest.NewServer(book)
	defer receiver.Close()
	dir, p := t.TempDir(), &process{}
	if err := p.start(dir, receiver.URL); err != nil {
		t.Fatal(err)
	}
	defer func() { p.kill() }()

	acked := make([]string, total) // the key of each acknowledged job
	var run sync.WaitGroup
	work := make(chan int)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for range 8 {
		run.Go(func() {
			pause := time.NewTicker(time.Millisecond)
			defer pause.Stop()
			for n := range work {
				for end := time.Now().Add(patience); time.Now().Before(end); <-pause.C {
					key, ok := send(client, p.url(), n)
					if acked[n] = key; ok || n%2 == 1 {
						break
					}
				}
			}
		})
	}
	kills := 0
	for n := range total {
		work <- n
		if n%(total/8) == total/16 { // eight times
			p.kill()
			kills++
			if err := p.start(dir, receiver.URL); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(work)
	run.Wait()
	want := 0
	for _, key := range acked {
		if key != "" {
			want++
		}
	}
	for range 3 { // and while it only delivers
		p.kill()
		kills++
		if err := p.start(dir, receiver.URL); err != nil {
			t.Fatal(err)
		}
		before := rest(client, p.url())
		until(t, "some of the rest delivered", func() bool { n := rest(client, p.url()); return n == 0 || n < before*3/4 })
	}
	until(t, "all delivered", func() bool { return rest(client, p.url()) == 0 })
	check(t, book, acked)
	t.Logf("%d jobs acknowledged of %d, %d deliveries, %d kills", want, total, book.n, kills)
}

// send makes one job; key is "" when it was not acknowledged.
func send(client *http.Client, url string, n int) (key string, ok bool) {
	r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("%s/jobs/%d", url, n), bytes.NewReader([]byte("body"))) //nolint:noctx // the client has a timeout
	if err != nil {
		return "", false
	}
	if n%2 == 0 {
		r.Header.Set("Idempotency-Key", fmt.Sprint("key-", n))
	}
	res, err := client.Do(r)
	if err != nil {
		return "", false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusAccepted {
		return "", false
	}
	return string(text), true
}

// rest is how many jobs the process still has; many when it does not say.
func rest(client *http.Client, url string) uint64 {
	res, err := client.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return 1 << 32
	}
	defer res.Body.Close()
	var s QueueStatus
	if json.NewDecoder(res.Body).Decode(&s) != nil || !s.Reachable {
		return 1 << 32
	}
	return s.Queued + s.Running
}

// check fails for a job that was acknowledged and not delivered, or delivered under more than its one key.
func check(t *testing.T, book *ledger, acked []string) {
	t.Helper()
	book.mu.Lock()
	defer book.mu.Unlock()
	for n, key := range acked {
		keys := book.seen[fmt.Sprintf("/jobs/%d", n)]
		switch {
		case key == "" && n%2 == 0:
			t.Errorf("job %d was never taken", n)
		case key != "" && keys[key] == 0:
			t.Errorf("job %d was acknowledged and never delivered", n)
		case len(keys) > 1 && n%2 == 0:
			t.Errorf("job %d came with the keys %v", n, keys)
		case n%2 == 0 && key != "" && key != fmt.Sprint("key-", n):
			t.Errorf("job %d has the key %q", n, key)
		case key != "" && len(keys) > 1:
			t.Errorf("job %d came with the keys %v", n, keys)
		}
	}
}
