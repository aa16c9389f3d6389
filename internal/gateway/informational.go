package gateway

import (
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"sync"
	"time"
)

// The informational answers (1xx) that one attempt may send: so many reach the client, and with more than that it fails.
const (
	passedInformational = 8
	maxInformational    = 32
)

var errTooInformative = errors.New("gateway: the upstream sends one informational answer after another")

// early passes informational answers to the client until the final one begins. The transport calls from goroutines of
// its own, and so do attempts that lost: what comes too late, or while another is being written, goes nowhere.
type early struct {
	mu     sync.Mutex          // never held while anything is written
	w      http.ResponseWriter // nil = nothing passes, or no longer
	stall  time.Duration       // for which the client may take nothing; 0 = for ever
	asked  bool                // the client waits for 100
	passed int
	busy   chan struct{} // closed when the one that is being written is out; nil = none is
}

// begin lets informational answers pass to the client of r, which must know of them (RFC 9110 section 15.2).
func (e *early) begin(w http.ResponseWriter, r *http.Request, stall time.Duration) {
	if r.ProtoAtLeast(1, 1) {
		e.w, e.asked, e.stall = w, expects(r), stall
	}
}

// end is called before the handler writes.
func (e *early) end() {
	e.mu.Lock()
	busy := e.busy
	e.w = nil
	e.mu.Unlock()
	if busy != nil {
		<-busy
	}
}

// pass sends one informational answer. To a client that waits for 100 only that is sent, because net/http may be about to
// say the same by itself.
func (e *early) pass(code int, header textproto.MIMEHeader) {
	w := e.claim(code)
	if w == nil {
		return
	}
	defer e.settle()
	if e.stall > 0 { // the call cannot end while this writes
		control := http.NewResponseController(w)
		_ = control.SetWriteDeadline(time.Now().Add(e.stall))
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	}
	if code == http.StatusContinue {
		w.WriteHeader(code)
		return
	}
	hints := http.Header(header).Clone()
	stripHopByHop(hints)
	h := w.Header()
	before := maps.Clone(h)
	clear(h) // what is there is of the final one
	maps.Copy(h, hints)
	w.WriteHeader(code)
	clear(h)
	maps.Copy(h, before)
}

// claim lets one informational answer pass, which settle must follow; nil = it may not.
func (e *early) claim(code int) http.ResponseWriter {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.w == nil || e.busy != nil || e.asked != (code == http.StatusContinue) || code == http.StatusSwitchingProtocols || e.passed >= passedInformational {
		return nil
	}
	e.passed++
	e.busy = make(chan struct{})
	return e.w
}

func (e *early) settle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.busy)
	e.busy = nil
}

// expects reports whether a client sends its body only once it is told to.
func expects(r *http.Request) bool { return hasToken(r.Header["Expect"], "100-continue") }
