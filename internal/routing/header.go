package routing

import (
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// maxEdits bounds the fields, and the parameters, that one route changes.
const maxEdits = 64

// HeaderEdit changes header fields: first Remove, then Set, then Add. Values are templates. Fields that belong to one
// connection or say where a message ends cannot be edited, and Host not here.
type HeaderEdit struct {
	Set    map[string]string `yaml:"set"`    // in place of what is there
	Add    map[string]string `yaml:"add"`    // after what is there
	Remove []string          `yaml:"remove"` // names
}

// unedited are the fields that are the gateway's own affair (RFC 9110 section 7.6.1, RFC 9112 section 6).
var unedited = []string{
	"Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

type fieldEdit struct {
	name  string
	value *template
	fixed []string // the value, when it is always the same
}

// HeaderEditor is a compiled HeaderEdit. It is immutable.
type HeaderEditor struct {
	remove   []string
	set, add []fieldEdit
}

// Compile compiles e for a match whose captures are names. The error joins every fault; each is a *setting.Error.
func (e HeaderEdit) Compile(names []string) (*HeaderEditor, error) {
	var f setting.Faults
	h := &HeaderEditor{}
	f.Check(len(e.Set)+len(e.Add)+len(e.Remove) <= maxEdits, "", len(e.Set)+len(e.Add)+len(e.Remove), "at most 64 fields")
	for i, name := range e.Remove {
		editable(&f, index("remove", i), name)
		h.remove = append(h.remove, textproto.CanonicalMIMEHeaderKey(name))
	}
	h.set = fieldEdits(&f, "set", e.Set, names)
	h.add = fieldEdits(&f, "add", e.Add, names)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return h, nil
}

func editable(f *setting.Faults, path, name string) {
	f.Check(token(name), path, name, "the name of a header field")
	f.Check(!slices.Contains(unedited, textproto.CanonicalMIMEHeaderKey(name)), path, name, "a field that does not belong to the connection or the framing; for Host use rewrite.host")
}

func fieldEdits(f *setting.Faults, path string, fields map[string]string, names []string) []fieldEdit {
	var all []fieldEdit
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at, text := path+"."+name, fields[name]
		editable(f, at, name)
		f.Check(valueOK(text), at, text, "a value in one line")
		e := fieldEdit{name: textproto.CanonicalMIMEHeaderKey(name), value: compileTemplate(f, at, text, inField, names)}
		if e.value != nil {
			if s, constant := e.value.constant(); constant {
				e.fixed = []string{s}
			}
		}
		all = append(all, e)
	}
	return all
}

// valueOK reports whether a text may be the value of a field (RFC 9110 section 5.5).
func valueOK(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) && strings.TrimSpace(s) == s
}

// Apply edits h, for a call with the values v. Lists of values that h shares with others stay as they are.
func (e *HeaderEditor) Apply(h map[string][]string, v *Values) {
	for _, name := range e.remove {
		delete(h, name)
	}
	for _, f := range e.set {
		if values := f.values(v); values != nil {
			h[f.name] = values
		}
	}
	for _, f := range e.add {
		if values := f.values(v); values != nil {
			h[f.name] = append(slices.Clip(h[f.name]), values...)
		}
	}
}

// values is the new value; nil when it cannot stand in a field.
func (f *fieldEdit) values(v *Values) []string {
	if f.fixed != nil {
		return f.fixed[:1:1]
	}
	if text, ok := f.value.expand(v); ok {
		return []string{text}
	}
	return nil
}
