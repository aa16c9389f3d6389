package gateway

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/longpole/longpole/call"
)

// deadline gives the client time to take what is written next. It is put off only now and then: a connection's deadline
// is not free.
func (v *visit) deadline() {
	stall := v.limits().StallTimeout
	if stall <= 0 {
		return
	}
	if now := time.Now(); v.armed.IsZero() || now.Sub(v.armed) > stall/8 {
		v.armed = now
		_ = http.NewResponseController(v.w).SetWriteDeadline(now.Add(stall))
	}
}

// pause takes the client's time back before the upstream is waited for. Over HTTP/2 a deadline that passes ends the stream,
// whether something is being written or not.
func (v *visit) pause() {
	if v.r.ProtoMajor == 2 && !v.armed.IsZero() {
		v.armed = time.Time{}
		_ = http.NewResponseController(v.w).SetWriteDeadline(time.Time{})
	}
}

// answer streams res to the client.
func (v *visit) answer(res *http.Response) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		v.tunnel(res)
		return
	}
	// Whatever changes an answer on its way to the client wraps res here, before its head is read: content coding,
	// validators, conditional answers. A wrapped body is closed like any other and closes what it wraps.
	defer func() { _ = res.Body.Close() }()
	v.status = res.StatusCode
	h := v.w.Header()
	maps.Copy(h, res.Header)
	if before := h["Via"]; len(before) > 0 {
		h["Via"] = append(slices.Clone(before), via(max(res.ProtoMajor, 1), max(res.ProtoMinor, 1)))
	} else {
		h["Via"] = onlyVia(max(res.ProtoMajor, 1), max(res.ProtoMinor, 1))
	}
	v.cacheLine(h, res)
	v.passed(h)
	if res.StatusCode == http.StatusNoContent {
		delete(h, "Content-Length") // RFC 9110 section 8.6
	}
	v.editAnswer(h)
	if !v.dress(res, h) {
		return
	}
	announced := make(map[string]bool, len(res.Trailer))
	for name := range res.Trailer {
		announced[name] = true
		h.Add("Trailer", name)
		h.Del("Content-Length") // only a chunked answer has room for trailers
	}
	v.parting()
	v.deadline()
	v.w.WriteHeader(res.StatusCode)
	fault := v.stream(res)
	v.rec.Total = time.Since(v.start)
	if fault != nil && v.x.mode == framed && v.r.Context().Err() == nil {
		v.brokenOff(fault)
		return
	}
	if fault != nil {
		// The head is sent; to break off is the only way left to say that the body is not whole.
		panic(http.ErrAbortHandler)
	}
	if v.x.mode == framed && v.rec.Class == call.OK {
		if out, ok := grpcOutcome(res.Trailer); ok {
			v.rec.Class = out.Class
		}
	}
	stripHopByHop(res.Trailer)
	for name, values := range res.Trailer {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// parting announces the end of an HTTP/1.1 connection on which a body is still on its way: where it ends is not known, and
// what follows it must not be taken for a request.
func (v *visit) parting() {
	if v.r.ProtoMajor == 1 && v.x.body.unread() {
		v.w.Header()["Connection"] = []string{"close"}
	}
}

// brokenOff ends a gRPC stream, whose head is sent, with a status instead of a reset, so that the client knows why.
func (v *visit) brokenOff(fault error) {
	code, message := brokenGRPC(fault, v.rec.Class)
	h := v.w.Header()
	h[http.TrailerPrefix+grpcStatusField] = []string{strconv.Itoa(code)}
	h[http.TrailerPrefix+grpcMessageField] = []string{message}
}

// chunks are the buffers that bodies pass through.
var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// stream copies the body and flushes what might not be followed by more soon. Its error is one of the upstream or of
// the client, and noted in the record.
func (v *visit) stream(res *http.Response) error {
	if res.Body == http.NoBody {
		return nil
	}
	buf := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(buf)
	flusher := http.NewResponseController(v.w)
	left := res.ContentLength
	if left < 0 {
		_ = flusher.Flush()
		v.pause()
	}
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			v.deadline()
			if _, werr := v.w.Write(buf[:n]); werr != nil {
				v.rec.Class = call.Canceled
				return werr
			}
			v.rec.ResponseBytes += int64(n)
			left -= int64(n)
			if err == nil && n < len(buf) && left != 0 {
				if werr := flusher.Flush(); werr != nil && !errors.Is(werr, http.ErrNotSupported) {
					v.rec.Class = call.Canceled
					return werr
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err == nil && left != 0 {
			v.pause()
		}
		if err != nil {
			v.rec.Class = v.x.class(context.Cause(v.r.Context()), err)
			if b, ok := errors.AsType[*bodyError](err); ok && v.r.Context().Err() == nil {
				v.rec.Class = b.class
			}
			return err
		}
	}
}
