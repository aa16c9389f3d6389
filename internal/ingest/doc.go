// Package ingest turns telemetry into traces: files on the way in for a diagnosis,
// and live data for a running gateway.
//
// # Files
//
// [ReadPaths] reads files, folders and standard input. What a file holds is told by
// its content, never by its name:
//
//   - OTLP JSON: one document, or JSON lines as the Collector's file exporter writes them
//   - OTLP protobuf: one message, or a stream of messages, each after its length
//     (4 bytes big-endian as the Collector writes it, or a varint)
//   - Jaeger: the answer of its HTTP API, or the traces in it
//   - Zipkin v2 JSON: spans, or arrays of spans
//
// each plain, gzip or zstd. Everything is decoded as it streams by: no document, line or
// archive is ever held as a whole, only the spans taken from it, and of a protobuf
// stream a few messages at a time, on as many goroutines as there are processors.
//
// # Live
//
// A [Receiver] answers OTLP over HTTP and gRPC (spans, log records and metrics), Jaeger's gRPC and Zipkin's HTTP, and hands what it
// took to functions: spans and logs in most programs to an [Assembler], which joins them to traces in bounded memory;
// metrics as [Point] values to whoever wants them.
//
// # What is kept when there is too much
//
// Files beyond [Limits] and live traces beyond [AssemblerConfig] are sampled by whole traces: the slow and the failed of
// every route stay before the others, of these a uniform share, and every trace that is kept has its weight, so that
// weighted percentiles stay true. What a trace's ID and the seed are decides, so that a sample can be repeated.
// Whatever was dropped is counted by its reason.
//
// # What is kept of a span
//
// The fields of trace.Span, and attributes as text: at most 64 of the span and 64 of
// its resource, each value at most 4 KiB. Events and the message of a status are not
// kept. Identifiers stay as they are spelled. Spans without a trace ID, a span ID (of
// at most 256 bytes) or a readable time are counted as invalid and left out; a span
// that ends before it starts is kept, for the diagnosis to judge.
package ingest
