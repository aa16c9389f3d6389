package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/recording"
)

// recordQueue bounds the calls that wait for the disk.
const recordQueue = 1024

// recorder writes sampled calls in a goroutine of its own, so that a slow disk delays no call.
type recorder struct {
	config  atomic.Pointer[Record] // nil = nothing is recorded
	queue   chan recorded
	changed chan struct{}
	held    budget // bytes of bodies in queue

	written, dropped, failed atomic.Uint64
}

type recorded struct {
	at    time.Time
	entry recording.Entry
}

// RecordStatus is what was recorded since the gateway began.
type RecordStatus struct {
	Written uint64 `json:"written"`
	Dropped uint64 `json:"dropped"` // the disk lagged behind
	Failed  uint64 `json:"failed"`  // the disk refused
}

// Recorded is what became of the calls that were to be recorded.
func (g *Gateway) Recorded() RecordStatus {
	r := &g.recorder
	return RecordStatus{Written: r.written.Load(), Dropped: r.dropped.Load(), Failed: r.failed.Load()}
}

func (r *recorder) init() {
	r.queue, r.changed = make(chan recorded, recordQueue), make(chan struct{}, 1)
}

// configure puts c in force; a file that is open under other settings is ended.
func (r *recorder) configure(c *Record) {
	if reflect.DeepEqual(r.config.Load(), c) {
		return
	}
	r.config.Store(c)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// offer records the call that has just ended, if it is drawn. It does not block.
func (r *recorder) offer(c *Record, v *visit) {
	if c.Share < 1 && rand.Float64() >= c.Share || len(c.Routes) > 0 && !slices.Contains(c.Routes, v.route.cfg.Name) {
		return
	}
	e := recording.Entry{
		Route: v.route.cfg.Name, Method: v.r.Method, Host: v.r.Host, Path: v.r.URL.EscapedPath(), Query: v.r.URL.RawQuery,
		Header: v.r.Header, Status: v.status, Latency: v.rec.Latency,
	}
	switch body := v.x.body; {
	case !body.whole():
		e.Clipped = true
	case c.Scrub.BodyBytes >= int64(len(body.kept)):
		e.Body = body.kept
	default:
		e.Clipped = true
	}
	size := int64(len(e.Body))
	if !r.held.take(size, heldBytes) {
		r.dropped.Add(1)
		return
	}
	select {
	case r.queue <- recorded{v.start, e}:
	default:
		r.held.give(size)
		r.dropped.Add(1)
	}
}

// run writes calls until ctx is done, then those that wait.
func (r *recorder) run(ctx context.Context, log *slog.Logger) {
	out := &recordFile{r: r, log: log}
	defer out.close()
	flush := time.NewTicker(time.Second)
	defer flush.Stop()
	for {
		select {
		case one := <-r.queue:
			out.write(one)
		case <-flush.C:
			out.flush()
		case <-r.changed:
			out.close()
		case <-ctx.Done():
			for {
				select {
				case one := <-r.queue:
					out.write(one)
				default:
					return
				}
			}
		}
	}
}

// recordFile is where calls are written. It belongs to one goroutine.
type recordFile struct {
	r      *recorder
	log    *slog.Logger
	w      *recording.Writer // nil = none is open
	failed bool              // said already
}

func (f *recordFile) write(one recorded) {
	f.r.held.give(int64(len(one.entry.Body)))
	c := f.r.config.Load()
	if c == nil {
		return
	}
	if f.w == nil {
		w, err := recording.NewWriter(c.Files, c.Scrub)
		if err != nil {
			f.fail(err)
			return
		}
		f.w = w
	}
	if err := f.w.Write(one.at, one.entry); err != nil {
		f.fail(err)
		return
	}
	f.r.written.Add(1)
	f.failed = false
}

func (f *recordFile) flush() {
	if f.w != nil {
		if err := f.w.Flush(); err != nil {
			f.fail(err)
		}
	}
}

func (f *recordFile) close() {
	if f.w != nil {
		if err := f.w.Close(); err != nil {
			f.fail(err)
		}
		f.w = nil
	}
}

// fail counts an error, and says the first of several.
func (f *recordFile) fail(err error) {
	f.r.failed.Add(1)
	if !f.failed {
		f.log.Error("calls are not recorded", "error", err)
	}
	f.failed = true
}

// tell lets those who copy calls know of one that has ended.
func (v *visit) tell() {
	if m := v.route.side.mirror; m != nil {
		m.offer(v)
	}
	if c := v.g.recorder.config.Load(); c != nil {
		v.g.recorder.offer(c, v)
	}
}
