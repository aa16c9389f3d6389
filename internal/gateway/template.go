package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

var (
	errTemplate = errors.New("gateway: not a template of path and query")
	errMissing  = errors.New("gateway: the call does not have what the template asks for")
)

// template is the path and query of a call that the gateway makes by itself, with places for parts of the client's:
//
//	{segment.2}   the second segment of its path, counted from 1
//	{query.name}  the first parameter of that name
//	{path}        the whole path, without its first slash
//	{ids}         of a joint call: the IDs
//
// What is filled in is escaped, so that it stays within its place: it cannot add a segment, a parameter or a fragment.
type template []piece

// piece is text, or a place.
type piece struct {
	text    string // when from is ""
	from    string // segment, query, path, ids
	name    string // of a query parameter
	at      int    // of a segment
	inQuery bool
}

// parseTemplate reads a template. The error is errTemplate.
func parseTemplate(s string) (template, error) {
	if s == "" || s[0] != '/' || strings.HasPrefix(s, "//") || strings.Contains(s, "#") || len(s) > 4096 {
		return nil, errTemplate
	}
	var t template
	inQuery := false
	for rest := s; rest != ""; {
		open := strings.IndexByte(rest, '{')
		text := rest
		if open >= 0 {
			text = rest[:open]
		}
		if !textOK(text) {
			return nil, errTemplate
		}
		if text != "" {
			t = append(t, piece{text: text})
			inQuery = inQuery || strings.Contains(text, "?")
		}
		if open < 0 {
			break
		}
		inside, after, closed := strings.Cut(rest[open+1:], "}")
		p, ok := parsePlace(inside)
		if !closed || !ok {
			return nil, errTemplate
		}
		p.inQuery = inQuery
		t = append(t, p)
		rest = after
	}
	return t, nil
}

// textOK reports whether s may stand in a target as it is.
func textOK(s string) bool {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"<>\^{}|`+"`", r) }) {
		return false
	}
	_, err := url.PathUnescape(s)
	return err == nil && !climbs(s)
}

func parsePlace(s string) (piece, bool) {
	from, name, _ := strings.Cut(s, ".")
	switch from {
	case "path", "ids":
		return piece{from: from}, s == from
	case "query":
		return piece{from: from, name: name}, name != "" && !strings.ContainsAny(name, "{}")
	case "segment":
		n, err := strconv.Atoi(name)
		return piece{from: from, at: n}, err == nil && n >= 1 && n <= 100
	}
	return piece{}, false
}

func (t template) uses(from string) bool {
	for _, p := range t {
		if p.from == from {
			return true
		}
	}
	return false
}

// fill makes the target of a call out of r. ids stand for {ids}. The error is errMissing.
func (t template) fill(r *http.Request, ids string) (*url.URL, error) {
	var b strings.Builder
	for _, p := range t {
		if p.from == "" {
			b.WriteString(p.text)
			continue
		}
		value, err := p.value(r, ids)
		if err != nil {
			return nil, err
		}
		b.WriteString(value)
	}
	u, err := url.ParseRequestURI(b.String())
	if err != nil || climbs(u.Path) {
		return nil, errMissing
	}
	return u, nil
}

// value is what stands in a place, escaped.
func (p *piece) value(r *http.Request, ids string) (string, error) {
	var s string
	switch p.from {
	case "ids":
		s = ids
	case "path":
		if p.inQuery {
			return url.QueryEscape(r.URL.Path), nil
		}
		return strings.TrimPrefix(r.URL.EscapedPath(), "/"), nil
	case "query":
		values, ok := r.URL.Query()[p.name]
		if !ok {
			return "", errMissing
		}
		s = values[0]
	case "segment":
		segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
		if p.at > len(segments) {
			return "", errMissing
		}
		var err error
		if s, err = url.PathUnescape(segments[p.at-1]); err != nil {
			return "", errMissing
		}
	}
	if p.inQuery {
		return url.QueryEscape(s), nil
	}
	if s == "" || s == "." || s == ".." {
		return "", errMissing
	}
	return url.PathEscape(s), nil
}
