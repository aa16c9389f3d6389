package gateway

import (
	"net/http"
	"net/url"

	"github.com/longpole/longpole/internal/routing"
	"github.com/longpole/longpole/setting"
)

// actions are what a route does to its calls, compiled. A nil part does nothing. They are immutable.
type actions struct {
	rewrite  *routing.Rewriter
	request  *routing.HeaderEditor
	answer   *routing.HeaderEditor
	redirect *routing.Redirector
	static   *routing.Answer
}

// local reports whether the gateway answers by itself.
func (a *actions) local() bool { return a.redirect != nil || a.static != nil }

// newActions compiles them. The error joins every fault; each is a *setting.Error with its path in the route.
func newActions(r Route) (*actions, error) {
	var f setting.Faults
	var err error
	a, names := &actions{}, r.Match.Names()
	if r.Rewrite != nil {
		a.rewrite, err = r.Rewrite.Compile(names)
		f.Within("rewrite", err)
		f.Check(!r.local(), "rewrite", nil, "an upstream to ask")
	}
	if r.RequestHeader != nil {
		a.request, err = r.RequestHeader.Compile(names)
		f.Within("request_header", err)
		f.Check(!r.local(), "request_header", nil, "an upstream to ask")
	}
	if r.AnswerHeader != nil {
		a.answer, err = r.AnswerHeader.Compile(names)
		f.Within("answer_header", err)
	}
	if r.Redirect != nil {
		a.redirect, err = r.Redirect.Compile(names)
		f.Within("redirect", err)
	}
	if r.Static != nil {
		f.Within("static", r.Static.Validate())
		s := r.Static.WithDefaults()
		a.static = &s
	}
	return a, f.Err()
}

// values are what the templates of v's route may speak of.
func (v *visit) values() *routing.Values {
	return &routing.Values{
		Captures: v.captures, Method: v.r.Method, Scheme: schemeOf(v.r), Host: routing.HostOf(v.r.Host), Path: v.r.URL.EscapedPath(), Query: v.r.URL.RawQuery,
	}
}

// outgoing makes the call into what the upstream is to see. It returns false when that cannot be.
func (v *visit) outgoing() bool {
	v.tellPriority()
	if e := v.route.actions.request; e != nil {
		e.Apply(v.x.header, v.values())
	}
	return v.rewrite()
}

// rewrite gives the call the target that its route wants. It returns false when there is none.
func (v *visit) rewrite() bool {
	w := v.route.actions.rewrite
	if w == nil {
		return true
	}
	values := v.values()
	v.x.target = &routing.Target{Host: v.r.Host, Path: values.Path, Query: values.Query}
	return w.Apply(v.x.target, values)
}

// retarget is rewrite for a call that no match has brought to its route just now.
func (v *visit) retarget() bool {
	if t := v.g.table.Load(); len(v.route.names) > 0 && t.byName[v.route.cfg.Name] == v.route {
		path := canonicalPath(v.r)
		if !t.index.Takes(v.route.index, path) {
			return false // its pattern is another one by now
		}
		v.captures = t.index.Captures(v.route.index, path)
	}
	return v.rewrite()
}

// editAnswer changes the head of an answer on its way to the client.
func (v *visit) editAnswer(h http.Header) {
	if a := v.route.actions; a != nil && a.answer != nil {
		a.answer.Apply(h, v.values())
	}
}

// place puts the URL u of an attempt together from the escaped text, so that what the client wrote, or the route made of
// it, arrives as it was. It returns the Host that the endpoint is to see.
func (x *exchange) place(u, to *url.URL) (host string) {
	in := x.in.URL
	u.Scheme, u.Host, u.RawQuery, u.ForceQuery = to.Scheme, to.Host, in.RawQuery, in.ForceQuery
	if t := x.target; t != nil {
		u.RawQuery, u.ForceQuery = t.Query, in.ForceQuery && t.Query == ""
		u.RawPath = to.EscapedPath() + t.Path
		u.Path, _ = url.PathUnescape(u.RawPath) // a Rewriter gives no path that cannot be read
		return t.Host
	}
	u.Path = to.Path + in.Path
	if in.RawPath != "" || to.RawPath != "" {
		u.RawPath = to.EscapedPath() + in.EscapedPath()
	}
	return x.in.Host
}
