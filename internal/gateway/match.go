package gateway

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Match is what a route takes. The zero value takes every call.
type Match struct {
	Host   string   `yaml:"host" json:"host,omitempty"`     // without port; *.example.com takes every host below it; "" = any
	Path   string   `yaml:"path" json:"path,omitempty"`     // prefix that ends where a segment does: /api takes /api and /api/x, not /apis; default /
	Method []string `yaml:"method" json:"method,omitempty"` // in capitals; one or several; none = any
}

// Validate returns every fault of m, joined; each is a *setting.Error.
func (m Match) Validate() error {
	var f setting.Faults
	f.Check(m.Path == "" || m.Path[0] == '/' && !strings.ContainsAny(m.Path, "?#"), "path", m.Path, "a path that starts with /")
	host := strings.TrimPrefix(m.Host, "*.")
	f.Check(m.Host == "" || host != "" && !strings.ContainsAny(host, "*/:@ "), "host", m.Host, "a host name without port, or *.name")
	for _, method := range m.Method {
		f.Check(method != "" && strings.ToUpper(method) == method && !strings.ContainsAny(method, " \t\r\n"), "method", method, "a method in capitals")
	}
	return f.Err()
}

// String is m in one line.
func (m Match) String() string {
	s := m.Host + m.path()
	if len(m.Method) > 0 {
		s = strings.Join(m.Method, ",") + " " + s
	}
	return s
}

func (m Match) path() string {
	if m.Path == "" {
		return "/"
	}
	return m.Path
}

// takes reports whether m, its host in lower case, matches a call; host is in lower case and without port.
func (m Match) takes(method, host, path string) bool {
	return prefixTakes(m.path(), path) && hostTakes(m.Host, host) && (len(m.Method) == 0 || slices.Contains(m.Method, method))
}

func prefixTakes(prefix, path string) bool {
	if !strings.HasPrefix(path, prefix) {
		return false
	}
	return len(path) == len(prefix) || prefix[len(prefix)-1] == '/' || path[len(prefix)] == '/'
}

func hostTakes(pattern, host string) bool {
	switch {
	case pattern == "" || pattern == host:
		return true
	case strings.HasPrefix(pattern, "*."):
		return len(host) >= len(pattern) && strings.HasSuffix(host, pattern[1:])
	}
	return false
}

// covers reports whether m takes all that o takes, so that o can never be reached after m.
func (m Match) covers(o Match) bool {
	if len(m.Method) > 0 {
		if len(o.Method) == 0 {
			return false
		}
		for _, method := range o.Method {
			if !slices.Contains(m.Method, method) {
				return false
			}
		}
	}
	return prefixTakes(m.path(), o.path()) && hostTakes(strings.ToLower(m.Host), strings.ToLower(o.Host))
}

// hostOf is the host a request asks for, in lower case and without port.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
