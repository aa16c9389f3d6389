package httpcache

import "strings"

// parseTargeted reads a dictionary of structured fields (RFC 8941 section 3.2) as directives. ok is false when it is not
// well formed, or when a directive has a value of the wrong type: then the whole field is to be ignored (RFC 9213
// section 2.1). Of a key that comes twice the last counts, as that format has it.
func parseTargeted(lines []string) (d Directives, ok bool) {
	p := structured(strings.Join(lines, ","))
	p.space()
	for p != "" {
		name, ok := p.key()
		if !ok {
			return Directives{}, false
		}
		value, kind := "", byte('b')
		if p.take('=') {
			if value, kind = p.item(); kind == 0 {
				return Directives{}, false
			}
		}
		if !p.parameters() || !fits(name, kind) {
			return Directives{}, false
		}
		if value != "?0" {
			d.set(name, value)
		}
		p.space()
		if p == "" {
			break
		}
		if !p.take(',') {
			return Directives{}, false
		}
		if p.space(); p == "" {
			return Directives{}, false
		}
	}
	return d, true
}

// fits reports whether a value of a kind may stand with a directive: a time is an integer; a list of fields is a string.
func fits(name string, kind byte) bool {
	switch name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		return kind == 'i'
	case "no-store", "must-revalidate", "proxy-revalidate", "public", "must-understand":
		return kind == 'b'
	}
	return true
}

func (d *Directives) set(name, value string) {
	for i := range d.list {
		if d.list[i].name == name {
			d.list[i].value = value
			return
		}
	}
	d.list = append(d.list, directive{name, value})
}

// structured is the rest of a field that is read from the front.
type structured string

func (p *structured) space() { *p = structured(strings.TrimLeft(string(*p), " \t")) }

func (p *structured) take(c byte) bool {
	if *p == "" || (*p)[0] != c {
		return false
	}
	*p = (*p)[1:]
	return true
}

// while takes the bytes that are in set.
func (p *structured) while(set func(c byte) bool) string {
	n := 0
	for n < len(*p) && set((*p)[n]) {
		n++
	}
	s := string((*p)[:n])
	*p = (*p)[n:]
	return s
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (p *structured) key() (string, bool) {
	if *p == "" || !isLower((*p)[0]) && (*p)[0] != '*' {
		return "", false
	}
	return p.while(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 }), true
}

// item reads a bare item. kind is i(nteger), d(ecimal), s(tring), t(oken), b(oolean) or o, any other; 0 = none is there.
func (p *structured) item() (value string, kind byte) {
	if *p == "" {
		return "", 0
	}
	switch c := (*p)[0]; {
	case isDigit(c) || c == '-':
		return p.number()
	case c == '"':
		return p.text()
	case c == '?':
		if len(*p) < 2 || (*p)[1] != '0' && (*p)[1] != '1' {
			return "", 0
		}
		if value = string((*p)[:2]); value == "?1" {
			value = ""
		}
		*p = (*p)[2:]
		return value, 'b'
	case c == ':':
		n := strings.IndexByte(string((*p)[1:]), ':')
		if n < 0 {
			return "", 0
		}
		*p = (*p)[n+2:]
		return "", 'o'
	case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '*':
		return p.while(func(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(`"(),;<=>?@[\]{}`, c) < 0 }), 't'
	}
	return "", 0
}

func (p *structured) number() (string, byte) {
	sign := ""
	if p.take('-') {
		sign = "-"
	}
	digits := p.while(isDigit)
	if digits == "" || len(digits) > 15 {
		return "", 0
	}
	if !p.take('.') {
		return sign + digits, 'i'
	}
	if p.while(isDigit) == "" {
		return "", 0
	}
	return "", 'd'
}

func (p *structured) text() (string, byte) {
	s := string(*p)
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", 0
			}
		case s[i] == '"':
			*p = structured(s[i+1:])
			return unquote(s[:i+1]), 's'
		case s[i] < ' ' || s[i] >= 0x7f:
			return "", 0
		}
	}
	return "", 0
}

// parameters skips those of an item.
func (p *structured) parameters() bool {
	for p.take(';') {
		p.space()
		if _, ok := p.key(); !ok {
			return false
		}
		if p.take('=') {
			if _, kind := p.item(); kind == 0 {
				return false
			}
		}
	}
	return true
}
