package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/systemtest"
)

// redisServer runs a real Redis at address until the test ends, or is told to kill it.
func redisServer(t *testing.T, address string) (kill func()) {
	t.Helper()
	path := systemtest.Program(t, "redis-server")
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(strings.ToLower(lines.Text()), "ready to accept connections") {
			return kill
		}
	}
	t.Fatal("redis-server did not start")
	return nil
}

// redisKeys is how many keys Redis holds.
func redisKeys(t *testing.T, address string) (n int) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err = io.WriteString(c, "DBSIZE\r\n"); err == nil {
		_, err = fmt.Fscanf(c, ":%d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until waits for something that other processes do.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal(what, "does not come about")
		}
		<-time.After(5 * time.Millisecond)
	}
}

// pair is two gateways before one upstream, that share a Redis.
type pair struct {
	n     *network
	c     *http.Client
	redis string
	calls atomic.Int64
	keys  int
}

func newPair(t *testing.T, redis string) *pair {
	p := &pair{n: newNetwork(), redis: redis}
	p.n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
		n := p.calls.Add(1)
		w.Header().Set("Vary", "Foo")
		if strings.HasPrefix(r.URL.Path, "/slow") {
			<-time.After(50 * time.Millisecond)
		}
		_, _ = fmt.Fprintf(w, "%s %s %d", r.URL.Path, r.Header.Get("Foo"), n)
	})
	for _, at := range []string{"one:80", "two:80"} {
		p.n.start(t, fmt.Sprintf(`
listen: %s
redis: {addresses: %q, timeout: 2s, pause: 20ms}
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: all, upstream: up, policy: {cache: {ttl: 1h, shared: true}}}
`, at, redis), nil)
	}
	p.c = p.n.client(t)
	return p
}

// get asks one of them, as if both were the same site.
func (p *pair) get(t *testing.T, at, path string, header ...string) answer {
	t.Helper()
	r := request(t, http.MethodGet, "http://"+at+":80"+path, nil, header...)
	r.Host = "site"
	return do(p.c, r)
}

// shares reports whether what gateway one fetches is known to gateway two, which is then asked for it alone.
func (p *pair) shares(t *testing.T) bool {
	t.Helper()
	p.keys++
	path := fmt.Sprint("/key", p.keys)
	stored := redisKeys(t, p.redis)
	first := p.get(t, "one", path, "Foo", "x")
	if first.status != 200 {
		t.Fatalf("%+v", first)
	}
	for range 100 { // it is told after the client
		if redisKeys(t, p.redis) >= stored+2 {
			break
		}
		<-time.After(2 * time.Millisecond)
	}
	second := p.get(t, "two", path, "Foo", "x")
	if second.status != 200 || !strings.HasPrefix(second.body, path+" x") {
		t.Fatalf("%+v", second)
	}
	return second.body == first.body && strings.HasPrefix(second.header.Get("Cache-Status"), "longpole; hit")
}

func TestTwoGatewaysShareARedisThatMayDieAndComeBack(t *testing.T) {
	address := systemtest.FreeAddress(t)
	kill := redisServer(t, address)
	p := newPair(t, address)
	until(t, "sharing", func() bool { return p.shares(t) })

	// Each variant is itself.
	if got := p.get(t, "two", fmt.Sprint("/key", p.keys), "Foo", "y"); !strings.HasPrefix(got.body, fmt.Sprintf("/key%d y", p.keys)) {
		t.Errorf("%+v", got)
	}
	// Many at both: one fetch each at most.
	before := p.calls.Load()
	var run sync.WaitGroup
	for i := range 200 {
		run.Go(func() {
			if got := p.get(t, []string{"one", "two"}[i%2], "/slow"); got.status != 200 {
				t.Errorf("%+v", got)
			}
		})
	}
	run.Wait()
	if n := p.calls.Load() - before; n > 2 {
		t.Errorf("%d fetches of one key by two gateways", n)
	}
	kill()
	for i := range 50 {
		for _, at := range []string{"one", "two"} {
			if got := p.get(t, at, fmt.Sprint("/dead", i)); got.status != 200 {
				t.Fatalf("without Redis: %+v", got)
			}
			if got := p.get(t, at, fmt.Sprint("/dead", i)); !strings.HasPrefix(got.header.Get("Cache-Status"), "longpole; hit") {
				t.Errorf("without Redis the memory is of no use: %+v", got)
			}
		}
	}
	redisServer(t, address)
	until(t, "sharing again", func() bool { return p.shares(t) })
}

// A write at one gateway takes the answer out of Redis too.
func TestAWriteIsToldToRedis(t *testing.T) {
	address := systemtest.FreeAddress(t)
	redisServer(t, address)
	p := newPair(t, address)
	until(t, "storing", func() bool {
		p.keys++
		p.get(t, "one", fmt.Sprint("/w", p.keys), "Foo", "x")
		<-time.After(20 * time.Millisecond)
		return redisKeys(t, address) >= 2
	})
	path := fmt.Sprint("/w", p.keys)
	first := p.get(t, "one", path, "Foo", "x")
	write := request(t, "POST", "http://one:80"+path, strings.NewReader("x"))
	write.Host = "site"
	if got := do(p.c, write); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	for _, at := range []string{"one", "two"} {
		if got := p.get(t, at, path, "Foo", "x"); got.body == first.body || got.status != 200 {
			t.Errorf("%s: %q, from before the write", at, got.body)
		}
	}
}

func TestRedisCanBeAddedAndTakenAway(t *testing.T) {
	address := systemtest.FreeAddress(t)
	redisServer(t, address)
	n := newNetwork()
	n.serve(t, "a:1", ok("x"))
	file := "listen: gw:80\n%supstreams: {up: {endpoints: [\"http://a:1\"]}}\nroutes:\n- {name: all, upstream: up, policy: {cache: {ttl: 1h, shared: true}}}\n"
	g := n.start(t, fmt.Sprintf(file, ""), nil)
	c := n.client(t)
	get(t, c, "http://gw:80/before")
	if err := g.Reload(load(t, fmt.Sprintf(file, fmt.Sprintf("redis: {addresses: %q, timeout: 2s}\n", address)))); err != nil {
		t.Fatal(err)
	}
	i := 0
	until(t, "storing", func() bool {
		i++
		get(t, c, fmt.Sprint("http://gw:80/with", i))
		return redisKeys(t, address) > 0
	})
	if err := g.Reload(load(t, fmt.Sprintf(file, ""))); err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, "http://gw:80/after"); got.status != 200 || g.second.tier.Load() != nil {
		t.Errorf("%+v", got)
	}
	if _, err := Load("test", []byte("redis: {timeout: 1us}\n"+fmt.Sprintf(file, ""))); err == nil {
		t.Error("a faulty setting was taken")
	}
}
