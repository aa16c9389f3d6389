package gateway

import (
	"net/http"
	"strings"

	"github.com/longpole/longpole/internal/routing"
)

// Match is what a route takes.
type Match = routing.Match

// table is the routes in force. It is immutable.
type table struct {
	cfg    Config
	routes []*route
	byName map[string]*route
	index  *routing.Table // nil = there are no routes yet

	trusted   trusted              // peers whose word about their callers is taken
	upstreams map[string]*upstream // for the fallbacks
}

// route is one line of the table.
type route struct {
	side    side // what it has beside its policy
	cfg     Route
	live    *live
	traces  int // a second, at most
	actions *actions
	index   int      // in the table
	names   []string // of the pattern's captures
	ways    ways     // to answer other than to forward
}

// find returns the route of a call, nil when none takes it, and what its pattern captured.
func (t *table) find(r *http.Request) (found *route, captures []string) {
	if t.index == nil {
		return nil, nil
	}
	q := routing.Request{
		Method: r.Method, Scheme: schemeOf(r), Host: routing.HostOf(r.Host), Path: canonicalPath(r), Query: r.URL.RawQuery, Header: r.Header,
	}
	i, ok := t.index.Find(&q)
	if !ok {
		return nil, nil
	}
	return t.routes[i], t.index.Captures(i, q.Path)
}

// canonicalPath is the path of r as routes see it. What net/url has decoded without a doubt need not be encoded again.
func canonicalPath(r *http.Request) string {
	if r.URL.RawPath == "" && strings.IndexByte(r.URL.Path, '%') < 0 {
		return r.URL.Path
	}
	return routing.Canonical(r.URL.EscapedPath())
}
