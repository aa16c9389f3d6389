package lab

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// wire carries a span's identity from process to process: W3C trace context.
var wire propagation.TraceContext

// messagingSystem is what the queues are.
var messagingSystem = semconv.MessagingSystemKey.String("nats")

// process is what the OpenTelemetry SDK knows of one process of a service: its resource is of this process alone, so that
// one that was started again is told from the one before.
type process struct {
	instance string // service.instance.id
	began    time.Time
	tracer   trace.Tracer
}

// newProcess instruments a process of a service that begins now on a host. With e nil it sends no spans, and hands on
// those of its callers, as a program without instrumentation that forwards headers.
func newProcess(e *exporter, service, instance, host string) *process {
	p := &process{instance: instance, began: time.Now()}
	if e == nil {
		p.tracer = noop.NewTracerProvider().Tracer("")
		return p
	}
	attributes := []attribute.KeyValue{semconv.ServiceName(service), semconv.ServiceInstanceID(instance), semconv.ProcessCreationTime(p.began.UTC().Format(time.RFC3339Nano))}
	if host != "" {
		attributes = append(attributes, semconv.HostName(host))
	}
	p.tracer = sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(e), sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL, attributes...)),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // whatever a caller says: a lab wants to see all
	).Tracer("github.com/longpole/longpole/internal/lab")
	return p
}

// span is one that is still open.
type span struct {
	trace.Span
	skew time.Duration // of the clock that stamps it
}

// begin opens a span under that of ctx, and puts it into ctx. Without one there a trace begins. The process's clock is off by skew.
func (p *process) begin(ctx context.Context, kind trace.SpanKind, name string, skew time.Duration) (context.Context, *span) {
	ctx, s := p.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithTimestamp(time.Now().Add(skew)))
	return ctx, &span{Span: s, skew: skew}
}

func (x *span) set(attributes ...attribute.KeyValue) *span {
	x.SetAttributes(attributes...)
	return x
}

// at names the server that a call goes to, or that takes it.
func (x *span) at(host, port string) *span {
	x.SetAttributes(semconv.ServerAddress(host))
	if n, err := strconv.Atoi(port); err == nil {
		x.SetAttributes(semconv.ServerPort(n))
	}
	return x
}

// fail marks the span as failed for a reason of low cardinality.
func (x *span) fail(reason string) {
	x.SetAttributes(semconv.ErrorTypeKey.String(reason))
	x.SetStatus(codes.Error, reason)
}

// end closes the span and hands it on. Its length is taken from the monotonic clock, which both times carry.
func (x *span) end() { x.End(trace.WithTimestamp(time.Now().Add(x.skew))) }
