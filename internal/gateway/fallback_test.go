package gateway

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/httppolicy"
)

func TestAFailedCallIsAnsweredByTheFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
		broken := false
		n.serve(t, "b:80", func(w http.ResponseWriter, r *http.Request) {
			if broken {
				w.WriteHeader(500)
			}
			_, _ = w.Write([]byte("spare of " + r.URL.Path))
		})
		g := n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: [http://a:80]}, spare: {endpoints: [http://b:80]}}
routes:
- name: all
  upstream: up
  policy: {retry: {off: true}, fallback: {upstream: spare, static: {status: 203, body: sorry}}}
`, nil)
		c := n.client(t)
		if a := get(t, c, "http://gw/x"); a.status != 200 || a.body != "spare of /x" {
			t.Errorf("%+v", a)
		}
		if a := do(c, request(t, http.MethodPost, "http://gw/x", nil)); a.status != 203 || a.body != "sorry" {
			t.Errorf("what is not idempotent goes nowhere else: %+v", a)
		}
		broken = true
		if a := get(t, c, "http://gw/x"); a.status != 203 || a.body != "sorry" {
			t.Errorf("%+v", a)
		}
		_ = g
	})
}

func TestAFallbackNamesAnotherUpstream(t *testing.T) {
	for _, name := range []string{"up", "nowhere"} {
		_, err := Load("test", []byte(one("{fallback: {upstream: "+name+"}}", "http://a:80")))
		if err == nil || !strings.Contains(err.Error(), "fallback.upstream") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheCallersDeadlineHoldsAndIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		told := make(chan string, 2)
		n.serve(t, "a:80", func(w http.ResponseWriter, r *http.Request) {
			told <- r.Header.Get(httppolicy.HeaderTimeout)
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		})
		n.start(t, one("{timeout: 2s}", "http://a:80"), nil)
		c := n.client(t)
		if a := get(t, c, "http://gw/", httppolicy.HeaderTimeout, "300"); a.status != 504 || a.took != 300*time.Millisecond {
			t.Errorf("%+v", a)
		}
		if left := <-told; left != "300" {
			t.Errorf("the upstream was told %q", left)
		}
		if a := get(t, c, "http://gw/", "Grpc-Timeout", "1H"); a.status != 504 || a.took != 2*time.Second {
			t.Errorf("%+v", a)
		}
		if left := <-told; left != "2000" {
			t.Errorf("the upstream was told %q", left)
		}
	})
}
