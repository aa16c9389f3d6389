package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/httpcache"
	"github.com/longpole/longpole/internal/offload"
	"github.com/longpole/longpole/internal/trace"
)

// jobsPath is where clients ask for their jobs, on every address and host. Routes do not see it while any of them puts
// calls off.
const jobsPath = "/.longpole/jobs/"

// jobs is the work that was put off, and those who do it. They run while Run does.
type jobs struct {
	store  atomic.Pointer[offload.Store]
	queues atomic.Pointer[map[string]*offload.Queue] // by route; nil = nothing is put off

	mu      sync.Mutex
	life    context.Context // of Run; nil = not running
	running map[string]*workers
	run     sync.WaitGroup
}

// workers are those of one queue.
type workers struct {
	cfg  offload.QueueConfig
	stop context.CancelFunc
}

// begin opens the store when a route needs it, and starts the workers, which end with ctx.
func (j *jobs) begin(ctx context.Context, g *Gateway) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	j.mu.Lock()
	j.life, j.running = ctx, make(map[string]*workers)
	j.mu.Unlock()
	return j.restart(g, g.table.Load())
}

// restart fits the workers to a table. The store stays as it was opened.
func (j *jobs) restart(g *Gateway, t *table) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.life == nil || j.life.Err() != nil {
		return nil
	}
	want := make(map[string]*offload.QueueConfig)
	for _, r := range t.routes {
		if r.cfg.Offload != nil {
			want[r.cfg.Name] = r.cfg.Offload
		}
	}
	if len(want) > 0 && j.store.Load() == nil {
		s, err := offload.Open(t.cfg.Offload, g.options.Log)
		if err != nil {
			return err
		}
		j.store.Store(s)
	}
	for name, w := range j.running {
		if want[name] == nil {
			w.stop()
			delete(j.running, name)
		}
	}
	if len(want) == 0 {
		j.queues.Store(nil)
		return nil
	}
	queues := make(map[string]*offload.Queue, len(want))
	for name, cfg := range want {
		if w := j.running[name]; w != nil && reflect.DeepEqual(w.cfg, *cfg) {
			queues[name] = (*j.queues.Load())[name]
			continue
		}
		queues[name] = j.store.Load().Queue(name, *cfg)
		j.start(g, queues[name], *cfg, t.cfg.Limits.DrainTimeout)
	}
	j.queues.Store(&queues)
	return nil
}

// start runs the workers of a queue, if they do not run already: they follow its settings by themselves.
func (j *jobs) start(g *Gateway, q *offload.Queue, cfg offload.QueueConfig, drain time.Duration) {
	if w := j.running[q.Name()]; w != nil {
		w.cfg = cfg
		return
	}
	ctx, stop := context.WithCancel(j.life)
	j.running[q.Name()] = &workers{cfg: cfg, stop: stop}
	j.run.Go(func() {
		q.Run(ctx, drain, func(ctx context.Context, d offload.Delivery) offload.Outcome { return g.deliver(ctx, q.Name(), d) })
	})
}

// end stops the workers, waits for them, and closes the store.
func (j *jobs) end() {
	j.mu.Lock()
	running := j.running
	j.life, j.running = nil, nil
	j.mu.Unlock()
	for _, w := range running {
		w.stop()
	}
	j.run.Wait()
	j.queues.Store(nil)
	if s := j.store.Swap(nil); s != nil {
		s.Close()
	}
}

// queue is that of a route; nil = none.
func (j *jobs) queue(route string) *offload.Queue {
	if all := j.queues.Load(); all != nil {
		return (*all)[route]
	}
	return nil
}

// Jobs is the store of work that was put off; nil when there is none, or Run is not under way.
func (g *Gateway) Jobs() *offload.Store { return g.jobs.store.Load() }

// putsOff reports whether a call of a route is to be answered before it is made. Who asks with a safe method wants to
// know something, and now.
func putsOff(r *http.Request, c *offload.QueueConfig) bool {
	switch {
	case c == nil:
		return false
	case r.Method == http.MethodGet, r.Method == http.MethodHead, r.Method == http.MethodOptions, r.Method == http.MethodTrace:
		return false
	case c.OnlyPreferred:
		return hasToken(r.Header["Prefer"], "respond-async")
	}
	return true
}

// serveOffload stores the call as a job and answers 202.
func (v *visit) serveOffload() {
	c := v.route.cfg.Offload
	body, err := v.wholeBody(c.BodyBytes)
	v.rec.RequestBytes = int64(len(body))
	if err != nil {
		v.rec.Latency = time.Since(v.start)
		v.refuse(err, err)
		return
	}
	q := v.g.jobs.queue(v.route.cfg.Name)
	job := v.job(c, body)
	receipt, err := offload.Receipt{}, offload.ErrUnreachable
	span := v.producer(job)
	if q != nil {
		receipt, err = q.Submit(v.r.Context(), job)
	}
	v.rec.Latency = time.Since(v.start)
	span.End = time.Now().UnixNano()
	span.Failed = err != nil
	span.Attributes = append(span.Attributes, trace.Attribute{Key: "messaging.message.id", Value: job.ID})
	v.x.spans.add(span)
	if errors.Is(err, offload.ErrUnreachable) && c.OnError == offload.Forward && v.r.Context().Err() == nil {
		v.forwardJob(job)
		return
	}
	if err != nil {
		v.rec.Class = call.Shed
		v.send(v.notStored(err))
		return
	}
	v.accepted(receipt, c.HideStatus)
}

// wholeBody reads the client's body into memory, up to most bytes.
func (v *visit) wholeBody(most int64) ([]byte, error) {
	l := v.g.table.Load().cfg.Limits
	if l.BodyBytes == 0 || l.BodyBytes > most {
		l.BodyBytes = most
	}
	l.ReplayBytes = l.BodyBytes
	in, err := v.g.receive(v.w, v.r, &l, need{again: true, copy: true})
	if err != nil {
		return nil, err
	}
	defer in.close()
	from, err := in.open()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(from)
}

// notDelivered are the request fields that mean something to this exchange only.
var notDelivered = []string{"Idempotency-Key", "X-Request-Timeout-Ms", "Grpc-Timeout", "X-Envoy-Expected-Rq-Timeout-Ms", "Prefer", "Te", "Content-Length", "Expect", "Connection", "Upgrade"}

// job is the call as it is stored: its target is what the client wrote, and rewritten with each delivery, its fields are
// those that the route has made of them. Credentials are kept, because the upstream wants them, unless the route strips them.
func (v *visit) job(c *offload.QueueConfig, body []byte) *offload.Job {
	h := v.x.header.Clone()
	for _, name := range notDelivered {
		delete(h, name)
	}
	for _, name := range c.StripHeaders {
		h.Del(name)
	}
	return &offload.Job{
		Key: v.r.Header.Get("Idempotency-Key"), Scope: scopeOf(v.r), Method: v.r.Method, Scheme: schemeOf(v.r), Host: v.r.Host,
		Target: targetOf(v.r), Header: h, Body: body,
	}
}

// scopeOf tells callers apart, so that nobody meets another's job by using the same key.
func scopeOf(r *http.Request) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q", r.Header["Cookie"])
	for _, name := range httpcache.Credentials {
		if lines := r.Header[name]; len(lines) > 0 {
			fmt.Fprintf(h, "%q%q", name, lines)
		}
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		h.Write(r.TLS.PeerCertificates[0].Raw)
	}
	fmt.Fprintf(h, "%q%q", r.Host, r.URL.Path)
	return hex.EncodeToString(h.Sum(nil))
}

// producer begins the span of the storing, which the deliveries have as their parent.
func (v *visit) producer(j *offload.Job) trace.Span {
	id := newID(1)
	j.Trace = "00-" + v.x.spans.origin.trace + "-" + id + "-" + v.x.spans.origin.flags
	return trace.Span{
		TraceID: v.x.spans.origin.trace, ID: id, Parent: v.x.spans.server, Kind: trace.Producer, Service: service,
		Name: "send " + v.route.cfg.Name, Start: time.Now().UnixNano(), Host: v.g.host,
		Attributes: messaging(v.route.cfg.Name, "send", "publish", len(j.Body)),
	}
}

func messaging(queue, kind, operation string, bytes int) []trace.Attribute {
	return []trace.Attribute{
		{Key: "messaging.system", Value: "nats"},
		{Key: "messaging.destination.name", Value: queue},
		{Key: "messaging.operation.type", Value: kind},
		{Key: "messaging.operation.name", Value: operation},
		{Key: "messaging.message.body.size", Value: strconv.Itoa(bytes)},
	}
}

// notStored is the answer to a call whose job is not safe.
func (v *visit) notStored(err error) refusal {
	switch {
	case errors.Is(err, offload.ErrFull):
		return refusal{http.StatusServiceUnavailable, "queue_full", "too many jobs wait", 5 * time.Second}
	case errors.Is(err, offload.ErrTooLarge):
		return refusal{http.StatusRequestEntityTooLarge, "body_too_large", "the call is too large for the job store", 0}
	case errors.Is(err, offload.ErrKey):
		return refusal{http.StatusBadRequest, "bad_request", fmt.Sprintf("want an Idempotency-Key of up to %d printable characters", offload.MaxKey), 0}
	case errors.Is(err, offload.ErrKeyReused):
		return refusal{http.StatusUnprocessableEntity, "key_reused", "the Idempotency-Key was used for another call", 0}
	}
	return refusal{http.StatusServiceUnavailable, "queue_unreachable", "the job store does not answer", time.Second}
}

// forwardJob makes the call at once, because it could not be stored. It has the key of the job, for that may have been
// stored even so.
func (v *visit) forwardJob(j *offload.Job) {
	v.r = v.r.Clone(v.r.Context())
	v.r.Header.Set("Idempotency-Key", j.Key)
	v.x.in = v.r
	v.x.header.Set("Idempotency-Key", j.Key)
	v.r.Body, v.r.ContentLength = io.NopCloser(bytes.NewReader(j.Body)), int64(len(j.Body))
	v.r.Trailer, v.r.TransferEncoding = nil, nil
	if len(j.Body) == 0 {
		v.r.Body = http.NoBody
	}
	v.forward()
}

// accepted answers 202.
func (v *visit) accepted(receipt offload.Receipt, hide bool) {
	body := struct {
		ID        string `json:"id"`
		StatusURL string `json:"status_url,omitempty"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{ID: receipt.ID, Duplicate: receipt.Duplicate}
	h := v.w.Header()
	if !hide {
		body.StatusURL = jobsPath + receipt.ID
		h.Set("Location", body.StatusURL)
	}
	if hasToken(v.r.Header["Prefer"], "respond-async") {
		h.Set("Preference-Applied", "respond-async")
	}
	v.status = http.StatusAccepted
	v.told = true // the figures of the route are of the deliveries
	v.deadline()
	v.rec.ResponseBytes = writeJSON(v.w, v.status, body)
	v.rec.Total = time.Since(v.start)
}

// writeJSON answers with what cannot fail to be JSON, and tells its length.
func writeJSON(w http.ResponseWriter, status int, body any) int64 {
	text, _ := json.Marshal(body)
	text = append(text, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text)
	return int64(len(text))
}

// serveJob tells a client where its job stands. Who knows an ID may ask: it is 128 bits, drawn by chance, or made of the
// Idempotency-Key and the caller's credentials, so that a key should be hard to guess where callers have none. Errors of
// upstreams are for the admin API only. It returns false when the path is not ours.
func (g *Gateway) serveJob(w http.ResponseWriter, r *http.Request) bool {
	queues := g.jobs.queues.Load()
	if queues == nil || !strings.HasPrefix(r.URL.Path, jobsPath) {
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, "", refusal{http.StatusMethodNotAllowed, "bad_request", "want GET or HEAD", 0})
		return true
	}
	store := g.jobs.store.Load()
	status, err := offload.Status{}, offload.ErrUnreachable
	if store != nil {
		status, err = store.Job(r.Context(), strings.TrimPrefix(r.URL.Path, jobsPath))
	}
	if err == nil {
		if q := (*queues)[status.Queue]; q == nil || q.Config().HideStatus {
			err = offload.ErrUnknown
		}
	}
	switch {
	case errors.Is(err, offload.ErrUnknown):
		refuse(w, "", refusal{http.StatusNotFound, "no_job", "no such job, or it ended long ago", 0})
	case err != nil:
		refuse(w, "", refusal{http.StatusServiceUnavailable, "queue_unreachable", "the job store does not answer", time.Second})
	default:
		writeJSON(w, http.StatusOK, status.Public())
	}
	return true
}

// deliver makes one attempt at a job, under the policy of its route.
func (g *Gateway) deliver(ctx context.Context, name string, d offload.Delivery) offload.Outcome {
	rt := g.table.Load().byName[name]
	target, err := url.ParseRequestURI(d.Job.Target)
	switch {
	case rt == nil:
		return offload.Outcome{Verdict: offload.Unsent, Reason: "no_route", Error: "the route is gone"}
	case err != nil:
		return offload.Outcome{Verdict: offload.Permanent, Reason: "bad_request", Error: err.Error()}
	}
	h := maps.Clone(d.Job.Header)
	h["Idempotency-Key"] = []string{d.Job.Key}
	like := &http.Request{Host: d.Job.Host}
	if d.Job.Scheme == "https" {
		like.TLS = new(tls.ConnectionState)
	}
	r := innerRequest(ctx, d.Job.Method, like)
	r.URL, r.Header, r.ContentLength = target, h, int64(len(d.Job.Body))
	if len(d.Job.Body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(d.Job.Body))
	}
	origin, ok := parseTraceparent(d.Job.Trace)
	if !ok {
		origin = parentage{trace: newID(2), flags: "01"}
	}
	c := g.call(&inner{
		route: rt, r: r, header: h, origin: origin, name: "process " + name, kind: trace.Consumer, again: true, limit: keptAnswer,
		caller: caller{priority: call.Background}, // nobody waits
		attrs: append(messaging(name, "process", "process", len(d.Job.Body)),
			trace.Attribute{Key: "messaging.message.id", Value: d.Job.ID},
			trace.Attribute{Key: "longpole.delivery", Value: strconv.Itoa(d.Attempt)},
			trace.Attribute{Key: "longpole.queue_wait_ms", Value: strconv.FormatInt(d.Waited.Milliseconds(), 10)}),
	})
	return verdict(c)
}

// keptAnswer is how much of the answer to a job is read. Who sends more has done the work.
const keptAnswer = 64 << 10

// verdict says what an answer means for the job. A job is done when the upstream said so, and not when a fallback did.
func verdict(c *captured) offload.Outcome {
	out := offload.Outcome{Status: c.status, Reason: c.rec.Class.String(), After: wished(c.head, time.Now())}
	own := c.reason()
	if c.over {
		own = ""
	}
	if own != "" {
		out.Status, out.Reason = 0, own
	}
	switch s := c.status; {
	case own != "" && c.rec.Count == 0:
		out.Verdict, out.Error = offload.Unsent, "nothing was sent: "+own
	case own != "", c.rec.Fallback:
		out.Verdict, out.Error = offload.Retry, "no answer: "+out.Reason
	case s < 400:
		return offload.Outcome{Verdict: offload.Delivered, Status: s}
	case s == http.StatusRequestTimeout, s == http.StatusConflict, s == http.StatusTooEarly, s == http.StatusTooManyRequests:
		// 409 is what a receiver says that still works on the same key.
		out.Verdict, out.Error = offload.Retry, answered(c)
	case s < 500, s == http.StatusNotImplemented, s == http.StatusHTTPVersionNotSupported:
		out.Verdict, out.Error = offload.Permanent, answered(c)
	default:
		out.Verdict, out.Error = offload.Retry, answered(c)
	}
	return out
}

// wished is how long the receiver wants to be left alone (Retry-After), in seconds or until a date; 0 = it does not say.
func wished(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(max(0, min(n, 86400))) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// answered is the error of a bad answer, with the beginning of its body, which often says what was wrong.
func answered(c *captured) string {
	text := strings.ToValidUTF8(string(c.body.Bytes()[:min(c.body.Len(), 256)]), "")
	return fmt.Sprintf("the upstream answered %d: %s", c.status, strings.TrimSpace(text))
}
