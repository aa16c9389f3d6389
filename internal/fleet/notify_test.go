package fleet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/longpole/longpole/setting"
)

// receiver is a webhook over a connection in memory: a real client and a real server in virtual time.
type receiver struct {
	transport *http.Transport
	start     time.Time
	mu        sync.Mutex      // between requests; who looks waits for them with synctest.Wait
	at        []time.Duration // when requests came
	bodies    []string
	headers   []http.Header
}

// newReceiver answers the requests with these codes in turn, the last one for ever; 0 = never.
func newReceiver(t *testing.T, header http.Header, codes ...int) *receiver {
	t.Helper()
	r := &receiver{start: time.Now()}
	pipe := bufconn.Listen(1 << 16)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.at, r.bodies, r.headers = append(r.at, time.Since(r.start)), append(r.bodies, string(body)), append(r.headers, req.Header)
		code := codes[min(len(r.at), len(codes))-1]
		r.mu.Unlock()
		if code == 0 {
			<-req.Context().Done()
			return
		}
		maps.Copy(w.Header(), header)
		w.WriteHeader(code)
	})}
	go func() { _ = server.Serve(pipe) }()
	r.transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }}
	t.Cleanup(func() {
		r.transport.CloseIdleConnections()
		_ = server.Close()
	})
	return r
}

// send runs a Notifier until all alerts are done, or until it is told to stop.
func send(t *testing.T, r *receiver, c WebhookConfig, alerts int, stopAfter time.Duration) *Notifier {
	t.Helper()
	c.URL = "http://hook.test/secret-path"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	n := NewNotifier(c, r.transport, slog.New(slog.DiscardHandler))
	for i := range alerts {
		if err := n.Notify(map[string]int{"n": i}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), stopAfter)
	defer cancel()
	n.Run(ctx)
	synctest.Wait()
	return n
}

func TestAlertsAreSentInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 204)
		n := send(t, r, WebhookConfig{Headers: map[string]string{"Authorization": "Bearer x"}}, 3, time.Hour)
		if want := []string{`{"n":0}`, `{"n":1}`, `{"n":2}`}; !slices.Equal(r.bodies, want) || n.Counts() != (NotifierCounts{Sent: 3}) {
			t.Errorf("%v %+v", r.bodies, n.Counts())
		}
		if h := r.headers[0]; h.Get("Authorization") != "Bearer x" || h.Get("Content-Type") != "application/json" {
			t.Errorf("%v", h)
		}
	})
}

func TestFailedAlertsAreSentAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 500, 503, 429, 408, 200)
		n := send(t, r, WebhookConfig{}, 1, time.Hour)
		if n.Counts() != (NotifierCounts{Sent: 1}) || len(r.at) != 5 {
			t.Fatalf("%+v after %v", n.Counts(), r.at)
		}
		for i := 1; i < len(r.at); i++ {
			pause, whole := r.at[i]-r.at[i-1], time.Second<<(i-1)
			if pause > whole || pause < whole*3/4 {
				t.Errorf("pause %d is %v, want %v or up to a quarter less", i, pause, whole)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, http.Header{"Retry-After": {"40"}}, 503, 200)
		send(t, r, WebhookConfig{}, 1, time.Hour)
		if len(r.at) != 2 || r.at[1] != 40*time.Second {
			t.Error(r.at)
		}
	})
}

func TestWhatIsRefusedIsNotSentAgain(t *testing.T) {
	for _, code := range []int{400, 401, 404, 302} {
		synctest.Test(t, func(t *testing.T) {
			r := newReceiver(t, http.Header{"Location": {"http://elsewhere.test/"}}, code)
			if n := send(t, r, WebhookConfig{}, 1, time.Hour); n.Counts() != (NotifierCounts{Failed: 1}) || len(r.at) != 1 {
				t.Errorf("%d: %+v after %v", code, n.Counts(), r.at)
			}
		})
	}
}

func TestAWebhookThatNeverAnswersIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 0)
		n := send(t, r, WebhookConfig{Timeout: time.Second, Attempts: 3}, 2, time.Minute)
		if n.Counts() != (NotifierCounts{Failed: 2}) || len(r.at) != 6 {
			t.Errorf("%+v after %v", n.Counts(), r.at)
		}
	})
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 200)
		if n := send(t, r, WebhookConfig{Queue: 2}, 5, time.Hour); n.Counts() != (NotifierCounts{Sent: 2, Dropped: 3}) {
			t.Errorf("%+v", n.Counts())
		}
	})
}

func TestAtTheEndEachAlertGetsALastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 500, 200)
		if n := send(t, r, WebhookConfig{}, 3, 10*time.Millisecond); n.Counts() != (NotifierCounts{Sent: 3}) {
			t.Errorf("%+v after %v", n.Counts(), r.at)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil, 0)
		n := send(t, r, WebhookConfig{}, 3, 10*time.Millisecond)
		if took := time.Since(r.start); n.Counts() != (NotifierCounts{Failed: 3}) || took > 10*time.Millisecond+farewell {
			t.Errorf("%+v, ended after %v", n.Counts(), took)
		}
	})
}

func TestWebhookFaultsAreNamedWithoutTheAddress(t *testing.T) {
	err := WebhookConfig{URL: "ftp://token@hook.test", Timeout: 1, Attempts: 99, Queue: -1}.Validate()
	var got []string
	for _, e := range setting.List(err) {
		if fault, ok := errors.AsType[*setting.Error](e); ok {
			got = append(got, fault.Path)
		}
	}
	if strings.Join(got, " ") != "url timeout attempts queue" || strings.Contains(err.Error(), "token") {
		t.Error(err)
	}
}
