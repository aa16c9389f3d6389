package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// A unary call of gRPC is a POST over HTTP/2 whose bodies are messages with a prefix of five bytes, and whose status is in
// the trailer (gRPC over HTTP2, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). The generator needs no more
// than that, and so it can be built on the same transport as the rest, and measured by the same clock.

// grpcNames are the codes of gRPC by their number. What is not among them counts as UNKNOWN_CODE.
var grpcNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED", "UNKNOWN_CODE",
}

// The standard health check, grpc.health.v1.
const (
	healthPath    = "/grpc.health.v1.Health/Check"
	healthServing = 1
)

// errFraming says that an answer is not what gRPC prescribes.
var errFraming = errors.New("load: not an answer of gRPC")

// maxMessage bounds the answer of a health check, the only message that is kept.
const maxMessage = 4 << 10

// frame puts the prefix before a message that is not compressed.
func frame(message []byte) []byte {
	framed := make([]byte, 5+len(message))
	binary.BigEndian.PutUint32(framed[1:], uint32(len(message)))
	copy(framed[5:], message)
	return framed
}

// healthRequest encodes HealthCheckRequest{service: name}.
func healthRequest(name string) []byte {
	if name == "" {
		return nil
	}
	return append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(name))), name...)
}

// unary reads the answer to a unary call.
func unary(response *http.Response) outcome {
	health := response.Request != nil && response.Request.URL.Path == healthPath
	n, serving, err := message(response.Body, health)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return outcome{code: -1, bytes: n, err: err}
	}
	status := response.Trailer.Get("Grpc-Status")
	if status == "" {
		status = response.Header.Get("Grpc-Status") // an answer of trailers only
	}
	code, err := strconv.Atoi(status)
	switch {
	case status == "" && response.StatusCode != http.StatusOK:
		return outcome{status: response.StatusCode, code: -1, bytes: n} // of something before the server
	case err != nil || code < 0:
		return outcome{code: -1, bytes: n, err: fmt.Errorf("%w: grpc-status is %q", errFraming, status)}
	case code == 0 && n == 0:
		return outcome{code: -1, err: fmt.Errorf("%w: OK without a message", errFraming)}
	case code == 0 && health && !serving:
		code = 14 // UNAVAILABLE is what a caller of it would get
	}
	return outcome{status: response.StatusCode, code: code, bytes: n}
}

// message reads one message, or none, and the end of the body. Of a health check it also tells whether it says SERVING.
func message(body io.Reader, health bool) (n int64, serving bool, err error) {
	var prefix [5]byte
	switch k, err := io.ReadFull(body, prefix[:]); {
	case errors.Is(err, io.EOF):
		return 0, false, nil
	case err != nil:
		return int64(k), false, err
	}
	size := int64(binary.BigEndian.Uint32(prefix[1:]))
	var kept bytes.Buffer
	into := io.Discard
	if health && size <= maxMessage {
		into = &kept
	}
	got, err := io.Copy(into, io.LimitReader(body, size))
	n = int64(len(prefix)) + got
	if err != nil {
		return n, false, err
	}
	if got < size {
		return n, false, io.ErrUnexpectedEOF
	}
	more, err := io.Copy(io.Discard, body)
	if err == nil && more > 0 {
		err = fmt.Errorf("%w: more than one message", errFraming)
	}
	return n + more, servingIn(kept.Bytes()), err
}

// servingIn reads field 1, a varint, of a HealthCheckResponse; others are skipped by stopping at them.
func servingIn(message []byte) bool {
	if len(message) < 2 || message[0] != 1<<3 {
		return false
	}
	v, k := binary.Uvarint(message[1:])
	return k > 0 && v == healthServing
}
