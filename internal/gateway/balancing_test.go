package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// farm is endpoints a:1, b:1, ... that count their calls. Calls to /hold are answered when release is closed; those to
// /stream have their head at once and the rest then.
type farm struct {
	calls   map[string]*atomic.Int32
	release chan struct{}
}

func newFarm(t *testing.T, n *network, names ...string) *farm {
	f := &farm{calls: make(map[string]*atomic.Int32), release: make(chan struct{})}
	for _, name := range names {
		count := new(atomic.Int32)
		f.calls[name] = count
		n.serve(t, name, func(w http.ResponseWriter, r *http.Request) {
			count.Add(1)
			switch r.URL.Path {
			case "/hold":
				<-f.release
			case "/stream":
				_ = http.NewResponseController(w).Flush()
				<-f.release
			}
		})
	}
	return f
}

// share makes calls one after the other and returns the part that came to name.
func (f *farm) share(t *testing.T, c *http.Client, name string) float64 {
	t.Helper()
	const calls = 400
	before := f.calls[name].Load()
	for range calls {
		if a := get(t, c, "http://gw:80/"); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
	return float64(f.calls[name].Load()-before) / calls
}

func TestAnEndpointThatWasDiscoveredIsNotFlooded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	list := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list("[http://a:1, http://b:1, http://c:1]")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		f := newFarm(t, n, "a:1", "b:1", "c:1", "d:1")
		n.start(t, `
listen: gw:80
upstreams: {up: {discover: {file: {path: '`+path+`'}}}}
routes: [{name: all, upstream: up, policy: {balance: {slow_start: 1m}}}]
`, nil)
		time.Sleep(2 * time.Second)
		c := n.client(t)
		f.share(t, c, "a:1")
		time.Sleep(2 * time.Minute)
		list("[http://a:1, http://b:1, http://c:1, http://d:1]")
		time.Sleep(3 * time.Second)
		if s := f.share(t, c, "d:1"); s > 0.125 {
			t.Errorf("it begins with %.0f %% of the calls", 100*s)
		}
		time.Sleep(2 * time.Minute)
		if s := f.share(t, c, "d:1"); s < 0.125 {
			t.Errorf("it ends with %.0f %% of the calls", 100*s)
		}
	})
}

func TestAConnectionThatIsNotThereYetCountsAsLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		f := newFarm(t, n, "a:1", "b:1")
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "b:1" { // packets go nowhere
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return n.dial(ctx, network, address)
		}
		g := run(t, load(t, one("{timeout: 1m, try_timeout: 30s, retry: {off: true}, breaker: {off: true}}", "http://a:1", "http://b:1")), Options{Dial: dial, Listen: n.listen})
		c := n.client(t)
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() { get(t, c, "http://gw:80/hold") })
			synctest.Wait()
		}
		for _, e := range g.Routes()[0].Endpoints {
			if e.InFlight < 9 || e.InFlight > 11 {
				t.Errorf("%s has %d of 20", e.Name, e.InFlight)
			}
		}
		close(f.release)
		calls.Wait()
	})
}

func TestAStreamIsNoLoadAfterItsHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		f := newFarm(t, n, "a:1", "b:1")
		g := n.start(t, one("{}", "http://a:1", "http://b:1"), nil)
		c := n.client(t)
		var open []io.Closer
		for range 20 {
			res, err := c.Get("http://gw:80/stream")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, res.Body)
		}
		for _, e := range g.Routes()[0].Endpoints {
			if e.InFlight != 0 {
				t.Errorf("%s has %d in flight", e.Name, e.InFlight)
			}
		}
		if s := f.share(t, c, "a:1"); s < 0.35 || s > 0.65 {
			t.Errorf("one of two gets %.0f %% of the calls", 100*s)
		}
		close(f.release)
		for _, body := range open {
			_ = body.Close()
		}
	})
}

func TestEndpointsOfTheOwnZoneArePreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		f := newFarm(t, n, "a:1", "b:1")
		file := strings.Replace(one("{balance: {zone: eu-1}}", "{url: 'http://a:1', zone: eu-1}", "{url: 'http://b:1', zone: eu-2}"), "gw:80", "gw:80\nadmin: off", 1)
		n.start(t, file, nil)
		if s := f.share(t, n.client(t), "a:1"); s != 1 {
			t.Errorf("the zone's own gets %.0f %% of the calls", 100*s)
		}
	})
}
