package httppolicy

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/retry"
)

// A loser is cancelled as a stream. Its connection, and the calls of others on it, go on.
func TestALoserDoesNotPoisonItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var slow atomic.Bool
		var cut atomic.Int64
		h2 := new(http.Protocols)
		h2.SetUnencryptedHTTP2(true)
		for _, name := range []string{"a:80", "b:80"} {
			n.serveWith(t, name, h2, func(w http.ResponseWriter, r *http.Request) {
				if name == "a:80" && slow.Load() {
					select {
					case <-r.Context().Done():
						cut.Add(1)
						return
					case <-time.After(time.Hour):
					}
				}
				time.Sleep(10 * ms)
				fmt.Fprint(w, name)
			})
		}
		rc := atOnce()
		rc.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		p, err := longpole.New(longpole.Config{Retry: rc, Balance: inTurn}, balance.NewSet("a:80", "b:80"))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		base := &http.Transport{DialContext: n.dial, Protocols: h2}
		defer base.CloseIdleConnections()
		tr := NewTransport(p, base, Options{})
		ask := func(want string) {
			t.Helper()
			res, err := tr.RoundTrip(request(t, "GET", "http://orders/", nil))
			if got := text(t, res, err); got != want || res.ProtoMajor != 2 {
				t.Error(got, err)
			}
			synctest.Wait()
		}
		ask("a:80")
		ask("b:80")
		slow.Store(true)
		ask("b:80") // the hedge
		slow.Store(false)
		for i := range 10 {
			ask([]string{"a:80", "b:80"}[i%2])
		}
		if n.dials.Load() != 2 || cut.Load() != 1 {
			t.Errorf("%d connections to two servers, %d losers cut off", n.dials.Load(), cut.Load())
		}
	})
}
