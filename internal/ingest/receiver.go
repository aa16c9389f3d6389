package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/longpole/longpole/internal/trace"
)

// Full is what a Receiver's sink returns when it can take no spans now and the client shall try again later.
const Full = -1

const (
	maxBody     = 16 << 20 // bytes of one request, after decompression
	maxDecoding = 32       // requests decoded at once, each protocol's together
)

// A Receiver takes spans over OTLP, by HTTP and by gRPC, and hands them to its sink. It is safe
// for concurrent use, owns no goroutine and holds nothing between requests.
//
// A request may hold 16 MiB after decompression. When the sink is Full, or 32
// requests are being decoded already, a client is told to come again: 429 with
// Retry-After over HTTP, RESOURCE_EXHAUSTED over gRPC. What the sink rejects, and
// spans without IDs or readable times, are answered as partial_success.
type Receiver struct {
	sink  func(spans []trace.Span) (rejected int)
	slots chan struct{}
}

// NewReceiver returns a Receiver. sink is called once a request, by many goroutines at
// once; the spans are its own to keep. It returns how many it rejected for good, or Full.
func NewReceiver(sink func(spans []trace.Span) (rejected int)) *Receiver {
	return &Receiver{sink: sink, slots: make(chan struct{}, maxDecoding)}
}

// The ways a request can fail, as gRPC numbers them.
const (
	codeInvalid   = 3
	codeExhausted = 8
	codeUnknown   = 12 // unimplemented: the method or encoding is not offered
)

// A refusal is why a request was not taken.
type refusal struct {
	status int // of HTTP
	code   int // of gRPC
	text   string
}

func (r *refusal) Error() string { return r.text }

var errFull = &refusal{http.StatusTooManyRequests, codeExhausted, "the receiver is full; send this again later"}

// enter takes a slot for decoding a request; the caller calls leave when it is done.
func (r *Receiver) enter() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *Receiver) leave() { <-r.slots }

// accept decodes a request and hands it over. It returns how many spans were not taken.
func (r *Receiver) accept(body []byte, isJSON bool) (rejected int, refused *refusal) {
	var spans []trace.Span
	d := borrow(func(s trace.Span) { spans = append(spans, s) })
	defer giveBack(d)
	var err error
	if isJSON {
		err = d.otlpJSON(body)
	} else {
		err = d.otlp(body)
	}
	if err != nil {
		return 0, &refusal{http.StatusBadRequest, codeInvalid, "the request is no OTLP traces: " + err.Error()}
	}
	rejected = d.counts.Invalid
	if len(spans) == 0 {
		return rejected, nil
	}
	n := r.sink(spans)
	if n == Full {
		return 0, errFull
	}
	return rejected + n, nil
}

// HTTP answers POST /v1/traces with protobuf or JSON bodies, plain, gzip or zstd.
func (r *Receiver) HTTP() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/traces", r.serveTraces)
	return mux
}

func (r *Receiver) serveTraces(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
		return
	}
	media, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	isJSON := media == "application/json"
	if !isJSON && media != "application/x-protobuf" {
		refuse(w, true, &refusal{http.StatusUnsupportedMediaType, codeUnknown, "want Content-Type application/x-protobuf or application/json"})
		return
	}
	if !r.enter() {
		refuse(w, isJSON, errFull)
		return
	}
	defer r.leave()
	body, refused := readBody(w, req)
	if refused != nil {
		refuse(w, isJSON, refused)
		return
	}
	rejected, refused := r.accept(body, isJSON)
	if refused != nil {
		refuse(w, isJSON, refused)
		return
	}
	w.Header().Set("Content-Type", media)
	if isJSON {
		_, _ = io.WriteString(w, answerJSON(rejected))
		return
	}
	_, _ = w.Write(answer(rejected))
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
		z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, unreadable(err)
		}
		defer z.Close()
		from = z
	default:
		return nil, &refusal{http.StatusUnsupportedMediaType, codeUnknown, fmt.Sprintf("Content-Encoding %q is not known; want gzip or zstd", coding)}
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

var tooLarge = &refusal{http.StatusRequestEntityTooLarge, codeExhausted, "the request is longer than " + strconv.Itoa(maxBody) + " bytes"}

func unreadable(err error) *refusal {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return tooLarge
	}
	return &refusal{http.StatusBadRequest, codeInvalid, "the body cannot be read: " + err.Error()}
}

// refuse answers with a google.rpc.Status, as OTLP demands.
func refuse(w http.ResponseWriter, isJSON bool, why *refusal) {
	if why.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
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
	var status writer
	status.number(1, uint64(why.code))
	status.text(2, why.text)
	_, _ = w.Write(status.out)
}

const rejectedText = "spans were invalid, or more than can be kept"

// answer is an ExportTraceServiceResponse.
func answer(rejected int) []byte {
	if rejected <= 0 {
		return nil
	}
	var w writer
	w.message(1, func() {
		w.number(1, uint64(rejected))
		w.text(2, rejectedText)
	})
	return w.out
}

func answerJSON(rejected int) string {
	if rejected <= 0 {
		return "{}"
	}
	return fmt.Sprintf(`{"partialSuccess":{"rejectedSpans":"%d","errorMessage":%s}}`, rejected, strconv.Quote(rejectedText))
}
