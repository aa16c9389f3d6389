package payload

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// window is how far encoders look back. It bounds the memory of an encoder, and of the client that decodes; RFC 9659
// allows 8 MiB for zstd.
const (
	windowBits = 18
	window     = 1 << windowBits
)

// kept is how many idle encoders of one coding a pool keeps. One that is made anew costs some 100 µs.
const kept = 16

// flusher is what all encoders can do.
type flusher interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// pool lends encoders, a bounded number at once, and keeps idle ones. It is safe for concurrent use.
type pool struct {
	level   Level
	limit   int64
	running atomic.Int64
	idle    [3]chan flusher // by slot
	encoded, refused,
	in, out atomic.Uint64
}

// Counters are what a pool of encoders did since it was made.
type Counters struct {
	Encoded  uint64 `json:"encoded"`   // answers
	Refused  uint64 `json:"refused"`   // answers that went out as they were, because too many were being encoded
	InBytes  uint64 `json:"in_bytes"`  // before
	OutBytes uint64 `json:"out_bytes"` // after
}

func newPool(level Level, limit int) *pool {
	p := &pool{level: level, limit: int64(limit)}
	for i := range p.idle {
		p.idle[i] = make(chan flusher, min(limit, kept))
	}
	return p
}

func (p *pool) counters() Counters {
	return Counters{Encoded: p.encoded.Load(), Refused: p.refused.Load(), InBytes: p.in.Load(), OutBytes: p.out.Load()}
}

func slot(c Coding) int {
	switch c {
	case Zstd:
		return 0
	case Brotli:
		return 1
	}
	return 2
}

// reserve takes a place for an encoder, which Encoder.Close gives back; false when there is none.
func (p *pool) reserve() bool {
	if p.running.Add(1) > p.limit {
		p.running.Add(-1)
		p.refused.Add(1)
		return false
	}
	return true
}

// Encoder encodes one body. It is not safe for concurrent use.
type Encoder struct {
	pool *pool
	slot int
	dst  counting
	enc  flusher // nil after Close
}

// counting counts what an encoder gives.
type counting struct {
	io.Writer
	n uint64
}

// Write passes p on.
func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += uint64(n)
	return n, err
}

// Encode begins the encoding of a body to dst, for which Prepare chose c. Encoder.Close must be called.
func (p *Policy) Encode(dst io.Writer, c Coding) *Encoder { return p.pool.encode(dst, c) }

func (p *pool) encode(dst io.Writer, c Coding) *Encoder {
	e := &Encoder{pool: p, slot: slot(c), dst: counting{Writer: dst}}
	select {
	case e.enc = <-p.idle[e.slot]:
	default:
		e.enc = newEncoder(c, p.level)
	}
	e.enc.Reset(&e.dst)
	p.encoded.Add(1)
	return e
}

func newEncoder(c Coding, l Level) flusher {
	fast := l != Balanced
	switch c {
	case Zstd:
		level := zstd.SpeedDefault
		if fast {
			level = zstd.SpeedFastest
		}
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
		if err != nil {
			panic(fmt.Sprintf("payload: fixed zstd options: %v", err))
		}
		return e
	case Brotli:
		quality := 4
		if fast {
			quality = 3
		}
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: quality, LGWin: windowBits})
	}
	level := 5
	if fast {
		level = gzip.BestSpeed
	}
	e, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic(fmt.Sprintf("payload: fixed gzip level: %v", err))
	}
	return e
}

// ErrClosed says that an encoder was used after Close.
var ErrClosed = errors.New("payload: the encoder is closed")

// Write encodes b; what comes of it may be sent later.
func (e *Encoder) Write(b []byte) (int, error) {
	if e.enc == nil {
		return 0, ErrClosed
	}
	n, err := e.enc.Write(b)
	e.pool.in.Add(uint64(n))
	return n, err
}

// Flush sends all that was written. It costs a few bytes.
func (e *Encoder) Flush() error {
	if e.enc == nil {
		return ErrClosed
	}
	return e.enc.Flush()
}

// Close ends the body, whole or not: when the body broke off, abandon is true, and nothing more is written, so that the
// client cannot take the part for the whole. The second call does nothing.
func (e *Encoder) Close(abandon bool) error {
	if e.enc == nil {
		return nil
	}
	enc := e.enc
	e.enc = nil
	var err error
	if !abandon {
		err = enc.Close()
	}
	e.pool.out.Add(e.dst.n)
	e.pool.running.Add(-1)
	enc.Reset(io.Discard)
	select {
	case e.pool.idle[e.slot] <- enc:
	default: // enough are kept
	}
	return err
}
