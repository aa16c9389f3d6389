package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// outcome is what came of one call.
type outcome struct {
	status int   // of HTTP; 0 = no answer
	code   int   // of gRPC; -1 = none
	bytes  int64 // of the answer's body
	err    error // why there is no whole answer
}

// failed tells whether a user would have been disappointed.
func (o outcome) failed() bool {
	return o.err != nil || o.status == 0 || o.status >= 400 || o.code > 0
}

// exchange reads the body to its end: only then is the answer there, and only then can its connection be used again.
// It goes to the transport directly, so that a redirect is an answer and not a second call.
func exchange(transport http.RoundTripper, request *http.Request, grpc bool) outcome {
	response, err := transport.RoundTrip(request)
	if err != nil {
		return outcome{code: -1, err: err}
	}
	if grpc {
		return unary(response)
	}
	n, err := io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return outcome{code: -1, bytes: n, err: err}
	}
	return outcome{status: response.StatusCode, code: -1, bytes: n}
}

// fault is why a call got no whole answer, as one of few kinds, so that no target can make them grow.
type fault uint8

const (
	faultTimeout fault = iota
	faultRefused
	faultReset
	faultClosed
	faultDNS
	faultTLS
	faultConnect
	faultFiles
	faultProtocol
	faultRequest
	faultOther
	faults
)

var faultNames = [faults]string{
	"timeout", "connection refused", "connection reset", "connection closed", "name not found", "TLS", "cannot connect",
	"too many open files", "protocol", "request not made", "other",
}

// errRequest says that a call could not be made, by its template or its URL.
var errRequest = errors.New("load: request not made")

// faultOf finds the kind of err.
func faultOf(err error) fault {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errRequest):
		return faultRequest
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout && timeout.Timeout():
		return faultTimeout
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return faultFiles
	case errors.As(err, &dns):
		return faultDNS
	case errors.Is(err, syscall.ECONNREFUSED):
		return faultRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return faultReset
	case errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &record), errors.As(err, &alert):
		return faultTLS
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return faultClosed
	case errors.As(err, &op) && op.Op == "dial":
		return faultConnect
	case errors.Is(err, errFraming), strings.Contains(err.Error(), "http2"), strings.Contains(err.Error(), "stream error"), strings.Contains(err.Error(), "malformed HTTP"):
		return faultProtocol
	}
	return faultOther
}

// codeName is the name under which an answer is counted: 503, or UNAVAILABLE.
func codeName(slot int) string {
	if slot >= statusSlots {
		return grpcNames[slot-statusSlots]
	}
	return strconv.Itoa(slot)
}

// statusSlots and codeSlots lay out the counters of answers: the statuses of HTTP, then the codes of gRPC.
const (
	statusSlots = 600
	codeSlots   = statusSlots + len(grpcNames)
)

// slot is where an answer is counted; -1 = there is none.
func (o outcome) slot() int {
	switch {
	case o.code >= 0:
		return statusSlots + min(o.code, len(grpcNames)-1)
	case o.status > 0 && o.status < statusSlots:
		return o.status
	}
	return -1
}
