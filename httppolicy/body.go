package httppolicy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// errSpent says that a body which is not kept has been read by an earlier attempt.
var errSpent = errors.New("httppolicy: the request body is spent")

// body is that of a caller's request: none, made anew for each attempt, kept, or streamed to a single one.
type body struct {
	in      io.ReadCloser // nil = none
	make    func() (io.ReadCloser, error)
	keep    int64 // bytes to keep; 0 = streamed
	once    sync.Once
	read    chan struct{} // closed when kept and err are there
	kept    []byte
	err     atomic.Pointer[error] // of the caller's reader
	touched atomic.Bool
	end     sync.Once
}

func (b *body) init(r *http.Request, bound int64) {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return
	case r.GetBody != nil:
		b.make = r.GetBody
	case r.ContentLength > 0 && r.ContentLength <= bound:
		b.keep = r.ContentLength
		b.read = make(chan struct{})
	}
	b.in = r.Body
}

// replayable reports whether a second attempt can send the body too.
func (b *body) replayable() bool { return b.in == nil || b.make != nil || b.keep > 0 }

// open gives the body to an attempt.
func (b *body) open(ctx context.Context) (io.ReadCloser, error) {
	switch {
	case b.in == nil:
		return http.NoBody, nil
	case b.make != nil:
		return b.make()
	case b.keep > 0:
		return b.wait(ctx)
	case b.touched.Load():
		return nil, errSpent
	}
	return stream{b}, nil
}

// again is GetBody of an attempt, with which net/http repeats it on a new connection when the old one was dead.
func (b *body) again() func() (io.ReadCloser, error) {
	switch {
	case b.make != nil:
		return b.make
	case b.keep > 0:
		return func() (io.ReadCloser, error) { return b.wait(context.Background()) }
	}
	return nil
}

// wait reads the body in a goroutine of its own, for the reader may not know of any deadline.
func (b *body) wait(ctx context.Context) (io.ReadCloser, error) {
	b.once.Do(func() {
		go func() {
			defer close(b.read)
			kept := make([]byte, b.keep)
			if _, err := io.ReadFull(b.in, kept); err != nil {
				b.fail(err)
				return
			}
			b.kept = kept
			b.close()
		}()
	})
	select {
	case <-b.read:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := b.fault(); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b.kept)), nil
}

func (b *body) fail(err error) { b.err.Store(&err) }

// fault is the error of the caller's reader; nil when there is none.
func (b *body) fault() error {
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}

// close closes the caller's body once.
func (b *body) close() {
	if b.in != nil {
		b.end.Do(func() { _ = b.in.Close() })
	}
}

// stream is the body of the single attempt that may read it. As long as nothing was read another attempt may.
type stream struct{ b *body }

// Read reads the caller's body.
func (s stream) Read(p []byte) (int, error) {
	s.b.touched.Store(true)
	n, err := s.b.in.Read(p)
	if err != nil && err != io.EOF {
		s.b.fail(err)
	}
	return n, err
}

// Close leaves a body that nobody read open for the next attempt.
func (s stream) Close() error {
	if s.b.touched.Load() {
		s.b.close()
	}
	return nil
}
