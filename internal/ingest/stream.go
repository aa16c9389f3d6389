package ingest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// maxLayers bounds compression within compression.
const maxLayers = 3

// zstdMemory bounds the window that a zstd stream may ask for.
const zstdMemory = 128 << 20

// stream decompresses, finds out what a file holds and decodes it.
func (r *reader) stream(from io.Reader, f file) error {
	in := bufio.NewReaderSize(from, 16<<10) // messages are larger, and then read past it
	for range maxLayers {
		start, err := in.Peek(len(zstdMagic))
		if err != nil && err != io.EOF {
			return err
		}
		switch {
		case bytes.HasPrefix(start, gzipMagic):
			z, err := gzip.NewReader(in)
			if err != nil {
				return layerError("gzip", err)
			}
			in = bufio.NewReaderSize(layer{"gzip", z}, 64<<10)
		case bytes.HasPrefix(start, zstdMagic):
			z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(zstdMemory), zstd.WithDecoderMaxWindow(zstdMemory))
			if err != nil {
				return layerError("zstd", err)
			}
			defer z.Close()
			in = bufio.NewReaderSize(layer{"zstd", z}, 64<<10)
		default:
			return r.content(in, f)
		}
	}
	return fmt.Errorf("compressed more than %d times", maxLayers)
}

// A layer names the compression in the errors of its reader, so that a cut archive is
// not taken for the end of what is in it.
type layer struct {
	name string
	from io.Reader
}

func (l layer) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = layerError(l.name, err)
	}
	return n, err
}

func layerError(name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("the %s data is cut", name)
	}
	return fmt.Errorf("the %s data is damaged: %w", name, err)
}

// content decodes what is no longer compressed.
func (r *reader) content(in *bufio.Reader, f file) error {
	start, err := in.Peek(4096)
	if err != nil && err != io.EOF {
		return err
	}
	if len(start) == 0 {
		return fmt.Errorf("the file is empty; %s", accepted)
	}
	if bytes.HasPrefix(start, byteOrderMark) || looksLikeText(start) {
		if c := firstByte(start); c != '{' && c != '[' {
			return fmt.Errorf("text that is no JSON; %s", accepted)
		}
		if bytes.HasPrefix(start, byteOrderMark) {
			_, _ = in.Discard(len(byteOrderMark))
		}
		return r.json(in, f)
	}
	w := &wire{reader: r, in: in}
	switch {
	case start[0] == resourceSpansTag: // as a length this byte would mean a message of 160 MiB and more
		return w.single()
	case len(start) > 4 && startsMessage(start[4:]) && int64(binary.BigEndian.Uint32(start)) <= r.limits.MessageBytes && binary.BigEndian.Uint32(start) > 0:
		return w.prefixed(w.bigEndian)
	}
	if n, size := binary.Uvarint(start); size > 0 && n > 0 && len(start) > size && start[size] == resourceSpansTag {
		return w.prefixed(w.varint)
	}
	return fmt.Errorf("unknown binary data; %s", accepted)
}

// resourceSpansTag is how a message of OTLP traces starts: field 1, length-delimited.
const resourceSpansTag = 1<<3 | 2

func startsMessage(b []byte) bool {
	return b[0] == resourceSpansTag || bytes.HasPrefix(b, zstdMagic)
}

// json decodes JSON of any kind: one document, or one after another as in JSON lines.
func (r *reader) json(in io.Reader, f file) error {
	s := newScanner(in)
	j := &document{decoder: r.decoder, scan: s}
	good, bad := 0, 0
	var first error
	for {
		c := s.token()
		var syntax syntaxError
		if c == 0 && !errors.As(s.err, &syntax) {
			break
		}
		line := s.line
		if j.value(); s.err == nil {
			good++
			s.lines = s.lines || s.line == line && c == '{'
			continue
		}
		fault := fmt.Errorf("line %d, byte %d: %w", s.line, s.offset(), s.err)
		if !errors.As(s.err, &syntax) && !errors.Is(s.err, errCut) {
			return fmt.Errorf("byte %d: %w", s.offset(), s.err) // of the file itself, not of the JSON
		}
		if s.line != line || errors.Is(s.err, errCut) && good == 0 {
			return fault // no JSON lines: what follows could not be told apart
		}
		if bad++; bad <= 3 {
			r.warn("%s: bad line left out: %v", f.name, fault)
		}
		if first == nil {
			first = fault
		}
		r.decoder.drop(mark{})
		if !s.resync() {
			break
		}
	}
	r.input.Stats.BadLines += bad
	r.decoder.counts.CutText += s.cutTexts
	if s.err != nil && !errors.Is(s.err, io.EOF) && !errors.Is(s.err, errCut) {
		return fmt.Errorf("byte %d: %w", s.offset(), s.err)
	}
	if good == 0 && first != nil {
		return first
	}
	if bad > 3 {
		r.warn("%s: %d bad lines left out in all", f.name, bad)
	}
	j.flushZipkin()
	return nil
}

// A wire reads OTLP protobuf.
type wire struct {
	*reader
	in     *bufio.Reader
	into   *raw // the batch that is read to
	offset int64
	zstd   *zstd.Decoder
}

// place says where a stream is broken.
func (w *wire) place(at int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the input ends inside a message: it is cut")
	}
	return fmt.Errorf("OTLP protobuf: byte %d: %w", at, err)
}

// bigEndian reads the length that the Collector's file exporter writes.
func (w *wire) bigEndian() (int64, error) {
	var b [4]byte
	n, err := io.ReadFull(w.in, b[:])
	w.offset += int64(n)
	return int64(binary.BigEndian.Uint32(b[:])), err
}

// varint reads a number in protobuf's own spelling. io.EOF means none was there at all.
func (w *wire) varint() (int64, error) {
	var x uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := w.in.ReadByte()
		if err != nil {
			if shift > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		w.offset++
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int64(x), nil
		}
	}
	return 0, errors.New("a number is longer than 63 bits")
}

// message reads n bytes, which stood after their length, to the batch. Its buffer grows with what is there, not with
// what n claims.
func (w *wire) message(n, at int64, whole bool) error {
	if n > w.limits.MessageBytes {
		return fmt.Errorf("a message of %d bytes is longer than the limit of %d", n, w.limits.MessageBytes)
	}
	data := &w.into.data
	from := data.Len()
	got, err := io.CopyN(data, w.in, n)
	w.offset += got
	if err == nil && whole && bytes.HasPrefix(data.Bytes()[from:], zstdMagic) {
		err = w.decompress(data, from)
	}
	if err != nil {
		data.Truncate(from)
		return err
	}
	w.into.parts = append(w.into.parts, part{end: data.Len(), at: at, whole: whole})
	return nil
}

// all reads messages by next, which returns errEnd where they end.
func (w *wire) all(next func() error) error {
	w.shared = true
	defer func() { w.shared = false }()
	return w.pipeline.run(func(into *raw) error {
		w.into = into
		for into.data.Len() < batchBytes {
			at := w.offset
			err := next()
			if errors.Is(err, errEnd) {
				return err
			}
			if err != nil {
				return w.place(at, err)
			}
		}
		return nil
	})
}

// errEnd says that the input ended between two messages: io.EOF may as well be within one.
var errEnd = errors.New("the end")

// single decodes one message, one ResourceSpans at a time.
func (w *wire) single() error {
	return w.all(func() error {
		at := w.offset
		tag, err := w.varint()
		if errors.Is(err, io.EOF) {
			return errEnd
		}
		if err != nil {
			return err
		}
		return w.field(tag, at)
	})
}

// field takes the field after its tag.
func (w *wire) field(tag, at int64) error {
	size := int64(0)
	var err error
	switch {
	case tag>>3 == 0:
		return errors.New("field number 0 is not allowed")
	case tag&7 == 0:
		_, err = w.varint()
	case tag&7 == 1:
		size = 8
	case tag&7 == 5:
		size = 4
	case tag&7 == 2:
		size, err = w.varint()
	default:
		return fmt.Errorf("wire type %d is unknown", tag&7)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if tag != resourceSpansTag {
		n, err := io.CopyN(io.Discard, w.in, size)
		w.offset += n
		return err
	}
	return w.message(size, at, false)
}

// prefixed decodes messages that stand after their lengths.
func (w *wire) prefixed(length func() (int64, error)) error {
	return w.all(func() error {
		at := w.offset
		n, err := length()
		if errors.Is(err, io.EOF) {
			return errEnd
		}
		if err != nil {
			return err
		}
		return w.message(n, at, true)
	})
}

// decompress unpacks a message that the Collector's file exporter compressed by itself.
func (w *wire) decompress(data *bytes.Buffer, from int) error {
	if w.zstd == nil {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(w.limits.MessageBytes)))
		if err != nil {
			return err
		}
		w.zstd = z
	}
	plain, err := w.zstd.DecodeAll(data.Bytes()[from:], nil)
	if err != nil {
		return layerError("zstd", err)
	}
	data.Truncate(from)
	data.Write(plain)
	return nil
}
