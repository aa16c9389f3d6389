package gateway

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// Mirror sends copies of a share of a route's calls to another upstream, whose answers nobody sees. The call itself is
// never delayed by it.
type Mirror struct {
	Upstream        string        `yaml:"upstream"`         // where to; not the route's own
	Share           float64       `yaml:"share"`            // of the calls whose method is listed; more than 0, up to 100%
	Method          []string      `yaml:"method"`           // GET and HEAD by default; others do twice what they do, so name them only when the other upstream is apart
	KeepCredentials bool          `yaml:"keep_credentials"` // true = Authorization, Cookie and their like are sent too; default false
	Timeout         time.Duration `yaml:"timeout"`          // of one copy; default 5s
	AtOnce          int           `yaml:"at_once"`          // copies under way; 1..10000; default 32
	Queue           int           `yaml:"queue"`            // copies that wait for their turn; more are dropped; 0..10000; default 128
}

// WithDefaults fills what is zero.
func (m Mirror) WithDefaults() Mirror {
	if len(m.Method) == 0 {
		m.Method = []string{"GET", "HEAD"}
	}
	setDefault(&m.Timeout, 5*time.Second)
	setDefault(&m.AtOnce, 32)
	setDefault(&m.Queue, 128)
	return m
}

// Validate returns every fault of m, joined; each is a *setting.Error.
func (m Mirror) Validate() error {
	var f setting.Faults
	f.Check(m.Share > 0 && m.Share <= 1, "share", m.Share, "more than 0, up to 100%")
	for _, method := range m.Method {
		f.Check(method != "" && strings.ToUpper(method) == method && !strings.ContainsAny(method, " \t\r\n"), "method", method, "a method in capitals")
	}
	f.Check(m.Timeout >= 0, "timeout", m.Timeout, "a duration that is not negative")
	f.Check(m.AtOnce >= 0 && m.AtOnce <= 10_000, "at_once", m.AtOnce, "1..10000")
	f.Check(m.Queue >= 0 && m.Queue <= 10_000, "queue", m.Queue, "0..10000")
	return f.Err()
}

// validateMirror checks the mirror of r, if it has one.
func (c *Config) validateMirror(f *setting.Faults, path string, r *Route) {
	m := r.Mirror
	if m == nil {
		return
	}
	f.Within(path, m.Validate())
	_, known := c.Upstreams[m.Upstream]
	own := slices.ContainsFunc(r.versions(), func(v Version) bool { return v.Upstream == m.Upstream })
	f.Check(known && !own, path+".upstream", m.Upstream, "another one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
}
