package gateway

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
)

var _ longpole.Spare[*http.Response] = (*exchange)(nil)

// Fallback asks the other upstream once, then gives the static answer.
func (x *exchange) Fallback(ctx context.Context, f longpole.Fallback, _ call.Class, _ error) (*http.Response, error) {
	why := longpole.ErrNoFallback
	// A call that is not idempotent may have been done already, and must not be done again elsewhere.
	if f.Upstream != "" && httppolicy.Idempotent(x.in) && x.body.replayable() {
		res, err := x.other(ctx, x.g.table.Load().upstreams[f.Upstream])
		if err == nil {
			return res, nil
		}
		why = err
	}
	if f.Static == nil {
		return nil, why
	}
	return static(x.in, f.Static), nil
}

// other makes one attempt at an endpoint of u; a failed answer is an error.
func (x *exchange) other(ctx context.Context, u *upstream) (*http.Response, error) {
	if u == nil {
		return nil, errGone
	}
	b := balance.New(balance.Config{}, u.set)
	e, err := b.Pick(time.Now(), nil)
	if err != nil {
		return nil, err
	}
	to := u.cfg.Load().places[e.Name()]
	out := call.Outcome{Class: call.Shed}
	defer func() { b.Done(e, time.Now(), out) }()
	if to == nil {
		return nil, errGone
	}
	deadline, _ := ctx.Deadline()
	res, err := x.attempt(ctx, longpole.Attempt{Number: call.MaxAttempts + 1, Endpoint: e.Name(), Deadline: deadline, HeadBy: deadline}, u, to, nil)
	if out = x.Judge(res, err); err == nil && out.Class.Failed() {
		x.Discard(res)
		return nil, longpole.ErrNoFallback
	}
	return res, err
}

// static makes the answer that needs nobody.
func static(r *http.Request, s *longpole.Static) *http.Response {
	res := &http.Response{
		StatusCode: s.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {s.Type}, "Content-Length": {strconv.Itoa(len(s.Body))}, "Cache-Control": {"no-store"}},
		Body:          io.NopCloser(strings.NewReader(s.Body)),
		ContentLength: int64(len(s.Body)),
	}
	if r.Method == http.MethodHead {
		res.Body = http.NoBody
	}
	return res
}
