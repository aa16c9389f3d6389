package routing

import (
	"errors"
	"net/url"
	"strings"
)

// Values are what a template may speak of.
type Values struct {
	Captures []string // as Table.Captures gives them
	Method   string
	Scheme   string
	Host     string // as HostOf gives it
	Path     string // in the form of a URL
	Query    string // as it stands in the URL
}

// place is where the text of a template will stand, which decides how what is put in is escaped.
type place uint8

const (
	inTarget place = iota // the path of a URL
	inQuery               // a query with its & and =
	inValue               // the value of one parameter
	inHost                // an authority
	inField               // the value of a header field
)

// What a part of a template stands for, if not for a capture.
const (
	isLiteral = -1 - iota
	isMethod
	isScheme
	isHost
	isPath
	isQuery
)

var requestNames = map[string]int{
	"request.method": isMethod, "request.scheme": isScheme, "request.host": isHost, "request.path": isPath, "request.query": isQuery,
}

type part struct {
	text string
	what int // 0.. = a capture
}

// template is a compiled text. It is immutable.
type template struct {
	place place
	parts []part
}

var errBraces = errors.New("braces in pairs: {name} for a value, {{ and }} for braces")

// parseTemplate reads text; names are the captures that it may speak of. The error says what would be accepted.
func parseTemplate(text string, at place, names []string) (*template, error) {
	t := &template{place: at}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, part{literal.String(), isLiteral})
			literal.Reset()
		}
	}
	for text != "" {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			literal.WriteString(text)
			break
		}
		literal.WriteString(text[:i])
		text = text[i:]
		if len(text) > 1 && text[1] == text[0] {
			literal.WriteByte(text[0])
			text = text[2:]
			continue
		}
		end := strings.IndexByte(text, '}')
		if text[0] == '}' || end < 0 {
			return nil, errBraces
		}
		what, err := meaning(text[1:end], names)
		if err != nil {
			return nil, err
		}
		flush()
		t.parts = append(t.parts, part{text[:end+1], what})
		text = text[end+1:]
	}
	flush()
	return t, nil
}

func meaning(name string, names []string) (int, error) {
	if i := position(names, strings.TrimSuffix(name, "...")); i >= 0 {
		return i, nil
	}
	if what, ok := requestNames[name]; ok {
		return what, nil
	}
	known := "request.host, request.path, request.query, request.scheme, request.method"
	if len(names) > 0 {
		known = strings.Join(names, ", ") + ", " + known
	}
	return 0, errors.New("in braces one of " + known)
}

// constant reports whether t always gives the same text.
func (t *template) constant() (string, bool) {
	switch {
	case len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && t.parts[0].what == isLiteral:
		return t.parts[0].text, true
	}
	return "", false
}

// expand writes t with v. ok is false when a value cannot stand where it would have to.
func (t *template) expand(v *Values) (text string, ok bool) {
	if text, ok = t.constant(); ok {
		return text, true
	}
	var b strings.Builder
	for _, p := range t.parts {
		s, fits := t.part(p, v)
		if !fits {
			return "", false
		}
		b.WriteString(s)
	}
	return b.String(), true
}

// part is one part, escaped for its place.
func (t *template) part(p part, v *Values) (text string, ok bool) {
	switch {
	case p.what == isLiteral:
		return p.text, true
	case p.what == isMethod:
		text = v.Method
	case p.what == isScheme:
		text = v.Scheme
	case p.what == isHost:
		text = v.Host
		if strings.Contains(text, ":") {
			text = "[" + text + "]"
		}
	case p.what == isPath: // it is escaped already
		if t.place == inValue || t.place == inQuery {
			return url.QueryEscape(v.Path), true
		}
		return v.Path, t.place != inHost
	case p.what == isQuery:
		return t.query(v.Query)
	case p.what < len(v.Captures):
		return t.capture(v.Captures[p.what])
	}
	switch t.place {
	case inValue, inQuery:
		return url.QueryEscape(text), true
	case inTarget:
		return escapePath(strings.ReplaceAll(text, "%", "%25")), true
	case inHost:
		return text, authority(text)
	default:
		return text, !control(text)
	}
}

func (t *template) query(raw string) (string, bool) {
	switch t.place {
	case inValue:
		return url.QueryEscape(raw), true
	case inTarget:
		return url.PathEscape(raw), true
	case inHost:
		return "", false
	default:
		return raw, !control(raw)
	}
}

func (t *template) capture(canonical string) (string, bool) {
	switch t.place {
	case inTarget, inField:
		return escapePath(canonical), true
	case inHost:
		return canonical, authority(canonical)
	default:
		return url.QueryEscape(plain(canonical)), true
	}
}

// authority reports whether a text may be a part of the authority of a URL without ending it.
func authority(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return s != ""
}
