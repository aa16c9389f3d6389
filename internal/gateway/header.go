package gateway

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// hopByHop are the fields that belong to one connection (RFC 9110 section 7.6.1), whatever Connection names.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// stripHopByHop removes from h what must not pass the gateway.
func stripHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// hasToken reports whether a comma-separated field names token.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(part), token) {
				return true
			}
		}
	}
	return false
}

// ours reports whether only a proxy may set a field. Some servers take _ for -, so both spellings are caught.
func ours(name string) bool {
	if c := name[0] | 0x20; c != 'x' && c != 'f' && c != 'p' {
		return false
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return strings.HasPrefix(name, "x-forwarded-") || slices.Contains([]string{"forwarded", "x-real-ip", "proxy", "x-client-identity"}, name)
}

// forwardHeader is the header of r, that came from p, as every attempt sends it, less what names the attempt.
func forwardHeader(r *http.Request, p *peer) http.Header {
	// Room for ours too; the values are shared with r, for nobody writes to them.
	h := make(http.Header, len(r.Header)+added)
	for name, values := range r.Header {
		if name != "" && !ours(name) && !slices.Contains(hopByHop, name) {
			h[name] = values
		}
	}
	for _, line := range r.Header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	if hasToken(r.Header["Te"], "trailers") {
		h["Te"] = []string{"trailers"}
	}
	if _, waits := h["Expect"]; waits && !expects(r) {
		delete(h, "Expect")
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = silent // or the transport would put its own there
	}
	p.forwarded(h, r)
	certified(h, r)
	if upgrades(r) {
		upgradeHeader(h, r)
	}
	if before := h["Via"]; len(before) > 0 {
		h["Via"] = append(slices.Clone(before), via(r.ProtoMajor, r.ProtoMinor))
	} else {
		h["Via"] = onlyVia(r.ProtoMajor, r.ProtoMinor)
	}
	return h
}

// added is how many fields the gateway adds to a call at most, as a rule: three of X-Forwarded, Via, User-Agent, and those
// of the attempt, which are the trace and the deadline.
const added = 8

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

const pseudonym = "longpole"

// Values that many calls share. They have no room left, so that who appends to one gets a copy.
var (
	silent = []string{""}
	via2   = []string{via(2, 0)}
	via11  = []string{via(1, 1)}
	via10  = []string{via(1, 0)}
)

func onlyVia(major, minor int) []string {
	switch {
	case major == 2:
		return via2
	case minor == 0:
		return via10
	}
	return via11
}

func via(major, minor int) string {
	switch {
	case major == 2:
		return "2 " + pseudonym
	case minor == 0:
		return "1.0 " + pseudonym
	}
	return "1.1 " + pseudonym
}

// maxHops is how often a call may pass gateways like this one before it is taken to go in a circle.
const maxHops = 10

func looping(r *http.Request) bool {
	n := 0
	for _, line := range r.Header["Via"] {
		n += strings.Count(line, " "+pseudonym)
	}
	return n >= maxHops
}
