package lab

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// How spans leave: a batch goes when it is full or this old.
const (
	spanQueue   = 8192
	spanBatch   = 512
	spanLinger  = 200 * time.Millisecond
	sendTimeout = 5 * time.Second
)

// exporter is the SDK's batch processor and OTLP/HTTP exporter, shared by all processes of a lab: each has a tracer provider of
// its own, and one queue and one connection carry the spans of all. Spans that find the queue full, or whose batch is not
// accepted, are dropped and counted: telemetry never slows the services down. The exporter stands as processor in front
// of the SDK's, which would drop without counting.
type exporter struct {
	client   *http.Client
	receiver atomic.Pointer[otlptrace.Exporter]
	batches  sdktrace.SpanProcessor // nil before start
	ending   atomic.Bool
	pending  atomic.Int64
	dropped  atomic.Uint64
	sent     atomic.Uint64
}

func newExporter(url string) *exporter {
	e := &exporter{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: sendTimeout}}
	e.connect(url)
	return e
}

// connect tells where spans go from now on; "" = nowhere.
func (e *exporter) connect(url string) {
	if url == "" {
		e.receiver.Store(nil)
		return
	}
	e.receiver.Store(otlptrace.NewUnstarted(otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(url), otlptracehttp.WithHTTPClient(e.client),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}), // what waits for another try would fill the queue
	)))
}

// start lets batches leave. It comes before the first span.
func (e *exporter) start() {
	e.batches = sdktrace.NewBatchSpanProcessor(batches{e}, sdktrace.WithMaxQueueSize(spanQueue+spanBatch),
		sdktrace.WithMaxExportBatchSize(spanBatch), sdktrace.WithBatchTimeout(spanLinger), sdktrace.WithExportTimeout(sendTimeout))
}

// finish sends what is left, when nothing ends spans any more. It gives up at the first batch that is not accepted, so that a
// receiver that hangs holds up the end by one timeout and not by one for each batch.
func (e *exporter) finish() {
	e.ending.Store(true)
	_ = e.batches.Shutdown(context.Background()) // what it did not send is counted; sendTimeout bounds it
	e.client.CloseIdleConnections()
}

// OnEnd takes a span. It never blocks. Without a receiver it does nothing.
func (e *exporter) OnEnd(s sdktrace.ReadOnlySpan) {
	if e.batches == nil || e.receiver.Load() == nil {
		return
	}
	if e.pending.Add(1) > spanQueue {
		e.pending.Add(-1)
		e.dropped.Add(1)
		return
	}
	e.batches.OnEnd(s)
}

// OnStart has nothing to do.
func (e *exporter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// ForceFlush sends what waits.
func (e *exporter) ForceFlush(ctx context.Context) error { return e.batches.ForceFlush(ctx) }

// Shutdown does nothing: one process that ends leaves the others their exporter.
func (e *exporter) Shutdown(context.Context) error { return nil }

// batches sends what the SDK has gathered, and counts it.
type batches struct{ *exporter }

// ExportSpans returns no errors: they are counted, and the SDK would print them.
func (b batches) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := len(spans)
	to := b.receiver.Load()
	if to == nil || ctx.Err() != nil || to.ExportSpans(ctx, spans) != nil {
		b.dropped.Add(uint64(n))
		if b.ending.Load() {
			b.receiver.Store(nil)
		}
	} else {
		b.sent.Add(uint64(n))
	}
	b.pending.Add(-int64(n))
	return nil
}

// Shutdown has nothing to do: finish closes the connections.
func (b batches) Shutdown(context.Context) error { return nil }
