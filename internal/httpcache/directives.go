package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// maxDirectives bounds what is read of one field. One that holds more is taken for no-store.
const maxDirectives = 64

// maxSeconds is the largest delta-seconds that is told from larger ones (RFC 9111 section 1.2.2).
const maxSeconds = 1 << 31

// Directives are those of a Cache-Control field: names in lower case, values without quotes. The zero value has none.
// Of a directive that comes twice the first counts (RFC 9111 section 4.2.1); private and no-cache hold for all that any of
// them names.
type Directives struct{ list []directive }

type directive struct{ name, value string }

// ParseDirectives reads the lines of a Cache-Control field (RFC 9111 section 5.2). It takes what it can and never fails.
func ParseDirectives(lines []string) Directives {
	var d Directives
	for _, line := range lines {
		for line != "" {
			var member string
			member, line = cutMember(line)
			name, value, has := strings.Cut(member, "=")
			trimmed := strings.TrimSpace(name)
			if trimmed == "" {
				continue
			}
			if has && (len(trimmed) != len(name) || value != strings.TrimSpace(value)) {
				value = "\x00" // white space around = is an error: the name is heard, its value is not
			}
			if !d.add(strings.ToLower(trimmed), unquote(value)) {
				return Directives{[]directive{{"no-store", ""}}}
			}
		}
	}
	return d
}

// add takes a directive in; false = there are too many.
func (d *Directives) add(name, value string) bool {
	for i := range d.list {
		switch was := &d.list[i]; {
		case was.name != name:
			continue
		case name != "private" && name != "no-cache":
		case value == "":
			was.value = ""
		case was.value != "":
			was.value += "," + value
		}
		return true
	}
	d.list = append(d.list, directive{name, value})
	return len(d.list) <= maxDirectives
}

// cutMember cuts the first member off a list; a comma within quotes does not part (RFC 9110 section 5.6.1).
func cutMember(s string) (member, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return strings.TrimSpace(s[:i]), s[i+1:]
		}
	}
	return strings.TrimSpace(s), ""
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Has reports whether a directive is there, with or without a value.
func (d *Directives) Has(name string) bool {
	_, ok := d.Value(name)
	return ok
}

// Value is what stands after the directive's =; "" when nothing does.
func (d *Directives) Value(name string) (string, bool) {
	for i := range d.list {
		if d.list[i].name == name {
			return d.list[i].value, true
		}
	}
	return "", false
}

// Seconds reads a directive that is a time. One that cannot be read is 0, so that what it bounds is stale (RFC 9111
// section 4.2.1). More than about 68 years is that.
func (d *Directives) Seconds(name string) (time.Duration, bool) {
	v, ok := d.Value(name)
	if !ok {
		return 0, false
	}
	n, _ := seconds(v)
	return n, true
}

// Fields are the field names that a directive such as private="a, b" lists, in canonical form; whole says that it is
// there without a list, or with one that cannot be read, and so is about the whole answer.
func (d *Directives) Fields(name string) (fields []string, whole bool) {
	v, ok := d.Value(name)
	if !ok {
		return nil, false
	}
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if !fieldName(part) {
			return nil, true
		}
		fields = append(fields, http.CanonicalHeaderKey(part))
	}
	return fields, len(fields) == 0
}

// fieldName reports whether s may be the name of a field (RFC 9110 section 5.1).
func fieldName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r) })
}

// seconds reads digits and nothing else.
func seconds(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n := int64(0)
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int64(c-'0'), maxSeconds)
	}
	return time.Duration(n) * time.Second, true
}

// governing are the directives that a shared cache shall follow: those of CDN-Cache-Control, if it is there and well
// formed, or else those of Cache-Control; targeted says which (RFC 9213 section 2.2).
func governing(h http.Header) (d Directives, targeted bool) {
	if lines := h["Cdn-Cache-Control"]; len(lines) > 0 {
		if d, ok := parseTargeted(lines); ok && len(d.list) > 0 {
			return d, true
		}
	}
	return ParseDirectives(h["Cache-Control"]), false
}
