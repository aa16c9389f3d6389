package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"sync"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/payload"
)

// errAnswerTooLarge ends an answer that turned out to be longer than the route allows.
var errAnswerTooLarge = errors.New("gateway: the answer is larger than the route allows")

// encodedWhole is the longest body of a known length that is encoded before it is sent, so that its new length is known.
const encodedWhole = 64 << 10

// keepPayload compiles c, or keeps what was compiled from the same, with its encoders.
func keepPayload(old *route, c *payload.Config) *payload.Policy {
	switch {
	case c == nil:
		return nil
	case old != nil && old.side.payload != nil && reflect.DeepEqual(old.side.payload.Config(), c.WithDefaults()):
		return old.side.payload
	}
	return payload.New(*c)
}

// dress makes of an answer, whose head is h by now, what the client shall get; false = it was refused instead.
func (v *visit) dress(res *http.Response, h http.Header) bool {
	p := v.route.side.payload
	if p != nil && v.x.mode == plain && !v.wrap(p, res, h) {
		return false
	}
	v.afflict(res)
	return true
}

// wrap holds the answer to the size that is allowed, and gives it its tag and its coding.
func (v *visit) wrap(p *payload.Policy, res *http.Response, h http.Header) bool {
	head := v.r.Method == http.MethodHead
	if !head && p.TooLarge(res.ContentLength) {
		v.reject(res, h, errAnswerTooLarge)
		return false
	}
	if limit := p.Config().MaxAnswerBytes; limit > 0 && res.Body != http.NoBody {
		res.Body = &limitedBody{ReadCloser: res.Body, left: limit}
	}
	if len(res.Trailer) == 0 && p.Tags(v.r.Method, h, res.StatusCode, res.ContentLength) {
		if err := v.tag(res, h); err != nil {
			v.reject(res, h, err)
			return false
		}
	}
	body := !head && res.Body != http.NoBody
	if c := p.Prepare(v.r.Header, h, res.StatusCode, res.ContentLength, body); c != payload.Identity && body {
		if err := encode(p, c, res, h); err != nil {
			v.reject(res, h, err)
			return false
		}
	}
	return true
}

// whole sends an answer that the gateway has put together, in the way in which the route sends answers. v.status and the
// head but for its length are set.
func (v *visit) whole(text []byte) {
	h := v.w.Header()
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	res := &http.Response{StatusCode: v.status, Header: h, ContentLength: int64(len(text)), Body: http.NoBody}
	if v.r.Method != http.MethodHead && len(text) > 0 {
		res.Body = io.NopCloser(bytes.NewReader(text))
	}
	if !v.dress(res, h) {
		return
	}
	defer func() { _ = res.Body.Close() }()
	v.deadline()
	v.w.WriteHeader(res.StatusCode)
	if v.stream(res) != nil {
		panic(http.ErrAbortHandler)
	}
}

// reject answers in place of an answer that cannot be given; its head is not sent yet.
func (v *visit) reject(res *http.Response, h http.Header, err error) {
	_ = res.Body.Close()
	res.Body = http.NoBody
	clear(h)
	if errors.Is(err, errAnswerTooLarge) {
		v.rec.Class = call.Server
		v.send(refusal{http.StatusBadGateway, "answer_too_large", "the answer is larger than the route allows", 0})
		return
	}
	if v.rec.Class = v.x.class(context.Cause(v.r.Context()), err); v.rec.Class == call.OK {
		v.rec.Class = call.Server
	}
	v.refuse(err, nil)
}

// tag reads a small answer whole, gives it its entity tag, and makes it a 304 for a client that holds it.
func (v *visit) tag(res *http.Response, h http.Header) error {
	body, err := io.ReadAll(res.Body)
	if err == nil && int64(len(body)) != res.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	res.Body = http.NoBody
	if payload.Revalidate(v.r.Header, h, body) {
		res.StatusCode, res.ContentLength = http.StatusNotModified, 0
		v.status = res.StatusCode
		return nil
	}
	if len(body) > 0 {
		res.Body = io.NopCloser(bytes.NewReader(body))
	}
	return nil
}

// encode puts the coding c on the body of res, for which it was prepared. A short one is encoded at once.
func encode(p *payload.Policy, c payload.Coding, res *http.Response, h http.Header) error {
	b := &encodedBody{src: res.Body, live: res.ContentLength < 0, work: works.Get().(*work)}
	b.enc = p.Encode(&b.work.out, c)
	known := res.ContentLength
	res.Body, res.ContentLength = b, -1
	if known < 0 || known > encodedWhole {
		return nil
	}
	whole, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	_ = b.Close()
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(whole)), int64(len(whole))
	h["Content-Length"] = []string{strconv.Itoa(len(whole))}
	return nil
}

// work is what one encoding needs beside its encoder.
type work struct {
	in  [32 << 10]byte
	out bytes.Buffer
}

var works = sync.Pool{New: func() any { return new(work) }}

// encodedBody encodes what it reads. A body of unknown length may pause, so that what came is passed on when nothing
// follows at once: the transport gives what it has, and a read that does not fill the buffer has emptied it.
type encodedBody struct {
	src  io.ReadCloser
	enc  *payload.Encoder
	live bool
	err  error // of src, met before all that was encoded is read

	work *work // nil after Close
}

// Read gives encoded bytes, as many as there are room for unless the body is live.
func (b *encodedBody) Read(p []byte) (int, error) {
	if b.work == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	out := &b.work.out
	for b.err == nil && (out.Len() == 0 || !b.live && out.Len() < len(p)) {
		b.fill()
	}
	if out.Len() > 0 {
		return out.Read(p)
	}
	return 0, b.err
}

func (b *encodedBody) fill() {
	n, err := b.src.Read(b.work.in[:])
	if n > 0 {
		if _, werr := b.enc.Write(b.work.in[:n]); werr != nil {
			err = werr
		}
	}
	switch {
	case err == io.EOF: //nolint:errorlint // nothing else is a good end
		b.err = io.EOF
		if cerr := b.enc.Close(false); cerr != nil {
			b.err = cerr
		}
	case err != nil:
		b.err = err
		_ = b.enc.Close(true)
	case b.live && n < len(b.work.in):
		b.err = b.enc.Flush()
	}
}

// Close gives the encoder back and closes the source.
func (b *encodedBody) Close() error {
	if b.work == nil {
		return nil
	}
	_ = b.enc.Close(true)
	if b.work.out.Cap() <= 4*len(b.work.in) {
		b.work.out.Reset()
		works.Put(b.work)
	}
	b.work = nil
	return b.src.Close()
}

// limitedBody breaks off a body that is too long.
type limitedBody struct {
	io.ReadCloser
	left int64
}

// Read gives errAnswerTooLarge once there is more than the limit.
func (b *limitedBody) Read(p []byte) (int, error) {
	if int64(len(p))-1 > b.left {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		return int(b.left), errAnswerTooLarge
	}
	b.left -= int64(n)
	return n, err
}
