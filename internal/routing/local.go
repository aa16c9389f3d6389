package routing

import (
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Redirect sends the client elsewhere. Either To or HTTPS is set.
type Redirect struct {
	To     string `yaml:"to"`     // template of an http or https URL, or of a path; the client's query goes along unless it has a ?
	HTTPS  bool   `yaml:"https"`  // to the same URL, with https and its default port; the match must ask for scheme: http
	Status int    `yaml:"status"` // 301, 302, 303, 307 or 308; default 308, which keeps the method
}

// Redirector is a compiled Redirect. It is immutable.
type Redirector struct {
	Status             int
	scheme             string // with ://; "" = a path
	host, path, search *template
	keep               bool // the client's query goes along
}

// Compile compiles r for a match whose captures are names. The error joins every fault; each is a *setting.Error.
func (r Redirect) Compile(names []string) (*Redirector, error) {
	var f setting.Faults
	to := r.To
	f.Check((to != "") != r.HTTPS, "to", to, "either to or https: true")
	if r.HTTPS {
		to = "https://{request.host}{request.path}"
	}
	d := &Redirector{Status: r.Status}
	if d.Status == 0 {
		d.Status = 308
	}
	f.Check(slices.Contains([]int{301, 302, 303, 307, 308}, d.Status), "status", r.Status, "301, 302, 303, 307 or 308")
	rest := to
	for _, scheme := range []string{"http://", "https://"} {
		if after, found := strings.CutPrefix(to, scheme); found {
			d.scheme, rest = scheme, after
		}
	}
	f.Check(!control(to) && (d.scheme != "" || strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//")), "to", r.To, "a URL with http:// or https://, or a path that starts with one /")
	rest, search, found := strings.Cut(rest, "?")
	d.keep = !found
	if d.scheme != "" {
		host, path := rest, ""
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			host, path = rest[:i], rest[i:]
		} else if i := strings.Index(rest, "{request.path}"); i >= 0 {
			host, path = rest[:i], rest[i:]
		}
		f.Check(host != "" && !strings.ContainsAny(host, "@# "), "to", r.To, "a URL with a host")
		d.host, rest = compileTemplate(&f, "to", host, inHost, names), path
	}
	f.Check(!strings.Contains(rest+search, "#") && codesOK(rest+search), "to", r.To, "a URL without fragment, and with no % but in codes")
	d.path = compileTemplate(&f, "to", rest, inTarget, names)
	d.search = compileTemplate(&f, "to", search, inQuery, names)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return d, nil
}

// Location is where a call with the values v is sent; ok is false when there is no such place.
func (d *Redirector) Location(v *Values) (location string, ok bool) {
	path, ok := d.path.expand(v)
	if !ok {
		return "", false
	}
	location = d.scheme
	if d.host != nil {
		host, ok := d.host.expand(v)
		if !ok {
			return "", false
		}
		location += host
	} else if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/") // two slashes would begin a host
	}
	if d.scheme != "" && path != "" && path[0] != '/' {
		path = "/" + path
	}
	location += path
	search, ok := d.search.expand(v)
	if d.keep {
		search = v.Query
	}
	if search != "" {
		location += "?" + search
	}
	return location, ok && !control(location)
}

// Answer is one that needs nobody. The zero value is an empty 200.
type Answer struct {
	Status int               `yaml:"status"` // 200..599; default 200
	Header map[string]string `yaml:"header"` // Content-Type is text/plain; charset=utf-8 unless it stands here
	Body   string            `yaml:"body"`   // as it is, up to 64 KiB
}

const maxBody = 64 << 10

// WithDefaults fills what is zero.
func (a Answer) WithDefaults() Answer {
	if a.Status == 0 {
		a.Status = 200
	}
	return a
}

// Validate returns every fault of a, joined; each is a *setting.Error.
func (a Answer) Validate() error {
	var f setting.Faults
	f.Check(a.Status == 0 || a.Status >= 200 && a.Status <= 599, "status", a.Status, "200..599")
	f.Check(len(a.Body) <= maxBody, "body", len(a.Body), "at most 64 KiB")
	f.Check(a.Body == "" || a.Status != 204 && a.Status != 304, "body", len(a.Body), "nothing with the status 204 or 304")
	f.Check(len(a.Header) <= maxEdits, "header", len(a.Header), "at most 64 fields")
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		editable(&f, "header."+name, name)
		f.Check(valueOK(a.Header[name]) && len(a.Header[name]) <= maxText, "header."+name, a.Header[name], "a value in one line, up to 4096 bytes")
	}
	return f.Err()
}

// Fields are the answer's header fields, less Content-Length. Each call returns new ones.
func (a Answer) Fields() map[string][]string {
	h := make(map[string][]string, len(a.Header)+1)
	if a.Body != "" {
		h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	}
	for name, value := range a.Header {
		h[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	return h
}
