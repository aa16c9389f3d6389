package grpcpolicy

import (
	"strconv"
	"time"

	"github.com/longpole/longpole/call"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The metadata of gRPC's retry design (proposal A6).
const (
	metaPushback = "grpc-retry-pushback-ms"
	metaPrevious = "grpc-previous-rpc-attempts"
)

// judge is the outcome of an attempt that ended in err and trailer.
func judge(err error, trailer metadata.MD) call.Outcome {
	out := call.Outcome{Pushback: pushback(trailer)}
	switch status.Code(err) {
	case codes.OK:
		return call.Outcome{Class: call.OK}
	case codes.Canceled:
		out.Class = call.Canceled
	case codes.DeadlineExceeded:
		out.Class = call.Timeout
	case codes.Unavailable, codes.Unknown, codes.Internal, codes.DataLoss:
		out.Class = call.Server
	case codes.ResourceExhausted:
		if out.Class = call.Client; out.Pushback != 0 {
			out.Class = call.Server
		}
	default:
		out.Class = call.Client
	}
	return out
}

// pushback reads grpc-retry-pushback-ms: 0 = not said, negative = never, which is also what an unreadable value means.
func pushback(md metadata.MD) time.Duration {
	v := md.Get(metaPushback)
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
