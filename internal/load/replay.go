package load

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/recording"
	"github.com/longpole/longpole/setting"
)

// Replay sends recorded calls again, at the times at which they came, whatever the system answers: the arrivals of a
// target that are neither Poisson nor Uniform but real. A call's response time counts from the time at which it was due.
type Replay struct {
	// Open gives the recording from its beginning; it is called once for each round. File is the usual one.
	Open  func() (io.ReadCloser, error)
	Base  string  // where to: scheme, host, and a path that is put before the call's: http://staging:8080
	Speed float64 // 2 = in half the time; 0 = 1; up to 1000
	Loop  bool    // begin again after the last call, one mean gap later; false = the target ends, and with the last target the run
	// Unsafe lets calls pass whose methods change something. false = GET, HEAD and OPTIONS only, because what was done
	// once would be done again.
	Unsafe   bool
	KeepHost bool // the Host field is the recorded one; false = that of Base
}

// File opens the recording of that name.
func File(name string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(name) }
}

// Validate returns every fault of r, joined; each is a *setting.Error.
func (r Replay) Validate() error {
	var f setting.Faults
	f.Check(r.Open != nil, "open", "nil", "a function")
	base, err := url.Parse(r.Base)
	f.Check(err == nil && (base.Scheme == "http" || base.Scheme == "https") && base.Host != "" && base.RawQuery == "" && base.Fragment == "", "base", r.Base, "a URL such as http://127.0.0.1:8080")
	f.Check(r.Speed >= 0 && r.Speed <= 1000, "speed", r.Speed, "more than 0, up to 1000")
	return f.Err()
}

// Bounds of the calls that are held to put them in order: a recording holds calls in the order of their ends.
const (
	maxAhead      = 4096
	maxAheadBytes = 32 << 20
)

// ReplayHeader marks a replayed call, so that nobody takes it for a person's.
const ReplayHeader = "X-Longpole-Replay"

// replay is the state of one target that replays. It is used by one goroutine.
type replay struct {
	Replay
	base string

	file   io.ReadCloser // nil = between rounds
	reader *recording.Reader
	ended  bool // the round's file is read to its end
	ahead  ahead
	bytes  int64

	before  time.Duration // length of the rounds before
	last    time.Duration // of the round's calls
	calls   int           // of the round
	skipped uint64        // since next last returned
	current recording.Entry
}

func newReplay(r Replay) *replay {
	if r.Speed == 0 {
		r.Speed = 1
	}
	return &replay{Replay: r, base: strings.TrimRight(r.Base, "/")}
}

// next returns how long after the start the next call is due, and how many before it are not sent. io.EOF at the end.
func (r *replay) next() (after time.Duration, skipped uint64, err error) {
	for {
		if err := r.fill(); err != nil {
			return 0, r.take(), err
		}
		if len(r.ahead) > 0 {
			break
		}
		if !r.Loop || r.calls == 0 {
			return 0, r.take(), io.EOF
		}
		r.before += r.last + max(r.last/time.Duration(r.calls), time.Millisecond)
		r.last, r.calls, r.ended = 0, 0, false
	}
	r.current = heap.Pop(&r.ahead).(recording.Entry)
	r.bytes -= size(r.current)
	r.last = max(r.last, r.current.At)
	r.calls++
	return time.Duration(float64(r.before+r.last) / r.Speed), r.take(), nil
}

func (r *replay) take() uint64 {
	n := r.skipped
	r.skipped = 0
	return n
}

// fill reads ahead as far as it may.
func (r *replay) fill() error {
	if r.file == nil && !r.ended {
		file, err := r.Open()
		if err != nil {
			return fmt.Errorf("load: replay: %w", err)
		}
		reader, err := recording.NewReader(file)
		if err != nil {
			return errors.Join(fmt.Errorf("load: replay: %w", err), file.Close())
		}
		r.file, r.reader = file, reader
	}
	for r.file != nil && len(r.ahead) < maxAhead && r.bytes < maxAheadBytes {
		e, err := r.reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			r.ended = true
			r.close()
		case err != nil, !r.Unsafe && !safe(e.Method), e.Clipped:
			r.skipped++
		default:
			heap.Push(&r.ahead, e)
			r.bytes += size(e)
		}
	}
	return nil
}

func (r *replay) close() {
	if r.file != nil {
		r.reader.Close()
		_ = r.file.Close()
		r.file = nil
	}
}

// request makes the call that next found.
func (r *replay) request() (*http.Request, error) {
	e := r.current
	target := r.base + e.Path
	if e.Query != "" {
		target += "?" + e.Query
	}
	var body io.Reader
	if len(e.Body) > 0 {
		body = bytes.NewReader(e.Body)
	}
	out, err := http.NewRequest(e.Method, target, body) //nolint:noctx // the caller gives it the call's context
	if err != nil {
		return nil, err
	}
	for name, values := range e.Header {
		out.Header[http.CanonicalHeaderKey(name)] = values
	}
	for _, name := range []string{"Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Te", "Trailer", "Expect"} {
		delete(out.Header, name) // of the connection it came by
	}
	out.Header.Set(ReplayHeader, "1")
	if r.KeepHost && e.Host != "" {
		out.Host = e.Host
	}
	return out, nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

func size(e recording.Entry) int64 {
	n := int64(len(e.Body) + len(e.Path) + len(e.Query) + 256)
	for name, values := range e.Header {
		n += int64(len(name))
		for _, v := range values {
			n += int64(len(v)) + 16
		}
	}
	return n
}

// ahead is a heap of calls by their time.
type ahead []recording.Entry

// Len, Less, Swap, Push and Pop are those of heap.Interface.
func (a ahead) Len() int           { return len(a) }
func (a ahead) Less(i, j int) bool { return a[i].At < a[j].At }
func (a ahead) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *ahead) Push(x any)        { *a = append(*a, x.(recording.Entry)) }
func (a *ahead) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = recording.Entry{}
	*a = (*a)[:last]
	return e
}
