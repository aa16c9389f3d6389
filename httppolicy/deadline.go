package httppolicy

import (
	"net/http"
	"strconv"
	"time"
)

// The headers that say how much time is left for a request.
const (
	HeaderTimeout      = "X-Request-Timeout-Ms"           // ours: whole milliseconds
	headerGRPCTimeout  = "Grpc-Timeout"                   // gRPC over HTTP/2
	headerEnvoyTimeout = "X-Envoy-Expected-Rq-Timeout-Ms" // Envoy, to its upstreams
)

// maxTimeout is taken for every longer one: more than a day is no deadline, and must not overflow.
const maxTimeout = 24 * time.Hour

// Remaining reads how much time the sender of h leaves; the shortest of the known headers holds. What cannot be read is
// no deadline. ok is false without any; 0 means that the time is over.
func Remaining(h http.Header) (left time.Duration, ok bool) {
	take := func(d time.Duration, valid bool) {
		if valid && (!ok || d < left) {
			left, ok = d, true
		}
	}
	if v := h[HeaderTimeout]; len(v) > 0 {
		take(count(v[0], time.Millisecond))
	}
	if v := h[headerEnvoyTimeout]; len(v) > 0 {
		take(count(v[0], time.Millisecond))
	}
	if v := h[headerGRPCTimeout]; len(v) > 0 {
		take(grpcTimeout(v[0]))
	}
	return left, ok
}

// SetRemaining writes what is left until deadline at now in place of what h says; the zero deadline removes it. Less
// than a millisecond is written as one, for 0 would mean a time that is over.
func SetRemaining(h http.Header, now, deadline time.Time) {
	if deadline.IsZero() {
		h.Del(HeaderTimeout)
		return
	}
	h[HeaderTimeout] = []string{strconv.FormatInt(max(1, deadline.Sub(now).Milliseconds()), 10)}
}

// count reads a number of units without sign.
func count(s string, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, false
	}
	if n > uint64(maxTimeout/unit) {
		return maxTimeout, true
	}
	return time.Duration(n) * unit, true
}

var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// grpcTimeout reads TimeoutValue TimeoutUnit: 1..8 digits and a letter.
func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	unit, ok := grpcUnits[s[len(s)-1]]
	if !ok {
		return 0, false
	}
	return count(s[:len(s)-1], unit)
}
