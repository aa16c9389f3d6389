package ingest

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxText   = 4 << 10 // bytes kept of a string
	maxNumber = 1 << 10 // bytes of a number
	maxDepth  = 128     // nesting of JSON values and of attribute values
)

// errCut is the end of the input inside a value.
var errCut = errors.New("the input ends inside a value: it is cut")

// A syntaxError is input that is not the JSON that was expected.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// A scanner pulls JSON tokens out of a stream. It holds one buffer and never a whole
// value, so its memory does not depend on the input; encoding/json would read a
// whole value before it looks at it. The first fault sticks: from then on every
// method returns zero values, so callers check err once at the end.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int
	base     int64 // offset in the stream of buf[0]
	line     int   // counts from 1
	lines    bool  // every value stands on a line of its own
	depth    int
	fresh    bool // the last token opened an array or object
	scratch  []byte
	cutTexts int // strings longer than maxText
	err      error
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: r, buf: make([]byte, 64<<10), line: 1}
}

// offset is the position of the next byte in the stream.
func (s *scanner) offset() int64 { return s.base + int64(s.pos) }

// fill reads more input once the buffer is used up.
func (s *scanner) fill() bool {
	if s.err != nil {
		return false
	}
	s.base += int64(s.end)
	s.pos, s.end = 0, 0
	for range 100 {
		n, err := s.r.Read(s.buf)
		if n > 0 {
			s.end = n
			return true
		}
		if err != nil {
			s.err = err
			return false
		}
	}
	s.err = io.ErrNoProgress
	return false
}

// fault notes that something else was expected than what comes next.
func (s *scanner) fault(want string) {
	if s.err != nil {
		if errors.Is(s.err, io.EOF) {
			s.err = errCut
		}
		return
	}
	if s.pos < s.end {
		s.err = syntaxError(fmt.Sprintf("want %s, found %q", want, rune(s.buf[s.pos])))
		return
	}
	s.err = syntaxError("want " + want)
}

// token skips blanks and returns the next byte without taking it; 0 at the end.
func (s *scanner) token() byte {
	for s.err == nil {
		for s.pos < s.end {
			switch c := s.buf[s.pos]; c {
			case '\n':
				if s.lines && s.depth > 0 {
					s.err = syntaxError("the line ends inside a value")
					return 0
				}
				s.line++
				s.pos++
			case ' ', '\t', '\r':
				s.pos++
			case 0:
				s.err = syntaxError("a zero byte is not allowed")
				return 0
			default:
				return c
			}
		}
		if !s.fill() {
			break
		}
	}
	return 0
}

// open takes the bracket c that starts an array or object.
func (s *scanner) open(c byte) bool {
	if s.token() != c {
		s.fault(map[byte]string{'{': "an object", '[': "an array"}[c])
		return false
	}
	if s.depth++; s.depth > maxDepth {
		s.err = syntaxError(fmt.Sprintf("values are nested deeper than %d", maxDepth))
		return false
	}
	s.pos++
	s.fresh = true
	return true
}

// next steps to the next element of an array or member of an object that ends with
// closing. It returns false after taking that bracket, or at a fault.
func (s *scanner) next(closing byte) bool {
	c := s.token()
	if c == closing {
		s.pos++
		s.depth--
		s.fresh = false
		return false
	}
	if !s.fresh {
		if c != ',' {
			s.fault("',' or '" + string(rune(closing)) + "'")
			return false
		}
		s.pos++
		if c = s.token(); c == closing {
			s.fault("a value after ','")
			return false
		}
	}
	s.fresh = false
	if c == 0 {
		s.fault("a value")
	}
	return s.err == nil
}

// key takes a member's name and the colon after it. The bytes last until the next call.
func (s *scanner) key() []byte {
	k := s.text()
	if s.pos < s.end && s.buf[s.pos] == ':' {
		s.pos++ // the colon follows at once nearly always; k may lie in buf and stays whole
		return k
	}
	s.scratch = append(s.scratch[:0], k...)
	if s.token() != ':' {
		s.fault("':' after a name")
		return nil
	}
	s.pos++
	return s.scratch
}

// text takes a string, of which it keeps maxText bytes. The bytes last until the next call.
func (s *scanner) text() []byte {
	if s.token() != '"' {
		s.fault("a string")
		return nil
	}
	s.pos++
	for i := s.pos; i < s.end; i++ {
		c := s.buf[i]
		if c == '"' {
			t := s.buf[s.pos:i]
			s.pos = i + 1
			return s.shorten(t)
		}
		if c == '\\' || c < ' ' {
			break
		}
	}
	return s.longText()
}

// longText is text for strings with escapes, or beyond the end of the buffer.
func (s *scanner) longText() []byte {
	t := s.scratch[:0]
	for {
		if s.pos == s.end && !s.fill() {
			s.fault("a string")
			return nil
		}
		c := s.buf[s.pos]
		switch {
		case c == '"':
			s.pos++
			s.scratch = t
			return s.shorten(t)
		case c < ' ':
			s.fault("the end of a string")
			return nil
		case c == '\\':
			s.pos++
			t = s.escape(t)
			if s.err != nil {
				return nil
			}
		default:
			t = append(t, c)
			s.pos++
		}
		if len(t) > 2*maxText {
			t = t[:maxText+utf8.UTFMax] // still too long, so that shorten sees it
		}
	}
}

// shorten cuts t to maxText bytes without breaking a rune.
func (s *scanner) shorten(t []byte) []byte {
	if len(t) <= maxText {
		return t
	}
	s.cutTexts++
	return shortened(t)
}

// shortened is the start of t, at most maxText bytes and whole runes.
func shortened(t []byte) []byte {
	if len(t) <= maxText {
		return t
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(t[n]) {
		n--
	}
	return t[:n]
}

// escape takes what follows a backslash and appends what it stands for.
func (s *scanner) escape(t []byte) []byte {
	c := s.take()
	switch c {
	case '"', '\\', '/':
		return append(t, c)
	case 'b':
		return append(t, '\b')
	case 'f':
		return append(t, '\f')
	case 'n':
		return append(t, '\n')
	case 'r':
		return append(t, '\r')
	case 't':
		return append(t, '\t')
	case 'u':
		r := s.hex4()
		for utf16.IsSurrogate(r) {
			if s.peek() != '\\' {
				return utf8.AppendRune(t, utf8.RuneError)
			}
			s.pos++
			if s.peek() != 'u' {
				return s.escape(utf8.AppendRune(t, utf8.RuneError))
			}
			s.pos++
			low := s.hex4()
			if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
				return utf8.AppendRune(t, both)
			}
			t = utf8.AppendRune(t, utf8.RuneError)
			r = low
			if len(t) > 2*maxText {
				t = t[:maxText+utf8.UTFMax]
			}
		}
		return utf8.AppendRune(t, r)
	}
	if s.err == nil {
		s.err = syntaxError(fmt.Sprintf("want an escape sequence, found %q", "\\"+string(rune(c))))
	}
	return t
}

// peek returns the next byte as it is, blanks included; 0 at the end.
func (s *scanner) peek() byte {
	if s.pos == s.end && !s.fill() {
		s.fault("a string")
		return 0
	}
	return s.buf[s.pos]
}

// take returns the next byte as it is and steps over it.
func (s *scanner) take() byte {
	c := s.peek()
	if s.err == nil {
		s.pos++
	}
	return c
}

func (s *scanner) hex4() rune {
	var r rune
	for range 4 {
		c := s.peek()
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			s.fault("four hex digits after \\u")
			return 0
		}
		s.pos++
		r = r<<4 | rune(c)
	}
	return r
}

// The kinds of value that scalar tells apart.
const (
	isNone   = 0 // null, an array or an object
	isText   = '"'
	isNumber = '0'
	isBool   = 't'
)

// scalar takes any value and returns its text: of a string what stands between the
// quotes, of a number or bool its spelling. An array, object or null gives isNone.
func (s *scanner) scalar() (kind byte, text []byte) {
	switch c := s.token(); {
	case c == '"':
		return isText, s.text()
	case c == '{' || c == '[':
		s.skip()
		return isNone, nil
	case c == '-' || '0' <= c && c <= '9':
		return isNumber, s.word("a number")
	case c == 't' || c == 'f' || c == 'n':
		w := s.word("true, false or null")
		switch string(w) {
		case "true", "false":
			return isBool, w
		case "null":
			return isNone, nil
		}
		if s.err == nil {
			s.err = syntaxError(fmt.Sprintf("want true, false or null, found %q", w))
		}
		return isNone, nil
	}
	s.fault("a value")
	return isNone, nil
}

// word takes the letters, digits and signs of a number or a literal.
func (s *scanner) word(want string) []byte {
	t := s.scratch[:0]
	for {
		if s.pos == s.end && !s.fill() {
			if errors.Is(s.err, io.EOF) {
				s.err = nil // a bare number may end the input
				s.r = eof{}
				break
			}
			return nil
		}
		c := s.buf[s.pos]
		if c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != 'E' {
			break
		}
		if len(t) == maxNumber {
			s.fault(want)
			return nil
		}
		t = append(t, c)
		s.pos++
	}
	s.scratch = t
	return t
}

// eof is an input that has ended.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// skip takes a whole value and drops it. It does not recurse.
func (s *scanner) skip() {
	var closers []byte
	for {
		switch c := s.token(); c {
		case '{', '[':
			if !s.open(c) {
				return
			}
			closers = append(closers, c+2) // in ASCII ']' is '[' + 2 and '}' is '{' + 2
		case '"':
			s.text()
		default:
			s.scalar()
		}
		for len(closers) > 0 && s.err == nil {
			closing := closers[len(closers)-1]
			if s.next(closing) {
				if closing == '}' {
					s.key()
				}
				break
			}
			closers = closers[:len(closers)-1]
		}
		if s.err != nil || len(closers) == 0 {
			return
		}
	}
}

// integer takes a number, or a string that holds one; ok is false for anything else.
// A fraction is cut off.
func (s *scanner) integer() (n int64, ok bool) {
	kind, t := s.scalar()
	if kind != isText && kind != isNumber {
		return 0, false
	}
	n, err := strconv.ParseInt(string(t), 10, 64)
	if err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(t), 64)
	if err != nil || !(f > -1<<63 && f < 1<<63) {
		return 0, false
	}
	return int64(f), true
}

// resync clears a syntax fault and goes on behind the next line break; false when
// there is none or the fault was of another kind.
func (s *scanner) resync() bool {
	if _, ok := errors.AsType[syntaxError](s.err); !ok {
		return false
	}
	s.err, s.depth, s.fresh = nil, 0, false
	for {
		for s.pos < s.end {
			c := s.buf[s.pos]
			s.pos++
			if c == '\n' {
				s.line++
				return true
			}
		}
		if !s.fill() {
			return false
		}
	}
}
