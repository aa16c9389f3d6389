package routing

import (
	"errors"
	"strconv"
	"strings"
)

// tail is what may follow the segments of a shape.
type tail uint8

const (
	ends      tail = iota // nothing
	opens                 // nothing, or more segments
	continues             // more segments: one at least, maybe empty
)

// segment is one of a shape: a text in canonical form, or any text that is not empty.
type segment struct {
	text string
	wild bool
}

// shape is which paths are taken. It is immutable.
type shape struct {
	segments []segment
	tail     tail
	names    []string // of the captures: the wild segments and, with rest, what follows them
	rest     bool
}

var (
	errPath    = errors.New("a path that starts with /, with {name} for a segment and {name...} for the rest")
	errCapture = errors.New("captures that are whole segments, with names of letters, digits and _, each once; up to 16")
	errRest    = errors.New("{name...} only at the end")
)

// parsePattern reads a pattern. The error says what would be accepted.
func parsePattern(text string) (shape, error) {
	var s shape
	if text == "" || !pathOK(text) {
		return s, errPath
	}
	rest, more := text[1:], true
	for more {
		var part string
		part, rest, more = cutSegment(rest)
		name, isCapture := strings.CutPrefix(part, "{")
		if !isCapture {
			if strings.ContainsAny(part, "{}") {
				return s, errCapture
			}
			s.segments = append(s.segments, segment{text: Canonical(part)})
			continue
		}
		name, isCapture = strings.CutSuffix(name, "}")
		name, isRest := strings.CutSuffix(name, "...")
		if !isCapture || !identifier(name) || contains(s.names, name) || len(s.names) == maxCaptures {
			return s, errCapture
		}
		s.names = append(s.names, name)
		switch {
		case isRest && more:
			return s, errRest
		case isRest:
			s.tail, s.rest = continues, true
		default:
			s.segments = append(s.segments, segment{wild: true})
		}
	}
	return s, nil
}

func identifier(name string) bool {
	for i, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && (i <= 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func contains(names []string, name string) bool { return position(names, name) >= 0 }

func position(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}

func exactShape(path string) shape {
	var s shape
	for part := range strings.SplitSeq(path[1:], "/") {
		s.segments = append(s.segments, segment{text: Canonical(part)})
	}
	return s
}

func prefixShape(path string) shape {
	s := exactShape(path)
	s.tail = opens
	if last := len(s.segments) - 1; s.segments[last].text == "" {
		s.segments, s.tail = s.segments[:last], continues
	}
	return s
}

// takes reports whether a canonical path has the shape.
func (s *shape) takes(path string) bool {
	rest, more := path[1:], true
	for _, want := range s.segments {
		if !more {
			return false
		}
		var got string
		if got, rest, more = cutSegment(rest); want.wild && got == "" || !want.wild && got != want.text {
			return false
		}
	}
	return s.tail == opens || more == (s.tail == continues)
}

// captures are the values of the names in a path that has the shape.
func (s *shape) captures(path string) []string {
	if len(s.names) == 0 {
		return nil
	}
	values := make([]string, 0, len(s.names))
	rest := path[1:]
	for _, want := range s.segments {
		var got string
		if got, rest, _ = cutSegment(rest); want.wild {
			values = append(values, got)
		}
	}
	if s.rest {
		values = append(values, rest)
	}
	return values
}

// covers reports whether every path of o has the shape s.
func (s *shape) covers(o shape) bool {
	if len(o.segments) < len(s.segments) {
		return false
	}
	for i, ours := range s.segments {
		theirs := o.segments[i]
		switch {
		case ours.wild && !theirs.wild && theirs.text == "":
			return false
		case !ours.wild && (theirs.wild || theirs.text != ours.text):
			return false
		}
	}
	switch s.tail {
	case opens:
		return true
	case continues:
		return len(o.segments) > len(s.segments) || o.tail == continues
	}
	return len(o.segments) == len(s.segments) && o.tail == ends
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
