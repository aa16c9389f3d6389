package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rude answers a call in one of the ways in which servers go wrong. Whatever it says names the call, so that an answer that
// reaches another one is known.
func rude(w http.ResponseWriter, r *http.Request, kind int) {
	id := r.URL.Path
	body := id + strings.Repeat("x", 40)
	head := "HTTP/1.1 200 OK\r\nX-Id: " + id + "\r\n"
	sized := fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head, len(body))
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
	text := ""
	if r.ContentLength != 0 && kind >= 7 && kind <= 9 {
		kind = 6 // what comes after an answer is found on a lane, and not for certain by net/http, whose a streamed body is
	}
	switch kind {
	case 0, 1, 2, 3:
		w.Header().Set("X-Id", id)
		_, _ = io.WriteString(w, body)
		return
	case 4:
		time.Sleep(time.Duration(len(id)) * 3 * time.Millisecond)
		w.Header().Set("X-Id", id)
		_, _ = io.WriteString(w, body)
		return
	case 5:
		panic(http.ErrAbortHandler)
	case 6: // cut off
		text = sized + body[:len(body)/2]
	case 7: // more than it said
		text = sized + body + sized + body
	case 8: // more than it said, to a HEAD too
		text = sized + body + body
	case 9: // no body where there is one
		text = strings.Replace(sized, "200 OK", "204 No Content", 1) + body
	case 10:
		text = "HTTP/1.1 103 Early Hints\r\nX-Id: " + id + "\r\n\r\n" + sized + body
	case 11:
		text = chunked + chunk + "0\r\nX-End: " + id + "\r\n\r\n"
	case 12: // chunks without an end
		text = chunked + chunk
	case 13:
		text = chunked + "zz\r\n" + body
	case 14: // until the connection ends
		text = "HTTP/1.0 200 OK\r\nX-Id: " + id + "\r\n\r\n" + body
	case 15:
		w.Header().Set("X-Id", id)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(503)
		_, _ = io.WriteString(w, body)
		return
	case 16:
		text = strings.Replace(sized, "200 OK", "304 Not Modified", 1)
	case 17:
		text = "\r\n" + sized + body
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, text)
	if kind >= 7 && kind <= 9 {
		go func() { time.Sleep(10 * time.Millisecond); _ = conn.Close() }()
		_, _ = io.Copy(io.Discard, buf)
	}
	_ = conn.Close()
}

// TestNoAnswerReachesAnotherCall mixes clients that leave, bodies of all kinds, copies and retries with servers that answer
// wrongly, late, twice and in halves, on connections that are used again.
func TestNoAnswerReachesAnotherCall(t *testing.T) {
	for _, policy := range []string{
		"{timeout: 2s, retry: {budget_ratio: 100%, min_per_second: 1000, hedge: {after: 8ms, budget_ratio: 100%}}, limit: {algorithm: none}, breaker: {off: true}, balance: {algorithm: round_robin}}",
		"{timeout: 2s, retry: {budget_ratio: 100%, min_per_second: 1000}, limit: {algorithm: none}, breaker: {off: true}, cache: {ttl: 30ms, stale_if_error: 1s, stale_while_revalidate: 50ms}}",
	} {
		for seed := range uint64(4) {
			synctest.Test(t, func(t *testing.T) { soup(t, policy, seed) })
		}
	}
}

func soup(t *testing.T, policy string, seed uint64) {
	n := newNetwork()
	for _, at := range []string{"a:1", "b:1"} {
		var mu sync.Mutex
		dice := rand.New(rand.NewPCG(seed, uint64(at[0])))
		n.serve(t, at, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			kind, read := dice.IntN(18), dice.IntN(4) > 0
			mu.Unlock()
			if read {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			rude(w, r, kind)
		})
	}
	g := n.start(t, one(policy, "http://a:1", "http://b:1"), nil)
	c := n.client(t)
	var run sync.WaitGroup
	for who := range 12 {
		dice := rand.New(rand.NewPCG(seed, 1000+uint64(who)))
		run.Go(func() {
			for i := range 60 {
				id := fmt.Sprintf("/%d-%d", who%4, dice.IntN(30))
				if dice.IntN(3) == 0 {
					id = fmt.Sprintf("/own-%d-%d", who, i)
				}
				guest(t, c, dice, id)
			}
		})
	}
	run.Wait()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	if got := g.replay.used.Load(); got != 0 {
		t.Errorf("%d bytes of bodies are still kept", got)
	}
	for _, e := range g.Routes()[0].Endpoints {
		if e.InFlight != 0 {
			t.Errorf("%s: %d calls are left in flight", e.Name, e.InFlight)
		}
	}
}

// guest makes one call, and may leave in the middle of it.
func guest(t *testing.T, c *http.Client, dice *rand.Rand, id string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	method := []string{"GET", "GET", "GET", "HEAD", "PUT", "POST"}[dice.IntN(6)]
	var body io.Reader
	switch {
	case method == "GET" || method == "HEAD":
	case dice.IntN(2) == 0:
		body = strings.NewReader(strings.Repeat("b", dice.IntN(100_000)))
	default:
		body = bufio.NewReader(strings.NewReader(strings.Repeat("b", dice.IntN(100_000)))) // of unknown length
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://gw:80"+id, body)
	if err != nil {
		t.Error(err)
		return
	}
	if dice.IntN(6) == 0 {
		leaves := time.AfterFunc(time.Duration(dice.IntN(20))*time.Millisecond, cancel)
		defer leaves.Stop()
	}
	res, err := c.Do(r)
	if err != nil {
		return
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if own := res.Header.Get("X-Longpole-Error") != ""; own || err != nil && res.Header.Get("X-Id") == id {
		return
	}
	if got := res.Header.Get("X-Id"); got != id {
		t.Errorf("%s %s got the head of %q: %d %v", method, id, got, res.StatusCode, res.Header)
	}
	whole := id + strings.Repeat("x", 40)
	if bodiless := method == "HEAD" || res.StatusCode == 204 || res.StatusCode == 304; !bodiless && string(text) != whole {
		t.Errorf("%s %s got %q", method, id, text)
	}
}
