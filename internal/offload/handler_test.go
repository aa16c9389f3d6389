package offload

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestOperatorsSeeAndMoveDeadLetters(t *testing.T) {
	s := open(t, StoreConfig{})
	q := s.Queue("shop/orders", QueueConfig{BaseDelay: time.Millisecond})
	h := Handler(func() *Store { return s })
	ask := func(method, target string, status int) string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != status {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		return w.Body.String()
	}
	work(t, q, func(context.Context, Delivery) Outcome { return Outcome{Verdict: Permanent, Status: 400, Error: "bad"} })
	one, two := job(1), job(2)
	two.Body = []byte{0xff, 0xfe}
	ids := []string{submit(t, q, one).ID, submit(t, q, two).ID}
	for _, id := range ids {
		until(t, "dead", func() bool { return state(t, s, id).State == Dead })
	}
	if got := ask("GET", "/queues", 200); !strings.Contains(got, `"queue":"shop/orders"`) || !strings.Contains(got, `"dead":2`) {
		t.Error(got)
	}
	if got := ask("GET", "/jobs/"+ids[0], 200); !strings.Contains(got, `"state":"dead"`) || !strings.Contains(got, `"last_error":"bad"`) {
		t.Error(got)
	}
	if got := ask("GET", "/dead?queue=shop%2Forders&limit=1", 200); !strings.Contains(got, `"more":true`) || strings.Count(got, `"id"`) != 1 {
		t.Error(got)
	}
	if got := ask("GET", "/dead?queue=shop%2Forders&after=100", 200); !strings.Contains(got, `"letters":[]`) {
		t.Error(got)
	}
	if got := ask("GET", "/dead/"+ids[0], 200); !strings.Contains(got, `"body":"body 1\nline"`) || !strings.Contains(got, `"X-N":["1","more"]`) {
		t.Error(got)
	}
	if got := ask("GET", "/dead/"+ids[1], 200); !strings.Contains(got, `"body_base64":"//4="`) {
		t.Error(got)
	}
	ask("DELETE", "/dead/"+ids[1], 204)
	ask("DELETE", "/dead/"+ids[1], 404)
	before := q.Status(t.Context()).Buried
	ask("POST", "/dead/"+ids[0]+"/replay", 204)
	until(t, "dead again", func() bool { st := q.Status(t.Context()); return st.Buried > before && st.Dead == 1 })
	if got := ask("POST", "/dead/replay?queue=shop%2Forders", 200); !strings.Contains(got, `"replayed":1`) {
		t.Error(got)
	}
	ask("GET", "/dead?queue=none", 404)
	ask("GET", "/dead?queue=shop%2Forders&limit=x", 400)
	ask("GET", "/jobs/none", 404)
	ask("POST", "/dead/"+newID("shop/orders")+"/replay", 404)

	h = Handler(func() *Store { return nil })
	if got := ask("GET", "/queues", 200); !strings.Contains(got, `"queues":[]`) {
		t.Error(got)
	}
	for _, target := range []string{"/jobs/x", "/dead", "/dead/x"} {
		ask(http.MethodGet, target, 404)
	}
}
