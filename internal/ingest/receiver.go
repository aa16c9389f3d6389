package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/longpole/longpole/internal/trace"
)

// Full is what a sink of a Receiver returns when it can take nothing now and the client shall try again later.
const Full = -1

const (
	maxBody  = 16 << 20 // bytes of one request, after decompression
	maxOpen  = 32       // requests read and decoded at once, all protocols together
	maxItems = 1 << 16  // spans, log records or points of one request; further ones are rejected

	retryAfter = 1 // seconds that a client shall wait when the receiver is full
)

// Sinks are where a Receiver hands over what it took. A sink is called at most once a request, by many goroutines at once;
// what it gets is its own to keep. It returns how many it rejected for good, or [Full]. What has no sink is not offered:
// clients get 404, or UNIMPLEMENTED.
type Sinks struct {
	Spans  func([]trace.Span) (rejected int)
	Logs   func([]trace.Log) (rejected int)
	Points func([]Point) (rejected int)
	// LeastSeverity is that of the log records taken; 0 = SeverityWarn. Records that name an exception are always
	// taken; those of a lower or unknown severity are counted, not rejected.
	LeastSeverity trace.Severity
}

// A Receiver takes spans, log records and metrics over OTLP, by HTTP and by gRPC, spans of Jaeger by gRPC and of Zipkin
// by HTTP, and hands them to its sinks. It is safe for concurrent use, owns no goroutine and holds nothing between
// requests but counts.
//
// A request may hold 16 MiB after decompression, and 65,536 spans, records or points. When a sink is Full, or 32
// requests are being taken already, a client is told to come again: 429 with Retry-After over HTTP, RESOURCE_EXHAUSTED
// with RetryInfo over gRPC. What a sink rejects, and what is invalid, is answered as partial_success.
type Receiver struct {
	sinks    Sinks
	slots    chan struct{} // of open requests
	decoding chan struct{} // one for each processor: more at once would only take more memory
	tallies  [protocols]tally
}

// NewReceiver returns a Receiver.
func NewReceiver(s Sinks) *Receiver {
	if s.LeastSeverity == 0 {
		s.LeastSeverity = trace.SeverityWarn
	}
	return &Receiver{sinks: s, slots: make(chan struct{}, maxOpen), decoding: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// A protocol is one kind of request.
type protocol uint8

const (
	otlpTraces protocol = iota
	otlpLogs
	otlpMetrics
	jaegerTraces
	zipkinTraces
	protocols
)

// String is the name as it stands in counts.
func (p protocol) String() string {
	return [...]string{"otlp_traces", "otlp_logs", "otlp_metrics", "jaeger", "zipkin"}[p]
}

// offered reports whether there is a sink for it.
func (r *Receiver) offered(p protocol) bool {
	switch p {
	case otlpLogs:
		return r.sinks.Logs != nil
	case otlpMetrics:
		return r.sinks.Points != nil
	}
	return r.sinks.Spans != nil
}

// The ways a request can fail, as gRPC numbers them.
const (
	codeInvalid   = 3
	codeExhausted = 8
	codeUnknown   = 12 // unimplemented: the method or encoding is not offered
)

// A refusal is why a request was not taken.
type refusal struct {
	reason string // as it stands in counts
	status int    // of HTTP
	code   int    // of gRPC
	text   string
}

func (r *refusal) Error() string { return r.text }

var errFull = &refusal{"full", http.StatusTooManyRequests, codeExhausted, "the receiver is full; send this again later"}

// enter takes a slot for a request; the caller calls leave when it is done.
func (r *Receiver) enter() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *Receiver) leave() { <-r.slots }

// accept decodes a request and hands it over. It returns how many spans, records or points were not taken.
func (r *Receiver) accept(p protocol, body []byte, isJSON bool) (rejected int, refused *refusal) {
	t, refused := r.decode(p, body, isJSON)
	if refused != nil {
		return 0, refused
	}
	n := 0
	if t.taken > 0 {
		if n = t.hand(); n == Full {
			return 0, errFull
		}
	}
	r.tallies[p].add(&t, n)
	return t.counts.Invalid + t.counts.Excess + n, nil
}

// taken is what was decoded of one request.
type taken struct {
	counts counts
	minor  int
	absent int
	taken  int
	hand   func() (rejected int) // gives it to its sink
}

func (r *Receiver) decode(p protocol, body []byte, isJSON bool) (t taken, refused *refusal) {
	r.decoding <- struct{}{}
	defer func() { <-r.decoding }()
	var spans []trace.Span
	d := borrow(func(s trace.Span) { spans = append(spans, s) })
	defer giveBack(d)
	d.most = maxItems
	var records []trace.Log
	logs, points := logSink{least: r.sinks.LeastSeverity, emit: func(l trace.Log) { records = append(records, l) }}, pointSink{}
	if err := d.request(p, body, isJSON, &logs, &points); err != nil {
		return t, &refusal{"malformed", http.StatusBadRequest, codeInvalid, fmt.Sprintf("the request is no %s: %v", p, err)}
	}
	t = taken{counts: d.counts, minor: logs.minor, absent: points.absent}
	t.counts.Invalid += logs.invalid
	switch p {
	case otlpLogs:
		t.taken, t.hand = len(records), func() int { return r.sinks.Logs(records) }
	case otlpMetrics:
		t.taken, t.hand = len(points.points), func() int { return r.sinks.Points(points.points) }
	default:
		t.taken, t.hand = len(spans), func() int { return r.sinks.Spans(spans) }
	}
	return t, nil
}

// request decodes a request of that protocol.
func (d *decoder) request(p protocol, body []byte, isJSON bool, logs *logSink, points *pointSink) error {
	switch {
	case p == otlpTraces && isJSON:
		return d.otlpJSON(body)
	case p == otlpTraces:
		return d.otlp(body)
	case p == otlpLogs && isJSON:
		return d.otlpLogsJSON(body, logs)
	case p == otlpLogs:
		return d.otlpLogs(body, logs)
	case p == otlpMetrics && isJSON:
		return d.otlpPointsJSON(body, points)
	case p == otlpMetrics:
		return d.otlpPoints(body, points)
	case p == jaegerTraces:
		return d.jaegerBatch(body)
	case isJSON:
		return d.zipkinJSON(body)
	}
	return d.zipkinSpans(body)
}

// HTTP answers POST /v1/traces, /v1/logs and /v1/metrics with protobuf or JSON bodies, plain, gzip or zstd.
func (r *Receiver) HTTP() http.Handler {
	mux := http.NewServeMux()
	for p, path := range map[protocol]string{otlpTraces: "/v1/traces", otlpLogs: "/v1/logs", otlpMetrics: "/v1/metrics"} {
		if r.offered(p) {
			mux.HandleFunc(path, func(w http.ResponseWriter, req *http.Request) { r.serveOTLP(w, req, p) })
		}
	}
	return mux
}

// Zipkin answers POST /api/v2/spans with JSON or protobuf bodies, plain, gzip or zstd, as a Zipkin server does: 202
// and no body.
func (r *Receiver) Zipkin() http.Handler {
	mux := http.NewServeMux()
	if r.offered(zipkinTraces) {
		mux.HandleFunc("/api/v2/spans", r.serveZipkin)
	}
	return mux
}

// serve takes a request. It returns how many spans, records or points were rejected, or why it was refused as a whole.
func (r *Receiver) serve(w http.ResponseWriter, req *http.Request, p protocol) (rejected int, isJSON bool, refused *refusal) {
	media, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	isJSON = media == "application/json" || media == "" && p == zipkinTraces
	if !isJSON && media != "application/x-protobuf" {
		return 0, false, &refusal{"unsupported", http.StatusUnsupportedMediaType, codeUnknown, "want Content-Type application/x-protobuf or application/json"}
	}
	if req.ContentLength > maxBody {
		return 0, isJSON, tooLarge
	}
	if !r.enter() {
		return 0, isJSON, errFull
	}
	defer r.leave()
	body, refused := readBody(w, req)
	if refused == nil {
		rejected, refused = r.accept(p, body, isJSON)
	}
	return rejected, isJSON, refused
}

func (r *Receiver) serveOTLP(w http.ResponseWriter, req *http.Request, p protocol) {
	if !onlyPost(w, req) {
		return
	}
	rejected, isJSON, refused := r.serve(w, req, p)
	if refused != nil {
		r.tallies[p].refuse(refused)
		refuse(w, isJSON, refused)
		return
	}
	if isJSON {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answerJSON(p, rejected))
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer(p, rejected))
}

func (r *Receiver) serveZipkin(w http.ResponseWriter, req *http.Request) {
	if !onlyPost(w, req) {
		return
	}
	_, _, refused := r.serve(w, req, zipkinTraces)
	if refused == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	r.tallies[zipkinTraces].refuse(refused)
	if refused.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	http.Error(w, refused.text, refused.status)
}

func onlyPost(w http.ResponseWriter, req *http.Request) bool {
	if req.Method == http.MethodPost {
		return true
	}
	w.Header().Set("Allow", http.MethodPost)
	http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
	return false
}

// readBody reads and decompresses the body of a request, within maxBody.
func readBody(w http.ResponseWriter, req *http.Request) ([]byte, *refusal) {
	var from io.Reader = http.MaxBytesReader(w, req.Body, maxBody)
	switch coding := strings.ToLower(req.Header.Get("Content-Encoding")); coding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, unreadable(err)
		}
		from = z
	case "zstd":
		z, err := newZstd(from)
		if err != nil {
			return nil, unreadable(err)
		}
		defer z.Close()
		from = z
	default:
		return nil, &refusal{"unsupported", http.StatusUnsupportedMediaType, codeUnknown, fmt.Sprintf("Content-Encoding %q is not known; want gzip or zstd", coding)}
	}
	body, err := io.ReadAll(io.LimitReader(from, maxBody+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(body) > maxBody {
		return nil, tooLarge
	}
	return body, nil
}

// newZstd decompresses within what a request may take. It is used once: pooled decoders hold channels.
func newZstd(from io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderMaxWindow(8<<20))
}

var tooLarge = &refusal{"too_large", http.StatusRequestEntityTooLarge, codeExhausted, "the request is longer than " + strconv.Itoa(maxBody) + " bytes"}

func unreadable(err error) *refusal {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return tooLarge
	}
	return &refusal{"malformed", http.StatusBadRequest, codeInvalid, "the body cannot be read: " + err.Error()}
}

// refuse answers with a google.rpc.Status, as OTLP demands.
func refuse(w http.ResponseWriter, isJSON bool, why *refusal) {
	if why.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if isJSON {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(why.status)
		text, _ := json.Marshal(why.text) // a string always has a spelling
		_, _ = fmt.Fprintf(w, `{"code":%d,"message":%s}`, why.code, text)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(why.status)
	_, _ = w.Write(why.message())
}

// message is the google.rpc.Status of a refusal, with a RetryInfo where to come again helps.
func (r *refusal) message() []byte {
	var w writer
	w.number(1, uint64(r.code))
	w.text(2, r.text)
	if r == errFull {
		w.message(3, func() { // google.protobuf.Any
			w.text(1, "type.googleapis.com/google.rpc.RetryInfo")
			w.message(2, func() { w.message(1, func() { w.number(1, retryAfter) }) })
		})
	}
	return w.out
}

// rejectedNames are the members of a partial success in JSON.
var rejectedNames = [...]string{otlpTraces: "rejectedSpans", otlpLogs: "rejectedLogRecords", otlpMetrics: "rejectedDataPoints"}

const rejectedText = "what was rejected is invalid, or more than can be kept"

// answer is an ExportTraceServiceResponse or one of its siblings, which look alike; empty = all was taken. Jaeger's has
// no fields at all.
func answer(p protocol, rejected int) []byte {
	if rejected <= 0 || p == jaegerTraces {
		return nil
	}
	var w writer
	w.message(1, func() {
		w.number(1, uint64(rejected))
		w.text(2, rejectedText)
	})
	return w.out
}

func answerJSON(p protocol, rejected int) string {
	if rejected <= 0 {
		return "{}"
	}
	return fmt.Sprintf(`{"partialSuccess":{"%s":"%d","errorMessage":%s}}`, rejectedNames[p], rejected, strconv.Quote(rejectedText))
}
