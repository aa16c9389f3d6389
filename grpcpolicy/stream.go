package grpcpolicy

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// StreamClient opens streams under p: deadline, permit, endpoint and breaker hold, and learn from the first message.
// Nothing is repeated. p's Timeout covers the whole stream: leave it out of a policy for streams that stay open.
func StreamClient(p *longpole.Policy, o ClientOptions) grpc.StreamClientInterceptor {
	if o.Info == nil {
		o.Info = Info
	}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		var rec *call.Record
		if o.Observe != nil {
			rec = new(call.Record)
		}
		b, err := longpole.Begin(ctx, p, o.Info(ctx, method), rec)
		if err != nil {
			observe(&o, rec)
			return nil, statusOf(err)
		}
		s := &clientStream{o: &o, desc: desc, call: b, rec: rec}
		cc, err = conn(&o, cc, b.Attempt().Endpoint)
		if err == nil {
			s.ClientStream, err = open(b.Context(), desc, cc, method, opts...)
		}
		if err != nil {
			s.finish(err)
			return nil, err
		}
		s.watch()
		return s, nil
	}
}

func observe(o *ClientOptions, rec *call.Record) {
	if rec != nil {
		o.Observe(rec)
	}
}

// clientStream tells the policy how its stream goes.
type clientStream struct {
	grpc.ClientStream
	o      *ClientOptions
	desc   *grpc.StreamDesc
	call   *longpole.Begun
	rec    *call.Record
	mu     sync.Mutex // guards detach
	detach func() bool
	once   sync.Once
}

// watch ends the call of a caller that leaves without reading to the end: its context must be done then, or grpc-go
// itself would leak the stream.
func (s *clientStream) watch() {
	ctx := s.call.Context()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach = context.AfterFunc(ctx, func() {
		class := call.Canceled
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			class = call.Timeout
		}
		s.end(call.Outcome{Class: class})
	})
}

// SendMsg sends; io.EOF means that RecvMsg knows why the stream ended.
func (s *clientStream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		s.finish(err)
	}
	return err
}

// RecvMsg receives; the first message is the head of the answer.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil:
		s.finish(err)
	case !s.desc.ServerStreams:
		s.finish(io.EOF)
	default:
		s.call.Head(call.Outcome{Class: call.OK})
	}
	return err
}

// Header waits for the metadata that comes before the first message.
func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err != nil {
		s.finish(err)
	}
	return md, err
}

// finish ends the call with the error that ended the stream; io.EOF is its good end.
func (s *clientStream) finish(err error) {
	if errors.Is(err, io.EOF) {
		s.end(call.Outcome{Class: call.OK})
		return
	}
	var trailer metadata.MD
	if s.ClientStream != nil {
		trailer = s.Trailer()
	}
	s.end(judge(err, trailer))
}

func (s *clientStream) end(out call.Outcome) {
	s.once.Do(func() {
		s.call.Head(out)
		s.mu.Lock()
		detach := s.detach
		s.mu.Unlock()
		if detach != nil {
			detach()
		}
		s.call.Close()
		observe(s.o, s.rec)
	})
}
