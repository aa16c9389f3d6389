package offload

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// Handler is the API for those who operate the gateway; it shows all there is, and must not be reachable for clients.
// store is asked at each call, and may return nil while there is no store.
//
//	GET    /queues                 {"queues": [QueueStatus]}
//	GET    /jobs/{id}              Status
//	GET    /dead?queue=&after=&limit=   {"letters": [Letter], "more": bool}, oldest first; after is a Letter's place
//	POST   /dead/replay?queue=     {"replayed": n}: all that are there now
//	GET    /dead/{id}              {"letter": Letter, "request": {...}}
//	POST   /dead/{id}/replay       204
//	DELETE /dead/{id}              204
//
// An error is {"error": text} with 400, 404, 409 for a letter that cannot be read, 503 for a full queue or a store that
// does not answer.
func Handler(store func() *Store) http.Handler {
	h := handler{store}
	m := http.NewServeMux()
	m.HandleFunc("GET /queues", h.queues)
	m.HandleFunc("GET /jobs/{id}", h.job)
	m.HandleFunc("GET /dead", h.dead)
	m.HandleFunc("POST /dead/replay", h.replayAll)
	m.HandleFunc("GET /dead/{id}", h.letter)
	m.HandleFunc("POST /dead/{id}/replay", h.replay)
	m.HandleFunc("DELETE /dead/{id}", h.remove)
	return m
}

type handler struct{ store func() *Store }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrUnknown), errors.Is(err, ErrNoQueue):
		status = http.StatusNotFound
	case errors.Is(err, ErrMalformed):
		status = http.StatusConflict
	case errors.Is(err, ErrFull), errors.Is(err, ErrUnreachable):
		status = http.StatusServiceUnavailable
	}
	answer(w, status, map[string]string{"error": err.Error()})
}

// open is the store, or nil after it has answered for want of one.
func (h handler) open(w http.ResponseWriter) *Store {
	s := h.store()
	if s == nil {
		fail(w, ErrNoQueue)
	}
	return s
}

func (h handler) queues(w http.ResponseWriter, r *http.Request) {
	all := []QueueStatus{}
	if s := h.store(); s != nil {
		for _, q := range s.Queues() {
			all = append(all, q.Status(r.Context()))
		}
	}
	answer(w, http.StatusOK, map[string]any{"queues": all})
}

func (h handler) job(w http.ResponseWriter, r *http.Request) {
	s := h.open(w)
	if s == nil {
		return
	}
	status, err := s.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, status)
}

// queue is the one that a call names, or nil after it has answered that there is none.
func (h handler) queue(w http.ResponseWriter, r *http.Request) *Queue {
	s := h.open(w)
	if s == nil {
		return nil
	}
	q, err := s.Find(r.URL.Query().Get("queue"))
	if err != nil {
		fail(w, err)
	}
	return q
}

func (h handler) dead(w http.ResponseWriter, r *http.Request) {
	q := h.queue(w, r)
	if q == nil {
		return
	}
	after, limit := uint64(0), uint64(100)
	for name, into := range map[string]*uint64{"after": &after, "limit": &limit} {
		if text := r.URL.Query().Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				answer(w, http.StatusBadRequest, map[string]string{"error": "offload: " + name + " is to be a number"})
				return
			}
			*into = n
		}
	}
	letters, more, err := q.Dead(r.Context(), after, int(min(limit, MaxPage)))
	if err != nil {
		fail(w, err)
		return
	}
	if letters == nil {
		letters = []Letter{}
	}
	answer(w, http.StatusOK, map[string]any{"letters": letters, "more": more})
}

func (h handler) letter(w http.ResponseWriter, r *http.Request) {
	s := h.open(w)
	if s == nil {
		return
	}
	l, j, err := s.Letter(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	body := map[string]any{"letter": l}
	if j != nil {
		request := map[string]any{"method": j.Method, "scheme": j.Scheme, "host": j.Host, "target": j.Target, "header": j.Header}
		if utf8.Valid(j.Body) {
			request["body"] = string(j.Body)
		} else {
			request["body_base64"] = j.Body
		}
		body["request"] = request
	}
	answer(w, http.StatusOK, body)
}

func (h handler) replay(w http.ResponseWriter, r *http.Request) {
	s := h.open(w)
	if s == nil {
		return
	}
	done(w, s.Replay(r.Context(), r.PathValue("id")))
}

func (h handler) replayAll(w http.ResponseWriter, r *http.Request) {
	q := h.queue(w, r)
	if q == nil {
		return
	}
	n, err := q.ReplayAll(r.Context())
	if err != nil && n == 0 {
		fail(w, err)
		return
	}
	body := map[string]any{"replayed": n}
	if err != nil {
		body["error"] = err.Error()
	}
	answer(w, http.StatusOK, body)
}

func (h handler) remove(w http.ResponseWriter, r *http.Request) {
	s := h.open(w)
	if s == nil {
		return
	}
	done(w, s.Delete(r.Context(), r.PathValue("id")))
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
