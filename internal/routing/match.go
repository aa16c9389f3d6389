package routing

import (
	"net/textproto"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Match is what a route takes: the calls that fit all that is set. The zero value takes every call. Of Path, Exact and
// Pattern one may be set.
type Match struct {
	Host    []string    `yaml:"host" json:"host,omitempty"`       // without port; *.example.com takes every host below it; one or several; none = any
	Path    string      `yaml:"path" json:"path,omitempty"`       // prefix that ends where a segment does: /api takes /api and /api/x, not /apis; default /
	Exact   string      `yaml:"exact" json:"exact,omitempty"`     // the whole path
	Pattern string      `yaml:"pattern" json:"pattern,omitempty"` // the whole path, with captures: /users/{id}/orders/{rest...}
	Method  []string    `yaml:"method" json:"method,omitempty"`   // in capitals; one or several; none = any
	Scheme  string      `yaml:"scheme" json:"scheme,omitempty"`   // http or https, as the client came; "" = any
	Header  []Condition `yaml:"header" json:"header,omitempty"`   // all must hold; up to 16
	Query   []Condition `yaml:"query" json:"query,omitempty"`     // all must hold; up to 16
}

// Request is what a Match looks at.
type Request struct {
	Method string
	Scheme string              // http or https
	Host   string              // as HostOf gives it
	Path   string              // as Canonical gives it; it starts with a slash
	Query  string              // as it stands in the URL
	Header map[string][]string // names as net/http writes them
}

// Validate returns every fault of m, joined; each is a *setting.Error.
func (m Match) Validate() error {
	var f setting.Faults
	one := 0
	for _, text := range []string{m.Path, m.Exact, m.Pattern} {
		if text != "" {
			one++
		}
	}
	f.Check(one <= 1, "path", m.Path, "one of path, exact and pattern")
	f.Check(m.Path == "" || pathOK(m.Path), "path", m.Path, "a path that starts with /")
	f.Check(m.Exact == "" || pathOK(m.Exact), "exact", m.Exact, "a path that starts with /")
	if m.Pattern != "" {
		if _, err := parsePattern(m.Pattern); err != nil {
			f.Check(false, "pattern", m.Pattern, err.Error())
		}
	}
	for _, host := range m.Host {
		f.Check(hostOK(strings.TrimPrefix(host, "*.")), "host", host, "a host name without port, or *.name")
	}
	for _, method := range m.Method {
		f.Check(token(method) && strings.ToUpper(method) == method, "method", method, "a method in capitals")
	}
	f.Check(m.Scheme == "" || m.Scheme == "http" || m.Scheme == "https", "scheme", m.Scheme, "http or https")
	conditions(&f, "header", m.Header, true)
	conditions(&f, "query", m.Query, false)
	return f.Err()
}

func hostOK(name string) bool {
	name = strings.TrimSuffix(name, ".")
	return name != "" && len(name) <= 253 && strings.Trim(name, ".") == name && !strings.Contains(name, "..") &&
		!strings.ContainsAny(name, "*/@?#[]") && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) && strings.Count(name, ":") != 1
}

func conditions(f *setting.Faults, path string, list []Condition, header bool) {
	f.Check(len(list) <= maxConditions, path, len(list), "at most 16 conditions")
	for i, c := range list {
		f.Within(index(path, i), c.validate(header))
	}
}

// pathOK reports whether a setting is a path as it stands in a URL, or as people write it.
func pathOK(path string) bool {
	return path[0] == '/' && len(path) <= maxText && !strings.ContainsAny(path, "?#") && !control(path) && codesOK(path) && !climbs(path)
}

// codesOK reports whether every % starts a code.
func codesOK(path string) bool {
	for i := range len(path) {
		if _, ok := code(path[i:]); path[i] == '%' && !ok {
			return false
		}
	}
	return true
}

func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// String is m in one line.
func (m Match) String() string {
	s := strings.Join(m.Host, ",") + m.Target()
	if m.Scheme != "" {
		s = m.Scheme + "://" + s
	}
	if len(m.Method) > 0 {
		s = strings.Join(m.Method, ",") + " " + s
	}
	for _, c := range m.Query {
		s += " ?" + c.String()
	}
	for _, c := range m.Header {
		s += " " + c.String()
	}
	return s
}

// Target is the path that m asks for, as it is written in the setting: what traces call the route.
func (m Match) Target() string {
	switch {
	case m.Pattern != "":
		return m.Pattern
	case m.Exact != "":
		return m.Exact
	case m.Path != "":
		return m.Path
	}
	return "/"
}

// Names are the captures of m's pattern, in order; nil without any, or when the pattern is faulty.
func (m Match) Names() []string {
	if m.Pattern == "" {
		return nil
	}
	p, err := parsePattern(m.Pattern)
	if err != nil {
		return nil
	}
	return p.names
}

// rule is a compiled Match. It is immutable.
type rule struct {
	hosts   []string // lower case
	shape   shape
	methods []string
	scheme  string
	header  []test
	query   []test
}

func compile(m Match) (*rule, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	r := &rule{methods: slices.Clone(m.Method), scheme: m.Scheme}
	for _, h := range m.Host {
		r.hosts = append(r.hosts, strings.ToLower(strings.TrimSuffix(h, ".")))
	}
	switch {
	case m.Pattern != "":
		p, err := parsePattern(m.Pattern)
		if err != nil {
			return nil, err
		}
		r.shape = p
	case m.Exact != "":
		r.shape = exactShape(m.Exact)
	default:
		r.shape = prefixShape(m.Target())
	}
	for _, c := range m.Header {
		c.Name = textproto.CanonicalMIMEHeaderKey(c.Name)
		t, err := newTest(c)
		if err != nil {
			return nil, err
		}
		r.header = append(r.header, t)
	}
	for _, c := range m.Query {
		t, err := newTest(c)
		if err != nil {
			return nil, err
		}
		r.query = append(r.query, t)
	}
	return r, nil
}

// takes is the meaning of a Match; Table must agree with it.
func (r *rule) takes(q *Request) bool {
	if len(r.hosts) > 0 && !slices.ContainsFunc(r.hosts, func(h string) bool { return hostTakes(h, q.Host) }) {
		return false
	}
	return r.shape.takes(q.Path) && r.passes(q)
}

// passes is what is left when host and path fit.
func (r *rule) passes(q *Request) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, q.Method) || r.scheme != "" && r.scheme != q.Scheme {
		return false
	}
	for i := range r.header {
		if t := &r.header[i]; !t.header(values(t.Name, q)) {
			return false
		}
	}
	for i := range r.query {
		if !r.query[i].query(q.Query) {
			return false
		}
	}
	return true
}

// values are those of a field. net/http keeps Host apart from the others.
func values(name string, q *Request) []string {
	if name == "Host" {
		return []string{q.Host}
	}
	return q.Header[name]
}

func hostTakes(pattern, host string) bool {
	if pattern[0] == '*' {
		return len(host) >= len(pattern) && strings.HasSuffix(host, pattern[1:])
	}
	return pattern == host
}

// covers reports whether r takes all that o takes. It may say no where it is so, never yes where it is not.
func (r *rule) covers(o *rule) bool {
	if len(r.hosts) > 0 {
		if len(o.hosts) == 0 {
			return false
		}
		for _, theirs := range o.hosts {
			if !slices.ContainsFunc(r.hosts, func(ours string) bool { return hostTakes(ours, theirs) }) {
				return false
			}
		}
	}
	if len(r.methods) > 0 {
		if len(o.methods) == 0 {
			return false
		}
		for _, method := range o.methods {
			if !slices.Contains(r.methods, method) {
				return false
			}
		}
	}
	return (r.scheme == "" || r.scheme == o.scheme) && r.shape.covers(o.shape) && allImplied(r.header, o.header) && allImplied(r.query, o.query)
}
