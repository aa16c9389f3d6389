package gateway

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/recording"
)

// accessLog writes lines in a goroutine of its own, so that a slow disk delays no call.
type accessLog struct {
	config  atomic.Pointer[AccessLog]
	queue   chan accessLine
	reopen  chan struct{}
	dropped atomic.Uint64

	second atomic.Int64 // unix time of the window that budget counts in
	budget atomic.Int64 // lines written in it
}

// accessQueue bounds the lines that wait for the disk.
const accessQueue = 1024

// accessLine is what a line says.
type accessLine struct {
	at                                  time.Time
	route, method, host, path, query    string
	client, agent, trace, arm, endpoint string
	reason, fault                       string
	status, attempts                    int
	class                               call.Class
	cache                               call.CacheState
	priority                            call.Priority
	latency, total, wait                time.Duration
	requestBytes, responseBytes         int64
	hedged, fellBack                    bool
}

func newAccessLog() *accessLog {
	l := &accessLog{queue: make(chan accessLine, accessQueue), reopen: make(chan struct{}, 1)}
	l.config.Store(&AccessLog{})
	return l
}

// configure puts c in force; the file is opened anew, so that a rotated one is let go.
func (l *accessLog) configure(c AccessLog) {
	l.config.Store(&c)
	select {
	case l.reopen <- struct{}{}:
	default:
	}
}

// wants decides whether a call gets a line. Lots are drawn before anything is copied.
func (l *accessLog) wants(c *AccessLog, rec *call.Record, status int) bool {
	if c.File == "" {
		return false
	}
	notable := bad(rec.Class) || status >= 500 || rec.Total >= c.Slow
	return notable || c.Sample >= 1 || rand.Float64() < c.Sample
}

// write queues a line, unless this second has had its share or the disk lags behind.
func (l *accessLog) write(c *AccessLog, line accessLine) {
	if second := line.at.Unix(); l.second.Swap(second) != second {
		l.budget.Store(0)
	}
	if l.budget.Add(1) > int64(c.MaxPerSecond) {
		l.dropped.Add(1)
		return
	}
	select {
	case l.queue <- line:
	default:
		l.dropped.Add(1)
	}
}

// Unlogged is how many lines of the access log were dropped: too many in a second, or the disk lagged behind.
func (g *Gateway) Unlogged() uint64 { return g.access.dropped.Load() }

// run writes lines until ctx is done, then those that wait.
func (l *accessLog) run(ctx context.Context, log *slog.Logger) {
	out := &accessFile{log: log}
	defer out.close()
	flush := time.NewTicker(time.Second)
	defer flush.Stop()
	for {
		select {
		case line := <-l.queue:
			out.line(&line, l)
		case <-flush.C:
			out.flush()
		case <-l.reopen:
			out.open(l.config.Load().File)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					out.line(&line, l)
				default:
					return
				}
			}
		}
	}
}

// accessFile is where lines go. It belongs to one goroutine.
type accessFile struct {
	log    *slog.Logger // of the gateway, for what goes wrong here
	file   io.WriteCloser
	buffer *bufio.Writer
	lines  slog.Handler
	failed bool // said already
}

type standard struct{ io.Writer }

// Close leaves the stream open: it belongs to the process.
func (standard) Close() error { return nil }

func (f *accessFile) open(path string) {
	f.close()
	f.failed = false
	switch path {
	case "":
		return
	case "stderr":
		f.file = standard{os.Stderr}
	case "stdout":
		f.file = standard{os.Stdout}
	default:
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			f.log.Error("the access log cannot be opened; its lines are dropped", "file", path, "error", err)
			return
		}
		f.file = file
	}
	f.buffer = bufio.NewWriterSize(f.file, 64<<10)
	f.lines = slog.NewJSONHandler(f.buffer, nil)
}

func (f *accessFile) flush() {
	if f.buffer == nil {
		return
	}
	if err := f.buffer.Flush(); err != nil {
		if !f.failed {
			f.failed = true
			f.log.Error("the access log cannot be written; lines are lost", "error", err)
		}
		f.buffer.Reset(f.file)
	}
}

func (f *accessFile) close() {
	f.flush()
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file, f.buffer, f.lines = nil, nil, nil
}

func (f *accessFile) line(l *accessLine, from *accessLog) {
	if f.lines == nil {
		if f.open(from.config.Load().File); f.lines == nil {
			from.dropped.Add(1)
			return
		}
	}
	r := slog.NewRecord(l.at, slog.LevelInfo, "call", 0)
	r.AddAttrs(
		slog.String("route", l.route), slog.String("method", l.method), slog.String("host", l.host), slog.String("path", l.path),
		slog.Int("status", l.status), slog.String("class", l.class.String()),
		slog.Float64("latency_ms", milliseconds(l.latency)), slog.Float64("total_ms", milliseconds(l.total)),
		slog.Int64("request_bytes", l.requestBytes), slog.Int64("response_bytes", l.responseBytes),
		slog.String("client", l.client), slog.String("trace_id", l.trace), slog.Int("attempts", l.attempts),
	)
	optional := func(name, value string) {
		if value != "" {
			r.AddAttrs(slog.String(name, value))
		}
	}
	optional("query", l.query)
	optional("endpoint", l.endpoint)
	optional("arm", l.arm)
	optional("user_agent", l.agent)
	optional("reason", l.reason)
	optional("fault", l.fault)
	if l.cache != call.Uncached {
		optional("cache", l.cache.String())
	}
	if l.priority != call.Normal {
		optional("priority", l.priority.String())
	}
	if l.wait > 0 {
		r.AddAttrs(slog.Float64("queue_ms", milliseconds(l.wait)))
	}
	for name, is := range map[string]bool{"hedged": l.hedged, "fallback": l.fellBack} {
		if is {
			r.AddAttrs(slog.Bool(name, true))
		}
	}
	_ = f.lines.Handle(context.Background(), r) // the buffer keeps the error until it is flushed
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// log writes the line of a call that has ended, if it gets one.
func (v *visit) log(now time.Time) {
	c := v.g.access.config.Load()
	if !v.g.access.wants(c, &v.rec, v.status) {
		return
	}
	line := accessLine{
		at: now, route: v.rec.Route, method: clipped(v.r.Method), host: clipped(v.r.Host), path: clipped(v.r.URL.EscapedPath()),
		client: v.peer.client, agent: clipped(v.r.Header.Get("User-Agent")), trace: v.x.spans.origin.trace, arm: v.rec.Arm,
		status: v.status, attempts: v.rec.Count, class: v.rec.Class, cache: v.rec.Cache, latency: v.rec.Latency, total: v.rec.Total,
		reason: clipped(v.w.Header().Get("X-Longpole-Error")), fault: v.rec.Fault, wait: v.rec.QueueWait, requestBytes: v.rec.RequestBytes, responseBytes: v.rec.ResponseBytes, fellBack: v.rec.Fallback,
	}
	if c.Query {
		line.query = recording.Redact(clipped(v.r.URL.RawQuery))
	}
	for _, a := range v.rec.Kept() {
		line.hedged = line.hedged || a.Hedge
		if a.Won || line.endpoint == "" {
			line.endpoint = a.Endpoint
		}
	}
	v.g.access.write(c, line)
}
