package routing

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Rewrite changes the target that the upstream sees. Parts that are not set stay as the client wrote them. Path stands
// alone; StripPrefix and AddPrefix may go together, which replaces a prefix.
type Rewrite struct {
	StripPrefix string            `yaml:"strip_prefix"` // taken off the path, where a segment ends; a path without it stays as it is
	AddPrefix   string            `yaml:"add_prefix"`   // put before the path; without a slash at its end
	Path        string            `yaml:"path"`         // template of the whole path
	Host        string            `yaml:"host"`         // template of the Host that the upstream sees
	SetQuery    map[string]string `yaml:"set_query"`    // parameters and the templates of their values, in place of the client's of that name
	RemoveQuery []string          `yaml:"remove_query"` // parameters that are taken off
}

// Target is where a call goes, in the form of a URL.
type Target struct {
	Host  string
	Path  string
	Query string
}

// Rewriter is a compiled Rewrite. It is immutable.
type Rewriter struct {
	strip, add string
	path, host *template
	names      []string // of the parameters that are set, sorted
	set        []*template
	drop       map[string]bool // parameters of the client that do not pass
}

// Compile compiles r for a match whose captures are names. The error joins every fault; each is a *setting.Error.
func (r Rewrite) Compile(names []string) (*Rewriter, error) {
	var f setting.Faults
	w := &Rewriter{strip: Canonical(r.StripPrefix), add: written(r.AddPrefix)}
	f.Check(r.StripPrefix == "" || pathOK(r.StripPrefix), "strip_prefix", r.StripPrefix, "a path that starts with /")
	f.Check(r.AddPrefix == "" || pathOK(r.AddPrefix) && !strings.HasSuffix(r.AddPrefix, "/"), "add_prefix", r.AddPrefix, "a path that starts with / and does not end with it")
	f.Check(r.Path == "" || r.StripPrefix == "" && r.AddPrefix == "", "path", r.Path, "either path, or strip_prefix and add_prefix")
	if r.Path != "" {
		f.Check(pathOK(r.Path), "path", r.Path, "a path that starts with /")
		w.path = compileTemplate(&f, "path", r.Path, inTarget, names)
	}
	if r.Host != "" {
		f.Check(!strings.ContainsAny(r.Host, "/@?# ") && !control(r.Host), "host", r.Host, "a host, with a port or without")
		w.host = compileTemplate(&f, "host", r.Host, inHost, names)
	}
	f.Check(len(r.SetQuery)+len(r.RemoveQuery) <= maxEdits, "set_query", len(r.SetQuery), "at most 64 parameters to set or remove")
	w.drop = make(map[string]bool, len(r.SetQuery)+len(r.RemoveQuery))
	for _, name := range r.RemoveQuery {
		f.Check(name != "", "remove_query", name, "the name of a parameter")
		w.drop[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(r.SetQuery)) {
		f.Check(name != "" && !w.drop[name], "set_query."+name, name, "a parameter that is not removed")
		w.drop[name] = true
		w.names = append(w.names, url.QueryEscape(name))
		w.set = append(w.set, compileTemplate(&f, "set_query."+name, r.SetQuery[name], inValue, names))
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	return w, nil
}

func compileTemplate(f *setting.Faults, path, text string, at place, names []string) *template {
	f.Check(len(text) <= maxText, path, len(text), "at most 4096 bytes")
	t, err := parseTemplate(text, at, names)
	if err != nil {
		f.Check(false, path, text, err.Error())
		return nil
	}
	for i := range t.parts {
		if p := &t.parts[i]; p.what == isLiteral {
			switch at {
			case inTarget:
				p.text = written(p.text)
			case inValue:
				p.text = url.QueryEscape(p.text)
			}
		}
	}
	return t
}

// written is a path from a setting in the form of a URL.
func written(path string) string { return escapePath(Canonical(path)) }

// Apply rewrites t, the target of a call with the values v. It returns false, and leaves t as it is, when the result
// would not be what the setting means: a dot segment, or a host that is none.
func (w *Rewriter) Apply(t *Target, v *Values) bool {
	next := *t
	ok := true
	switch {
	case w.path != nil:
		next.Path, ok = w.path.expand(v)
	case w.strip != "" || w.add != "":
		rest, found := next.Path, true
		if w.strip != "" {
			rest, found = strip(next.Path, w.strip)
		}
		if found {
			next.Path = cmp.Or(w.add+rest, "/")
		}
	}
	if !ok || climbs(next.Path) {
		return false
	}
	if w.host != nil {
		if next.Host, ok = w.host.expand(v); !ok || next.Host == "" {
			return false
		}
	}
	if len(w.drop) > 0 {
		if next.Query, ok = w.query(next.Query, v); !ok {
			return false
		}
	}
	*t = next
	return true
}

// query leaves the client's parameters in their order and form.
func (w *Rewriter) query(raw string, v *Values) (string, bool) {
	var b strings.Builder
	add := func(pair string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(pair)
	}
	for pair := range pairs(raw) {
		name, _, _ := strings.Cut(pair, "=")
		if !w.drop[unquote(name)] {
			add(pair)
		}
	}
	for i, t := range w.set {
		value, ok := t.expand(v)
		if !ok {
			return "", false
		}
		add(w.names[i] + "=" + value)
	}
	return b.String(), true
}
