package payload

import "strings"

// Coding is a content coding of HTTP (RFC 9110 section 8.4.1).
type Coding string

// The codings that we have.
const (
	Identity Coding = ""     // as it is
	Zstd     Coding = "zstd" // RFC 8878, with the window of RFC 9659
	Brotli   Coding = "br"   // RFC 7932
	Gzip     Coding = "gzip" // RFC 1952
)

// maxCodings bounds what is read of one request's Accept-Encoding; what follows is as good as absent.
const maxCodings = 32

// Accept is what a client said in Accept-Encoding: a weight of 0..1000 for each coding that it named. It is a small
// value without pointers; the zero value is that of a client that takes identity alone.
type Accept struct {
	zstd, br, gzip, identity, any weight
}

// weight is in thousandths, plus 1; 0 = not named.
type weight uint16

// ParseAccept reads the lines of Accept-Encoding. A member that cannot be read is left out, so that a broken field
// never makes us send what the client may not understand. Of a coding named twice the first counts. It does not allocate.
func ParseAccept(lines []string) Accept {
	var a Accept
	n := 0
	for _, line := range lines {
		for line != "" && n < maxCodings {
			var member string
			member, line, _ = strings.Cut(line, ",")
			if member = trim(member); member != "" {
				a.add(member)
				n++
			}
		}
	}
	return a
}

func (a *Accept) add(member string) {
	name, rest, weighted := strings.Cut(member, ";")
	q := weight(1001)
	if weighted {
		var ok bool
		if q, ok = parseWeight(rest); !ok {
			return
		}
	}
	if at := a.of(trim(name)); at != nil && *at == 0 {
		*at = q
	}
}

func (a *Accept) of(name string) *weight {
	switch {
	case name == "*":
		return &a.any
	case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"): // RFC 9110 section 8.4.1.3
		return &a.gzip
	case strings.EqualFold(name, "br"):
		return &a.br
	case strings.EqualFold(name, "zstd"):
		return &a.zstd
	case strings.EqualFold(name, "identity"):
		return &a.identity
	}
	return nil
}

// parseWeight reads q=0.5 (RFC 9110 section 12.4.2).
func parseWeight(s string) (weight, bool) {
	s = trim(s)
	if len(s) < 3 || s[0]|0x20 != 'q' || s[1] != '=' {
		return 0, false
	}
	s = s[2:]
	whole := s[0]
	if whole != '0' && whole != '1' || len(s) > 5 || len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	n, unit := 0, 100
	for i := 2; i < len(s); i, unit = i+1, unit/10 {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n += int(s[i]-'0') * unit
	}
	if whole == '1' {
		n += 1000
	}
	return weight(n + 1), n <= 1000
}

func trim(s string) string { return strings.Trim(s, " \t") }

// Choose is the coding of ours that the client likes best; among equals the first of ours. Identity when there is none
// that it takes, or when it would rather have identity: one that is named nowhere has the lowest weight above 0.
func (a Accept) Choose(ours []Coding) Coding {
	best, bar := Identity, a.floor()
	for _, c := range ours {
		if w := a.weight(c); w > 1 && w > bar {
			best, bar = c, w
		}
	}
	return best
}

// floor is the weight that a coding must exceed: that of identity, if it was named, less a bit, because a coding of the
// same weight is better than none.
func (a Accept) floor() weight {
	if a.identity > 1 {
		return a.identity - 1
	}
	return 0
}

func (a Accept) weight(c Coding) weight {
	var w weight
	switch c {
	case Zstd:
		w = a.zstd
	case Brotli:
		w = a.br
	case Gzip:
		w = a.gzip
	default:
		return 0
	}
	if w == 0 {
		return a.any
	}
	return w
}
