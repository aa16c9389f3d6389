package httppolicy

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
)

// Options of a Transport. The zero value means the defaults given at each field.
type Options struct {
	// Info says what the policy may know of a request: route, priority, tenant, cache key. nil = Info of this package.
	// A request whose body cannot be sent twice is not Idempotent to the policy, whatever Info says.
	Info func(*http.Request) call.Info
	// ReplayBytes is how much of a body of known length is kept for another attempt when the request has no GetBody;
	// default 64 KiB, negative = nothing.
	ReplayBytes int64
	// Fallback asks the other upstream for a request that failed: name is Config.Fallback.Upstream. The request has a
	// body of its own. nil = name is the base URL of the other upstream, asked through the same base RoundTripper.
	Fallback func(r *http.Request, name string) (*http.Response, error)
	// Observe is told the record of each call when the head of its answer is there. It must not keep the record.
	Observe func(*call.Record)
}

const defaultReplayBytes = 64 << 10

// Transport is an http.RoundTripper that makes each request a call under a policy. It is safe for concurrent use.
type Transport struct {
	policy *longpole.Policy
	base   http.RoundTripper
	o      Options
}

// NewTransport returns one that sends through base (nil = http.DefaultTransport). A base with limits of its own, such as
// ResponseHeaderTimeout, keeps them. p belongs to the caller, who closes it.
func NewTransport(p *longpole.Policy, base http.RoundTripper, o Options) *Transport {
	if base == nil {
		base = http.DefaultTransport
	}
	if o.Info == nil {
		o.Info = Info
	}
	o.ReplayBytes = cmp.Or(o.ReplayBytes, defaultReplayBytes)
	return &Transport{policy: p, base: base, o: o}
}

// Info is what the request itself says: the route is its host, and it is idempotent by its method or an Idempotency-Key.
// It has no cache key: whether answers may be kept is for the owner of the data to say.
func Info(r *http.Request) call.Info {
	return call.Info{Route: r.URL.Host, Idempotent: Idempotent(r)}
}

// Idempotent reports whether r may be made twice (RFC 9110 section 9.2.2), or says so by an Idempotency-Key.
func Idempotent(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// RoundTrip makes the call. It always closes the request's body, but may do so after it returned. An answer of the
// dependency is returned as it is, also when it is a failure; an error is a *longpole.Error.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	info := t.o.Info(r)
	x := &exchange{t: t, in: r}
	x.body.init(r, t.o.ReplayBytes)
	info.Idempotent = info.Idempotent && x.body.replayable()
	var rec *call.Record
	if t.o.Observe != nil {
		rec = new(call.Record)
	}
	res, err := longpole.Do(r.Context(), t.policy, info, rec, x)
	if rec != nil {
		t.o.Observe(rec)
	}
	if err != nil {
		x.body.close()
		return nil, err
	}
	res.Request = r
	return res, nil
}

// CloseIdleConnections closes those of base, if it can. http.Client calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// errEndpoint says that the name of an endpoint is no place to go to.
var errEndpoint = errors.New("httppolicy: want an endpoint such as host:port or http://host:port")

// locate returns where the attempt goes: the URL of the request at another endpoint. The path of an endpoint that is a
// URL is put before the request's.
func locate(u *url.URL, endpoint string) (*url.URL, error) {
	if endpoint == "" {
		return u, nil
	}
	to := *u
	if !strings.Contains(endpoint, "://") {
		to.Host = endpoint
		return &to, nil
	}
	at, err := url.Parse(endpoint)
	if err != nil || at.Host == "" {
		return nil, errEndpoint
	}
	to.Scheme, to.Host = at.Scheme, at.Host
	if escaped := strings.TrimRight(at.EscapedPath(), "/"); escaped != "" {
		prefix, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, errEndpoint
		}
		// RawPath is used where it says more than Path.
		to.Path, to.RawPath = prefix+u.Path, escaped+u.EscapedPath()
	}
	return &to, nil
}

// request is the one of an attempt at endpoint, with a body of its own.
func (x *exchange) request(ctx context.Context, endpoint string, deadline time.Time) (*http.Request, error) {
	to, err := locate(x.in.URL, endpoint)
	if err != nil {
		return nil, err
	}
	body, err := x.body.open(ctx)
	if err != nil {
		return nil, err
	}
	out := x.in.WithContext(ctx)
	out.URL, out.Body = to, body
	out.Host = cmp.Or(x.in.Host, x.in.URL.Host)
	out.GetBody = x.body.again()
	if !deadline.IsZero() {
		out.Header = make(http.Header, len(x.in.Header)+1)
		maps.Copy(out.Header, x.in.Header)
		SetRemaining(out.Header, time.Now(), deadline)
	}
	return out, nil
}
