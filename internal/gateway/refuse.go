package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

// statusClientGone is what nginx records for a client that did not wait. It is never sent.
const statusClientGone = 499

// refusal is an answer that the gateway makes itself.
type refusal struct {
	status     int
	reason     string
	message    string
	retryAfter time.Duration // 0 = not said
}

// unacceptable finds what no route may see.
func unacceptable(r *http.Request) (refusal, bool) {
	bad := func(message string) (refusal, bool) {
		return refusal{http.StatusBadRequest, "bad_request", message, 0}, true
	}
	switch r.Method {
	case http.MethodConnect:
		return refusal{http.StatusNotImplemented, "not_supported", "CONNECT is not supported", 0}, true
	case http.MethodTrace:
		return refusal{http.StatusMethodNotAllowed, "not_supported", "TRACE is not allowed", 0}, true
	}
	if fault := malformed(r); fault != "" {
		return refusal{http.StatusBadRequest, reasonMalformed, fault, 0}, true
	}
	switch {
	case upgrades(r) && smuggles(r):
		return bad("want no body with a request for another protocol")
	case r.URL.Path == "" || r.URL.Path[0] != '/':
		return bad("want a path that starts with /")
	case climbs(r.URL.Path):
		return bad("want a path without dot segments")
	case looping(r):
		return refusal{http.StatusLoopDetected, "loop", "the call has passed here too often", 0}, true
	}
	return refusal{}, false
}

func bodyRefusal(err error) refusal {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refusal{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("want a body of at most %d bytes", tooLarge.Limit), 0}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal{http.StatusRequestTimeout, "body_timeout", "the body stalled", 0}
	}
	return refusal{http.StatusBadRequest, "bad_request", "the body ended early", 0}
}

// refuse answers a call that ended in err; fault is what the client's body did wrong, if anything.
func (v *visit) refuse(err, fault error) {
	// To net/http a client that stalls and one that leaves are the same: both end the context.
	if gone := v.r.Context().Err() != nil; gone && !errors.Is(fault, os.ErrDeadlineExceeded) {
		v.rec.Class = call.Canceled
		v.status = statusClientGone
		return
	}
	if v.faulted(err) {
		return
	}
	if fault != nil {
		v.rec.Class = call.Client
		if v.r.ProtoMajor == 1 {
			v.w.Header()["Connection"] = []string{"close"}
		}
		v.send(bodyRefusal(fault))
		return
	}
	if _, reset := resetCode(err); reset && v.x.mode == framed {
		code, _ := brokenGRPC(err, longpole.Class(err))
		v.w.Header()[grpcStatusField] = []string{strconv.Itoa(code)} // says more than the refusal could
	}
	v.send(v.refusal(err))
}

func (v *visit) refusal(err error) refusal {
	unavailable, h := http.StatusServiceUnavailable, v.health()
	switch class := longpole.Class(err); {
	case errors.Is(err, breaker.ErrOpen):
		return refusal{unavailable, "breaker_open", "every fit endpoint has failed too often", max(v.arm.reopen, time.Second)}
	case errors.Is(err, balance.ErrNoEndpoint):
		return refusal{unavailable, "no_endpoint", "no endpoint is fit", max(h.Interval*time.Duration(h.Healthy), time.Second)}
	case errors.Is(err, limit.ErrRate):
		return refusal{http.StatusTooManyRequests, "rate", "too many calls per second", max(longpole.Pushback(err), time.Second)}
	case errors.Is(err, longpole.ErrNotKept):
		return refusal{http.StatusGatewayTimeout, "not_cached", "the cache has no answer, and the call wants no other", 0}
	case errors.Is(err, limit.ErrDoomed):
		return refusal{http.StatusGatewayTimeout, "doomed", "too little time is left for an answer", 0}
	case class == call.Shed:
		return refusal{unavailable, "shed", "a policy refused the call", time.Second}
	case class == call.Timeout, class == call.Refused && timedOut(err):
		return refusal{http.StatusGatewayTimeout, "timeout", "the upstream did not answer in time", 0}
	case class == call.Refused:
		return refusal{http.StatusBadGateway, "refused", "no endpoint could be connected to", 0}
	}
	return refusal{http.StatusBadGateway, "upstream_error", "the upstream broke off", 0}
}

// timedOut reports a connection attempt that got no answer at all.
func timedOut(err error) bool {
	var wait net.Error
	return errors.As(err, &wait) && wait.Timeout()
}

func (v *visit) send(f refusal) {
	v.status = f.status
	v.parting()
	v.deadline()
	v.cacheLine(v.w.Header(), nil)
	v.passed(v.w.Header())
	refuseAs(v.x.mode, v.w, v.route.cfg.Name, f)
	v.rec.Total = max(v.rec.Latency, time.Since(v.start))
}

// reasonMalformed is given for what should not have come from a sane client at all.
const reasonMalformed = "malformed"

// refuseAs writes f so that a client of that mode understands it.
func refuseAs(m mode, w http.ResponseWriter, route string, f refusal) {
	if m == framed {
		refuseGRPC(w, f)
		return
	}
	refuse(w, route, f)
}

// refuse writes f. After a malformed request the connection is not trusted with another one; over HTTP/2 the calls that
// run on it may end.
func refuse(w http.ResponseWriter, route string, f refusal) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Longpole-Error", f.reason)
	if f.reason == reasonMalformed {
		h.Set("Connection", "close")
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	var body struct {
		Error struct {
			Route   string `json:"route,omitempty"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"error"`
	}
	body.Error.Route, body.Error.Reason, body.Error.Message = route, f.reason, f.message
	text, _ := json.Marshal(body) // three texts cannot fail
	text = append(text, '\n')
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(f.status)
	_, _ = w.Write(text)
}
