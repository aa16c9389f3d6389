package gateway

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/longpole/longpole/call"
)

// serveLocal answers a call that needs no upstream: a redirect or a static answer.
func (v *visit) serveLocal() {
	a, h := v.route.actions, v.w.Header()
	body := ""
	if d := a.redirect; d != nil {
		location, ok := d.Location(v.values())
		if !ok {
			v.rec.Class = call.Client
			v.send(refusal{http.StatusBadRequest, "bad_request", "the call names no place to redirect to", 0})
			return
		}
		h["Location"] = []string{location}
		v.status = d.Status
	} else {
		maps.Copy(h, a.static.Fields())
		v.status, body = a.static.Status, a.static.Body
	}
	v.editAnswer(h)
	if v.status != http.StatusNoContent && v.status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	v.deadline()
	v.w.WriteHeader(v.status)
	if v.r.Method != http.MethodHead {
		n, err := io.WriteString(v.w, body)
		v.rec.ResponseBytes = int64(n)
		if err != nil {
			v.rec.Class = call.Canceled
		}
	}
	v.rec.Latency = time.Since(v.start)
}
