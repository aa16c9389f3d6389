package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/call"
)

// The status codes of gRPC that the gateway says or understands.
const (
	grpcOK                = 0
	grpcCanceled          = 1
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcDataLoss          = 15
)

// The fields of gRPC over HTTP/2, as net/http spells them.
const (
	grpcStatusField   = "Grpc-Status"
	grpcMessageField  = "Grpc-Message"
	grpcTimeoutField  = "Grpc-Timeout"
	grpcPushbackField = "Grpc-Retry-Pushback-Ms"
)

// isGRPC reports whether a content type is application/grpc, or that with a message format (+proto) or parameters.
// gRPC-Web is another protocol, whose trailers are part of the body: it passes like any HTTP.
func isGRPC(h http.Header) bool {
	const prefix = "application/grpc"
	v := h["Content-Type"]
	if len(v) == 0 || len(v[0]) < len(prefix) || !strings.EqualFold(v[0][:len(prefix)], prefix) {
		return false
	}
	return len(v[0]) == len(prefix) || v[0][len(prefix)] == '+' || v[0][len(prefix)] == ';'
}

// grpcOutcome is how an attempt ended according to the status in h, the head of an answer without messages or the
// trailers of any other. ok is false when there is none. The classes are those of package grpcpolicy.
func grpcOutcome(h http.Header) (out call.Outcome, ok bool) {
	v := h[grpcStatusField]
	if len(v) == 0 {
		return out, false
	}
	code, err := strconv.ParseUint(v[0], 10, 31)
	if err != nil {
		code = grpcUnknown
	}
	if code == grpcOK {
		return out, true
	}
	out.Pushback = grpcPushback(h)
	switch code {
	case grpcCanceled:
		out.Class = call.Canceled
	case grpcDeadlineExceeded:
		out.Class = call.Timeout
	case grpcUnavailable, grpcUnknown, grpcInternal, grpcDataLoss:
		out.Class = call.Server
	case grpcResourceExhausted:
		if out.Class = call.Client; out.Pushback != 0 {
			out.Class = call.Server
		}
	default:
		out.Class = call.Client
	}
	return out, true
}

// grpcPushback reads grpc-retry-pushback-ms (gRPC proposal A6): 0 = not said, negative = never, which is also what a value
// that cannot be read means.
func grpcPushback(h http.Header) time.Duration {
	v := h[grpcPushbackField]
	if len(v) == 0 {
		return 0
	}
	ms, err := strconv.ParseInt(v[0], 10, 32)
	switch {
	case err != nil || ms < 0:
		return -1
	case ms == 0:
		return 1 // at once, but said
	}
	return time.Duration(ms) * time.Millisecond
}

// setGRPCTimeout says in h how much is left until deadline at now, in at most eight digits; the zero deadline leaves h as
// it is, because no deadline of ours is shorter than the client's.
func setGRPCTimeout(h http.Header, now, deadline time.Time) {
	if deadline.IsZero() {
		return
	}
	h[grpcTimeoutField] = []string{grpcTimeout(deadline.Sub(now))}
}

func grpcTimeout(left time.Duration) string {
	const most = 99_999_999
	for _, u := range [...]struct {
		size time.Duration
		name byte
	}{{time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}} {
		if n := max(1, left/u.size); n <= most {
			return string(append(strconv.AppendInt(nil, int64(n), 10), u.name))
		}
	}
	return strconv.Itoa(most) + "S"
}

// grpcCode is what a refusal of ours is to a gRPC client.
func grpcCode(status int) int {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return grpcResourceExhausted
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return grpcDeadlineExceeded
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return grpcUnavailable
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return grpcUnimplemented
	case http.StatusForbidden:
		return grpcPermissionDenied
	}
	return grpcInternal
}

// refuseGRPC writes f as trailers only: the status stands in the head, which ends the stream.
func refuseGRPC(w http.ResponseWriter, f refusal) {
	h := w.Header()
	h["Content-Type"] = []string{"application/grpc"}
	h["X-Longpole-Error"] = []string{f.reason}
	if len(h[grpcStatusField]) == 0 {
		h[grpcStatusField] = []string{strconv.Itoa(grpcCode(f.status))}
	}
	h[grpcMessageField] = []string{grpcText("longpole: " + f.reason + ": " + f.message)}
	if f.retryAfter > 0 {
		h[grpcPushbackField] = []string{strconv.FormatInt(f.retryAfter.Milliseconds(), 10)}
	}
	w.WriteHeader(http.StatusOK)
}

// grpcText escapes what a grpc-message may not hold.
func grpcText(s string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// brokenGRPC is the status with which a stream ends for the client when the upstream broke it off with err, by the table
// of the gRPC protocol for the error codes of HTTP/2.
func brokenGRPC(err error, class call.Class) (code int, message string) {
	if class == call.Timeout {
		return grpcDeadlineExceeded, "longpole: the time for the call is over"
	}
	reset, ok := resetCode(err)
	if !ok {
		return grpcUnavailable, "longpole: the upstream broke off"
	}
	switch reset {
	case resetRefused:
		code = grpcUnavailable
	case resetCancel:
		code = grpcCanceled
	case resetCalm:
		code = grpcResourceExhausted
	case resetSecurity:
		code = grpcPermissionDenied
	default:
		code = grpcInternal
	}
	return code, "longpole: the upstream reset the stream with HTTP/2 error code " + strconv.FormatUint(uint64(reset), 10)
}

// The error codes of HTTP/2 that mean something of their own here (RFC 9113 section 7).
const (
	resetRefused  = 0x7
	resetCancel   = 0x8
	resetCalm     = 0xb
	resetSecurity = 0xc
)

// StreamError has the fields of the error that net/http returns for a stream that was reset; errors.As fills it in.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error makes it an error.
func (e streamError) Error() string { return "gateway: stream reset" }

// resetCode finds the code with which the other side reset an HTTP/2 stream.
func resetCode(err error) (uint32, bool) {
	if e, ok := errors.AsType[streamError](err); ok {
		return e.Code, true
	}
	return 0, false
}
