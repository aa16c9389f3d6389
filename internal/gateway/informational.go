package gateway

import (
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"sync"
)

// The informational answers (1xx) that one attempt may send: so many reach the client, and with more than that it fails.
const (
	passedInformational = 8
	maxInformational    = 32
)

var errTooInformative = errors.New("gateway: the upstream sends one informational answer after another")

// early passes informational answers to the client until the final one begins. The transport calls from goroutines of
// its own, and so do attempts that lost: what comes too late goes nowhere.
type early struct {
	mu     sync.Mutex
	w      http.ResponseWriter // nil = nothing passes, or no longer
	asked  bool                // the client waits for 100
	passed int
}

// begin lets informational answers pass to the client of r, which must know of them (RFC 9110 section 15.2).
func (e *early) begin(w http.ResponseWriter, r *http.Request) {
	if r.ProtoAtLeast(1, 1) {
		e.w, e.asked = w, expects(r)
	}
}

// end is called before the handler writes.
func (e *early) end() {
	e.mu.Lock()
	e.w = nil
	e.mu.Unlock()
}

// pass sends one informational answer. To a client that waits for 100 only that is sent, because net/http may be about to
// say the same by itself.
func (e *early) pass(code int, header textproto.MIMEHeader) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.w == nil || e.asked != (code == http.StatusContinue) || code == http.StatusSwitchingProtocols || e.passed >= passedInformational {
		return
	}
	e.passed++
	if code == http.StatusContinue {
		e.w.WriteHeader(code)
		return
	}
	hints := http.Header(header).Clone()
	stripHopByHop(hints)
	h := e.w.Header()
	before := maps.Clone(h)
	maps.Copy(h, hints)
	e.w.WriteHeader(code)
	clear(h)
	maps.Copy(h, before)
}

// expects reports whether a client sends its body only once it is told to.
func expects(r *http.Request) bool { return hasToken(r.Header["Expect"], "100-continue") }
