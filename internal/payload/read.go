package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Why a body was not decoded.
var (
	ErrTooLarge = errors.New("payload: the body is larger than allowed")
	ErrCoding   = errors.New("payload: unknown content coding")
)

// Read decodes a whole body to at most limit bytes, however small it came: a longer one is ErrTooLarge, and no more than
// that was ever held. ErrCoding for a coding that we do not have.
func Read(body []byte, c Coding, limit int64) ([]byte, error) {
	r, end, err := decoder(body, c)
	if err != nil {
		return nil, err
	}
	defer end()
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("%w: want at most %d bytes", ErrTooLarge, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("payload: decoding %s: %w", c, err)
	}
	return out, nil
}

func decoder(body []byte, c Coding) (r io.Reader, end func(), err error) {
	in := bytes.NewReader(body)
	end = func() {}
	switch c {
	case Identity:
		return in, end, nil
	case Zstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, fmt.Errorf("payload: decoding zstd: %w", err)
		}
		return d, d.Close, nil
	case Brotli:
		return brotli.NewReader(in), end, nil
	case Gzip:
		d, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, fmt.Errorf("payload: decoding gzip: %w", err)
		}
		return d, end, nil
	}
	return nil, nil, fmt.Errorf("%w: %q", ErrCoding, c)
}
