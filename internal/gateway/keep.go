package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/httpcache"
)

// errConfirmed says that an upstream answered 304 to a request that had no condition.
var errConfirmed = errors.New("gateway: the upstream says that nothing has changed, though it was not asked")

// whole is the exchange of a fetch whose answer is for all calls for its key: it asks for all of the answer, whatever
// the client asked for, or whether what is kept still holds.
type whole struct {
	*exchange
	old   *httpcache.Answer // nil = nothing is kept
	began time.Time
}

// Whole returns the work of a fetch for all.
func (x *exchange) Whole(old cache.Value) longpole.Storable[*http.Response] {
	w := &whole{exchange: x, began: time.Now()}
	w.old, _ = old.(*httpcache.Answer)
	return w
}

// Try makes one attempt. A 304 that is not about what is kept is of no use: then all of the answer is asked for.
func (w *whole) Try(ctx context.Context, a longpole.Attempt) (*http.Response, error) {
	res, err := w.try(ctx, a, &asking{w.old})
	if err != nil || res.StatusCode != http.StatusNotModified || w.old != nil && w.old.ConfirmedBy(res.Header) {
		return res, err
	}
	w.Discard(res)
	if res, err = w.try(ctx, a, &asking{}); err == nil && res.StatusCode == http.StatusNotModified {
		w.Discard(res)
		return nil, errConfirmed
	}
	return res, err
}

// asking changes the request of an attempt into one for all of an answer. nil changes nothing.
type asking struct{ old *httpcache.Answer }

func (s *asking) shape(out *http.Request) {
	if s == nil {
		return
	}
	out.Method = http.MethodGet
	httpcache.Unconditional(out.Header)
	if s.old != nil {
		s.old.Ask(out.Header)
	}
}

// Keep makes an answer to the client's own words into a value. What was asked for in part, or under a condition, is not
// kept.
func (x *exchange) Keep(res *http.Response, limit int64) (longpole.Kept[*http.Response], bool) {
	return x.keep(res, limit, x.in.Method, nil, x.start) //nolint:bodyclose // the body is the caller's
}

// Keep makes an answer for all into a value.
func (w *whole) Keep(res *http.Response, limit int64) (longpole.Kept[*http.Response], bool) {
	return w.keep(res, limit, http.MethodGet, w.old, w.began) //nolint:bodyclose // the body is the caller's
}

// keep is Keep for an answer to a request with that method, begun at that time: with what it waited for before it was
// sent, which makes the answer a little older than it is.
func (x *exchange) keep(res *http.Response, limit int64, method string, old *httpcache.Answer, began time.Time) (k longpole.Kept[*http.Response], ok bool) {
	k.Rest = res
	now := time.Now()
	if began.IsZero() {
		began = now
	}
	came := httpcache.Exchanged{
		Method: method, Request: x.header, Status: res.StatusCode, Header: res.Header, Sent: began, Received: now,
	}
	if confirmed := res.StatusCode == http.StatusNotModified && old != nil; confirmed {
		_ = res.Body.Close()
		came.Status, came.Header = old.Status, old.Refreshed(res.Header)
		v := x.cached.rules.Judge(came)
		k.Value = httpcache.NewAnswer(came.Status, came.Header, old.Body, now, v)
		k.Terms, k.Confirmed, k.Drop = termsOf(v), true, v.Why != ""
		return k, !k.Drop && x.lay(&k, came.Header) || k.Drop
	}
	v := x.cached.rules.Judge(came)
	if v.Why != "" || len(res.Trailer) > 0 || !delimited(res) || x.endless(res) || httpcache.HeadSize(res.Header)+max(res.ContentLength, 0) > limit || !x.lay(&k, res.Header) {
		return k, false
	}
	k.Terms = termsOf(v)
	if res.Body == http.NoBody && len(v.Omit) == 0 {
		k.Value = httpcache.NewAnswer(res.StatusCode, res.Header, nil, now, v)
		return k, true
	}
	f := newFilling(res, limit-httpcache.HeadSize(res.Header))
	k.Fill = func(keep func(cache.Value)) error {
		body, err := f.fill()
		if err == nil {
			keep(httpcache.NewAnswer(came.Status, came.Header, body, now, v))
		}
		f.settle()
		return err
	}
	all := v
	all.Omit = nil                                                                                    // the one who asked may have what is not for everybody
	k.Rest = f.rest(x, httpcache.NewAnswer(came.Status, came.Header, nil, now, all), old != nil, now) //nolint:bodyclose // the body is the caller's
	return k, true
}

// lay finds out where an answer with the header h is to lie; false = it depends on too much.
func (x *exchange) lay(k *longpole.Kept[*http.Response], h http.Header) bool {
	names, _ := httpcache.Vary(h)
	was := x.cached.learnt.Load()
	now := was.Extend(names, rand.Uint64())
	switch {
	case now == nil:
		return was == nil && len(names) == 0
	case now != was:
		k.Place = cache.Place{Base: x.cached.key, Sign: now}
		if was != nil {
			k.Place.Was = was
		}
	}
	k.Place.Key = now.Key(x.cached.key, x.header)
	return true
}

// delimited reports whether the end of a body can be told from the end of its connection. Close is never set over HTTP/2, and
// an HTTP/1.1 answer may call itself HTTP/2.
func delimited(res *http.Response) bool {
	return res.ContentLength >= 0 || res.ProtoMajor == 2 && !res.Close || len(res.TransferEncoding) > 0
}

func termsOf(v httpcache.Verdict) cache.Terms {
	t := cache.Terms{Fresh: v.Fresh, Age: v.Age, Revalidate: v.Revalidate, IfError: v.IfError}
	if t.Fresh == 0 {
		t.Fresh = -1
	}
	return t
}

// filling is an answer that is read to its end once, by the fetch that it belongs to, beside the one reader who takes it
// as it comes. When it turns out to be too long, the reader takes what was read so far, and then the rest by itself.
type filling struct {
	answer *http.Response
	body   io.ReadCloser
	limit  int64

	mu   sync.Mutex // guards what follows
	more sync.Cond
	buf  []byte
	err  error // of the body; io.EOF at its end
	over bool  // too long: the body is the reader's
	done bool  // the reader may see the end
	gone bool  // the reader is
	at   int   // what it has read
	left error // why its client is gone
	stop func() bool
	head *http.Response // of the reader
}

func newFilling(res *http.Response, limit int64) *filling {
	f := &filling{answer: res, body: res.Body, limit: limit}
	f.more.L = &f.mu
	if res.ContentLength > 0 {
		f.buf = make([]byte, 0, res.ContentLength)
	}
	return f
}

// rest is the answer for the reader.
func (f *filling) rest(x *exchange, head *httpcache.Answer, stale bool, now time.Time) *http.Response {
	if f.answer.ContentLength < 0 {
		delete(head.Header, "Content-Length")
	} else {
		head.Header["Content-Length"] = f.answer.Header["Content-Length"]
	}
	s := httpcache.Status{Forward: x.why(stale)}
	if f.answer.ContentLength >= 0 {
		s.Stored, s.Timed, s.TTL = true, true, head.Fresh
	}
	f.head = x.present(head, f, s, now)
	f.head.ProtoMajor, f.head.ProtoMinor = f.answer.ProtoMajor, f.answer.ProtoMinor
	if f.head.Body != io.ReadCloser(f) {
		f.gone = true
		return f.head
	}
	client := x.in.Context()
	f.stop = context.AfterFunc(client, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.left = context.Cause(client)
		f.more.Broadcast()
	})
	return f.head
}

// fill reads the body to its end; cache.ErrNotStorable = it is too long, or has a trailer.
func (f *filling) fill() ([]byte, error) {
	chunk := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(chunk)
	for {
		n, err := f.body.Read(chunk[:])
		body, done, err := f.took(chunk[:n], err)
		if done {
			return body, err
		}
	}
}

// took adds what was read; done = fill is over.
func (f *filling) took(p []byte, err error) (body []byte, done bool, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.more.Broadcast()
	f.buf = append(f.buf, p...)
	switch f.err = err; {
	case err == nil && int64(len(f.buf)) <= f.limit:
		return nil, false, nil
	case err == nil:
		if f.over = true; f.gone {
			_ = f.body.Close()
		}
		return nil, true, cache.ErrNotStorable
	}
	_ = f.body.Close()
	if err != io.EOF { //nolint:errorlint // what wraps the end is no good end: it must not be kept
		return nil, true, err
	}
	if len(f.answer.Trailer) > 0 || int64(len(f.buf)) > f.limit {
		return nil, true, cache.ErrNotStorable
	}
	if cap(f.buf)-len(f.buf) > len(f.buf)/8 {
		f.buf = append(make([]byte, 0, len(f.buf)), f.buf...) // it will stay for long
	}
	return f.buf, true, nil
}

// settle lets the reader see the end.
func (f *filling) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.more.Broadcast()
}

// ready is how far the reader may read: the last byte of a body of known length tells its client that it is the end.
func (f *filling) ready() int {
	if n := len(f.buf); f.done || n == 0 || int64(n) < f.answer.ContentLength || f.answer.ContentLength < 0 {
		return n
	}
	return len(f.buf) - 1
}

// Read is for the reader.
func (f *filling) Read(p []byte) (int, error) {
	f.mu.Lock()
	for f.at >= f.ready() && !f.done && !f.gone && f.left == nil {
		f.more.Wait()
	}
	defer f.mu.Unlock()
	switch {
	case f.gone:
		return 0, http.ErrBodyReadAfterClose
	case f.left != nil:
		return 0, f.left
	case f.at < f.ready():
		n := copy(p, f.buf[f.at:f.ready()])
		f.at += n
		return n, nil
	case f.over && f.err == nil:
		return f.further(p)
	case f.err == io.EOF: //nolint:errorlint // nothing else is a good end
		f.head.Trailer = f.answer.Trailer // its reader may look at it now, and not before
	}
	return 0, f.err
}

// further reads what fill has not.
func (f *filling) further(p []byte) (int, error) {
	f.buf, f.at = nil, 0
	f.mu.Unlock()
	n, err := f.body.Read(p)
	f.mu.Lock()
	if err == io.EOF {
		f.head.Trailer = f.answer.Trailer
	}
	return n, err
}

// Close is for the reader. Another goroutine may still read the body, for those to come.
func (f *filling) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil
	}
	f.gone = true
	f.stop()
	f.more.Broadcast()
	if f.over {
		return f.body.Close()
	}
	return nil
}
