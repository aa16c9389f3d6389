package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Reader reads a recording, compressed or not. It is used by one goroutine.
type Reader struct {
	lines *bufio.Reader
	zstd  *zstd.Decoder // nil = not compressed
	start time.Time
	cut   bool
	line  []byte
}

var magic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// NewReader reads the head of a recording. ErrFormat when it is none.
func NewReader(r io.Reader) (*Reader, error) {
	buf := bufio.NewReaderSize(r, 64<<10)
	out := &Reader{lines: buf}
	if first, _ := buf.Peek(len(magic)); bytes.Equal(first, magic) {
		d, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("recording: zstd: %w", err)
		}
		out.zstd, out.lines = d, bufio.NewReaderSize(d, 64<<10)
	}
	line, err := out.next()
	if err == nil {
		out.start, err = parseHead(line)
	}
	if err != nil {
		out.Close()
		return nil, ErrFormat
	}
	return out, nil
}

// Start is when the recording began.
func (r *Reader) Start() time.Time { return r.start }

// Next is the next entry; io.EOF at the end, ErrEntry for a line that is damaged: the next one may be whole. Where the
// file was cut off is its end, and Cut then tells.
func (r *Reader) Next() (Entry, error) {
	for {
		line, err := r.next()
		if err != nil {
			return Entry{}, err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return parseEntry(line)
		}
	}
}

// Cut reports whether the file ended before its end.
func (r *Reader) Cut() bool { return r.cut }

// next is one line, of a bounded length.
func (r *Reader) next() ([]byte, error) {
	r.line = r.line[:0]
	for {
		part, err := r.lines.ReadSlice('\n')
		if len(r.line)+len(part) > maxLineBytes {
			r.cut = true
			return nil, io.EOF
		}
		r.line = append(r.line, part...)
		switch {
		case err == nil:
			return r.line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(r.line) == 0:
			return nil, io.EOF
		default:
			// A line without an end, or a frame that is damaged: what follows cannot be told.
			r.cut = true
			return nil, io.EOF
		}
	}
}

// Close releases the decoder; the file is the caller's.
func (r *Reader) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}
