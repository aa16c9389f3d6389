package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/systemtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a real Redis that the test owns.
type server struct {
	addr string
	cmd  *exec.Cmd
}

// start runs redis-server on a free port, or on that of addr.
func start(t *testing.T, addr string) *server {
	t.Helper()
	path := systemtest.Program(t, "redis-server")
	if addr == "" {
		addr = systemtest.FreeAddress(t)
	}
	_, port, _ := net.SplitHostPort(addr)
	s := &server{addr: addr, cmd: exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	var log strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(strings.ToLower(lines.Text()), "ready to accept connections") {
			return s
		}
		log.WriteString(lines.Text() + "\n")
	}
	t.Fatalf("redis-server did not start:\n%s", log.String())
	return nil
}

func (s *server) stop() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func tier(t *testing.T, c Config) *Tier {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Second // the machine may be busy
	}
	tr, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func stored(data string) cache.Stored {
	return cache.Stored{Data: []byte(data), Until: time.Now().Add(time.Minute), Took: 30 * time.Millisecond, Negative: true}
}

func set(t *testing.T, tr *Tier, key, data string) {
	t.Helper()
	if err := tr.Set(t.Context(), key, stored(data)); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until Redis answers with data, which must happen within 30 s.
func eventually(t *testing.T, tr *Tier, key, data string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s, err := tr.Get(ctx, key)
		if err == nil && string(s.Data) == data {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%q: %q, %v; want %q", key, s.Data, err, data)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestWhatOneProcessStoresAnotherReads(t *testing.T) {
	s := start(t, "")
	a, b := tier(t, Config{Addresses: []string{s.addr}}), tier(t, Config{Addresses: []string{s.addr}})
	if _, err := b.Get(t.Context(), "k"); !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err, "before anything was stored")
	}
	set(t, a, "k", "one")
	eventually(t, b, "k", "one") // that there was nothing was kept in the process, until Redis said otherwise
	got, err := b.Get(t.Context(), "k")
	if left := time.Until(got.Until); err != nil || got.Took != 30*time.Millisecond || !got.Negative || left > time.Minute || left < 20*time.Second {
		t.Errorf("%+v, %v: not what was stored", got, err)
	}
	set(t, a, "k", "two")
	eventually(t, b, "k", "two")
	if _, err := b.Get(t.Context(), "other"); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
}

func TestAKeyThatIsReadAgainCostsNoRoundTrip(t *testing.T) {
	s := start(t, "")
	tr := tier(t, Config{Addresses: []string{s.addr}})
	set(t, tr, "k", "v")
	eventually(t, tr, "k", "v")
	s.signal(t, syscall.SIGSTOP) // nothing is answered from now on
	defer s.signal(t, syscall.SIGCONT)
	for range 1000 {
		if got, err := tr.Get(t.Context(), "k"); err != nil || string(got.Data) != "v" {
			t.Fatalf("%q, %v", got.Data, err)
		}
	}
}

func TestAnAnswerGoesAtItsTime(t *testing.T) {
	s := start(t, "")
	tr := tier(t, Config{Addresses: []string{s.addr}})
	brief := stored("v")
	brief.Until = time.Now().Add(100 * time.Millisecond)
	if err := tr.Set(t.Context(), "k", brief); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got, err := tr.Get(ctx, "k")
		if errors.Is(err, cache.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if time.Until(got.Until) > 100*time.Millisecond {
			t.Fatal("fresh for longer than it was stored for:", time.Until(got.Until))
		}
		<-time.After(5 * time.Millisecond)
	}
	brief.Until = time.Now().Add(-time.Second)
	if err := tr.Set(t.Context(), "past", brief); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Get(t.Context(), "past"); !errors.Is(err, cache.ErrNotFound) {
		t.Error("stored what is past:", err)
	}
}

func TestWhatOthersWroteIsNotFound(t *testing.T) {
	s := start(t, "")
	tr := tier(t, Config{Addresses: []string{s.addr}})
	set(t, tr, "k", "v")
	c := *tr.client.Load()
	if err := c.Do(t.Context(), c.B().Set().Key("longpole:alien").Value("not ours").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Get(t.Context(), "alien"); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
}

// When Redis is down from the start, calls learn it at once, and soon without asking; when it comes, it is used.
func TestDownFromTheStartFailsOpenAndRecovers(t *testing.T) {
	addr := systemtest.FreeAddress(t)
	tr := tier(t, Config{Addresses: []string{addr}, Pause: 50 * time.Millisecond})
	down := 0
	for range 50 {
		_, err := tr.Get(t.Context(), "k")
		if err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Fatal("an answer from nowhere:", err)
		}
		if errors.Is(err, ErrDown) {
			down++
		}
	}
	if down < 30 {
		t.Errorf("Redis was asked %d times of 50 though it is down", 50-down)
	}
	s := start(t, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for tr.Set(ctx, "k", stored("v")) != nil {
		if ctx.Err() != nil {
			t.Fatal("does not recover at", s.addr)
		}
		<-time.After(10 * time.Millisecond)
	}
	eventually(t, tr, "k", "v")
}

func TestARestartIsSurvived(t *testing.T) {
	s := start(t, "")
	tr := tier(t, Config{Addresses: []string{s.addr}, Pause: 20 * time.Millisecond})
	set(t, tr, "k", "v")
	eventually(t, tr, "k", "v")
	s.stop()
	for i := range 50 {
		if _, err := tr.Get(t.Context(), fmt.Sprint(i)); err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Fatal("an answer from a server that is gone:", err)
		}
	}
	start(t, s.addr)
	other := tier(t, Config{Addresses: []string{s.addr}})
	set(t, other, "fresh", "w")
	eventually(t, tr, "fresh", "w")
}

// A Redis that hangs is worse than one that is gone. No call may wait longer than it is told to, connecting included,
// and many at once wait no longer than one.
func TestAHangingRedisHoldsNobodyUp(t *testing.T) {
	const timeout = 50 * time.Millisecond
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	s := start(t, "")
	connected := tier(t, Config{Addresses: []string{s.addr}, Timeout: timeout})
	for connected.Set(t.Context(), "k", stored("v")) != nil {
		<-time.After(10 * time.Millisecond)
	}
	s.signal(t, syscall.SIGSTOP)
	defer s.signal(t, syscall.SIGCONT)
	for name, tr := range map[string]*Tier{
		"never connected": tier(t, Config{Addresses: []string{hanging.Addr().String()}, Timeout: timeout}),
		"connected":       connected,
	} {
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if _, err := tr.Get(t.Context(), fmt.Sprint(i)); err == nil {
					t.Error(name, "an answer from a server that hangs")
				}
			})
		}
		wg.Wait()
		t.Logf("%s: 200 calls at once took %v", name, time.Since(began))
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s: %v, with a timeout of %v", name, d, timeout)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := tr.Get(ctx, "k2"); err == nil {
			t.Error("an answer for a call that is over")
		}
	}
}

func TestAClosedTierSaysSo(t *testing.T) {
	tr := tier(t, Config{})
	tr.Close()
	tr.Close()
	if _, err := tr.Get(t.Context(), "k"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Addresses: []string{""}, Timeout: 1, Pause: -1, LocalBytes: -1}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("%v: want 4 faults", err)
	}
	if _, err := New(Config{Pause: -1}); err == nil {
		t.Error("a faulty Config was taken")
	}
}
