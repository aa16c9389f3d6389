package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/fault"
)

// errReset is a connection that was reset on purpose.
var errReset = errors.New("gateway: connection reset by an injected fault")

// faults are those of a route, and what of them stands in its file, so that a reload starts only what is new there. They
// outlive reloads for as long as the route's name stays.
type faults struct {
	fault.Set
	filed []fault.Config // guarded by Gateway.reload
}

// refile takes in what the file says: faults that are new, or changed, begin; those that are gone end; the others go on,
// or have ended and stay so.
func (fs *faults) refile(now time.Time, list []fault.Config) error {
	if len(list) == 0 && len(fs.filed) == 0 {
		return nil
	}
	old := make(map[string]fault.Config, len(fs.filed))
	for _, c := range fs.filed {
		old[c.Name] = c
	}
	var fresh []fault.Config
	for _, c := range list {
		was, known := old[c.Name]
		delete(old, c.Name)
		switch {
		case known && reflect.DeepEqual(was, c):
			continue
		case known:
			_ = fs.Stop(now, c.Name, "changed in the file") // it may have ended
		}
		fresh = append(fresh, c)
	}
	for name := range old {
		_ = fs.Stop(now, name, "gone from the file")
	}
	var all error
	for _, c := range fresh {
		all = errors.Join(all, fs.Start(now, c))
	}
	fs.filed = list
	return all
}

// ErrNotForwarded says that a route has no calls that a fault could hit: it answers by itself, or makes others of them.
var ErrNotForwarded = errors.New("gateway: faults hit calls that are forwarded one by one, and this route has none")

// StartFault makes c run on the calls of a route, until its TTL ends at the latest. It returns ErrNoRoute, ErrNotForwarded,
// the faults of c, fault.ErrRunning for a name that runs on any route, and fault.ErrTooMany.
func (g *Gateway) StartFault(route string, c fault.Config) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	now, t := time.Now(), g.table.Load()
	r := t.byName[route]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrNoRoute, route)
	}
	if !r.cfg.forwards() {
		return fmt.Errorf("%w: %q", ErrNotForwarded, route)
	}
	for _, other := range t.routes {
		for _, s := range other.side.faults.List(now) {
			if s.Running() && s.Name == c.Name {
				return fmt.Errorf("%w: %q on route %q", fault.ErrRunning, c.Name, other.cfg.Name)
			}
		}
	}
	if err := r.side.faults.Start(now, c); err != nil {
		return err
	}
	g.options.Log.Warn("a fault is injected", "fault", c.Name, "route", route, "share", c.Share, "ttl", c.TTL, "hypothesis", c.Hypothesis)
	return nil
}

// StopFault ends a fault, whichever route it runs on; reason is kept. It returns fault.ErrUnknown.
func (g *Gateway) StopFault(name, reason string) error {
	for _, r := range g.table.Load().routes {
		if err := r.side.faults.Stop(time.Now(), name, reason); !errors.Is(err, fault.ErrUnknown) {
			g.options.Log.Warn("a fault was stopped", "fault", name, "route", r.cfg.Name, "reason", reason)
			return err
		}
	}
	return fmt.Errorf("%w: %q", fault.ErrUnknown, name)
}

// Faults are those that run and the last that have ended, route by route in the order of the file.
func (g *Gateway) Faults() []fault.Status {
	var all []fault.Status
	now := time.Now()
	for _, r := range g.table.Load().routes {
		for _, s := range r.side.faults.List(now) {
			s.Route = r.cfg.Name
			all = append(all, s)
		}
	}
	return all
}

type strikeKey struct{}

// strike decides what the call suffers before its policy, and hands it to the policy with the context.
func (v *visit) strike(ctx context.Context) context.Context {
	if v.route.side.calm() {
		return ctx
	}
	set := v.route.side.faults
	e, hit := set.Decide(time.Now(), fault.AtCall, "", fault.Call{Method: v.r.Method, Header: v.r.Header, Trace: v.x.spans.origin.trace})
	if !hit {
		return ctx
	}
	v.struck, v.rec.Fault = &e, e.Fault
	v.arm.policy.Inject(suffer) // stays; without a strike in the context it does nothing
	return context.WithValue(ctx, strikeKey{}, &e)
}

// suffer is the longpole.Fault that does what strike decided.
func suffer(ctx context.Context, now time.Time, _ call.Info) (time.Duration, error) {
	e, _ := ctx.Value(strikeKey{}).(*fault.Effect)
	if e == nil {
		return 0, nil
	}
	switch {
	case e.Blackhole:
		return max(0, e.Until.Sub(now)), &longpole.Error{Class: call.Timeout, Err: &injected{effect: e}}
	case e.Reset == fault.BeforeHead:
		return e.Delay, &longpole.Error{Class: call.Server, Err: &injected{effect: e}}
	case e.Status != 0:
		return e.Delay, &longpole.Error{Class: classOf(e.Status), Err: &injected{effect: e}}
	}
	return e.Delay, nil
}

func classOf(status int) call.Class {
	if status >= 500 {
		return call.Server
	}
	return call.Client
}

// injected is the error of a call that a fault ended.
type injected struct{ effect *fault.Effect }

// Error names the fault.
func (e *injected) Error() string { return "gateway: injected fault " + e.effect.Fault }

// faulted answers a call that a fault ended; false = it was ended by something else.
func (v *visit) faulted(err error) bool {
	var why *injected
	if v.struck == nil || !errors.As(err, &why) {
		return false
	}
	switch e := why.effect; {
	case e.Reset == fault.BeforeHead:
		v.status = statusClientGone
		v.reset()
	case e.Status != 0:
		v.send(refusal{e.Status, "fault", "fault " + strconv.Quote(e.Fault) + " was injected", 0})
	default:
		v.send(refusal{http.StatusGatewayTimeout, "fault", "fault " + strconv.Quote(e.Fault) + " was injected", 0})
	}
	return true
}

// reset ends the client's connection with RST, or its stream, where the connection is shared. It does not return.
func (v *visit) reset() {
	breakOff(v.w)
	panic(http.ErrAbortHandler)
}

// breakOff sends what was written, then RST. Over HTTP/2 it does nothing: the handler's panic resets the stream.
func breakOff(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.Flush()
	conn, _, err := control.Hijack()
	if err != nil {
		return
	}
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetLinger(0) // nothing is said goodbye to
		_ = tcp.Close()
	}
	_ = conn.Close()
}

// tcpOf finds the connection under those that wrap it.
func tcpOf(c net.Conn) *net.TCPConn {
	for range 8 {
		switch t := c.(type) {
		case *net.TCPConn:
			return t
		case *tls.Conn:
			c = t.NetConn()
		case *boundedConn:
			c = t.Conn
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// afflict puts on the body of an answer what a fault does to it on the client's side.
func (v *visit) afflict(res *http.Response) {
	e := v.struck
	if e == nil || res.Body == http.NoBody {
		return
	}
	ctx := v.r.Context()
	if e.BytesPerSecond > 0 {
		res.Body = &slowBody{ReadCloser: res.Body, ctx: ctx, rate: e.BytesPerSecond}
	}
	if e.Reset == fault.MidBody {
		res.Body = &cutBody{ReadCloser: res.Body, left: e.ResetAfter, cut: func() { breakOff(v.w) }}
	}
}

// send makes the request of one attempt, unless a fault stands in for the endpoint.
func (x *exchange) send(pool http.RoundTripper, endpoint string, out *http.Request) (*http.Response, error) {
	if x.route.side.calm() {
		return pool.RoundTrip(out)
	}
	set := x.route.side.faults
	e, hit := set.Decide(time.Now(), fault.AtAttempt, endpoint, fault.Call{Method: out.Method, Header: x.in.Header, Trace: x.spans.origin.trace})
	if !hit {
		return pool.RoundTrip(out)
	}
	x.fault.Store(&e.Fault)
	res, err := x.stricken(pool, &e, out)
	if err != nil || res.Body == http.NoBody {
		e.Release()
		return res, err
	}
	res.Body = &releasedBody{ReadCloser: res.Body, release: sync.OnceFunc(e.Release)}
	return res, nil
}

// stricken is what comes of an attempt that e hits.
func (x *exchange) stricken(pool http.RoundTripper, e *fault.Effect, out *http.Request) (*http.Response, error) {
	ctx := out.Context()
	delay := e.Delay
	if e.Blackhole {
		delay = time.Until(e.Until)
	}
	if err := pause(ctx, delay); err != nil {
		closeBody(out)
		return nil, err
	}
	switch {
	case e.Blackhole:
		closeBody(out)
		return nil, fmt.Errorf("%w: no answer", context.DeadlineExceeded)
	case e.Reset == fault.BeforeHead:
		closeBody(out)
		return nil, errReset
	case e.Status != 0:
		closeBody(out)
		return &http.Response{
			StatusCode: e.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: out,
			// A cache must not make it outlive the fault.
			Header: http.Header{"Content-Length": {"0"}, "Cache-Control": {"no-store"}, "X-Longpole-Fault": {e.Fault}},
		}, nil
	}
	res, err := pool.RoundTrip(out)
	if err != nil || res.Body == nil || res.Body == http.NoBody {
		return res, err
	}
	if e.BytesPerSecond > 0 {
		res.Body = &slowBody{ReadCloser: res.Body, ctx: ctx, rate: e.BytesPerSecond}
	}
	if e.Reset == fault.MidBody {
		res.Body = &cutBody{ReadCloser: res.Body, left: e.ResetAfter}
	}
	return res, nil
}

// closeBody does for a request that is not sent what a transport would have done.
func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// pause waits for d, or until ctx ends, and says which.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// slowBody lets so many bytes a second pass, in steps of a twentieth of a second.
type slowBody struct {
	io.ReadCloser
	ctx  context.Context // of the call or attempt; ends the wait
	rate int64
	owed time.Duration // for what was read last
}

// Read waits for what was read before, then reads a little.
func (b *slowBody) Read(p []byte) (int, error) {
	if b.owed > 0 {
		if err := pause(b.ctx, b.owed); err != nil {
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), max(1, b.rate/20))])
	b.owed = time.Duration(float64(n) / float64(b.rate) * float64(time.Second))
	return n, err
}

// cutBody ends in errReset after so many bytes, or where it ends.
type cutBody struct {
	io.ReadCloser
	left int64
	cut  func() // nil = nothing more is to be done
}

// Read reads up to the cut.
func (b *cutBody) Read(p []byte) (int, error) {
	if b.left > 0 {
		n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		if err != io.EOF {
			return n, err
		}
		if b.left = 0; n > 0 {
			return n, nil
		}
	}
	if b.cut != nil {
		b.cut()
		b.cut = nil
	}
	return 0, errReset
}

// releasedBody tells when the body of an answer was closed. Who discards an answer may close it from two sides.
type releasedBody struct {
	io.ReadCloser
	release func() // does so once
}

// Close closes the body.
func (b *releasedBody) Close() error {
	b.release()
	return b.ReadCloser.Close()
}

// unstruck ends what the call suffered, and tells the faults of the route how it went.
func (v *visit) unstruck(now time.Time) {
	if v.struck != nil {
		v.struck.Release()
	}
	if name := v.x.fault.Load(); name != nil && v.rec.Fault == "" {
		v.rec.Fault = *name
	}
	if v.route.side.calm() {
		return
	}
	for _, name := range v.route.side.faults.Observe(now, bad(v.rec.Class) || v.status >= http.StatusInternalServerError) {
		v.g.options.Log.Warn("a fault has ended by its stop condition", "fault", name, "route", v.route.cfg.Name)
	}
}
