// Package ingest turns telemetry into traces: files on the way in for a diagnosis,
// and live OpenTelemetry data for a running gateway.
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
// stream one message at a time.
//
// # Live
//
// A [Receiver] answers OTLP over HTTP and gRPC and hands the spans to a function, in
// most programs the Add of an [Assembler], which joins them to traces in bounded memory.
//
// # What is kept of a span
//
// The fields of trace.Span, and attributes as text: at most 64 of the span and 64 of
// its resource, each value at most 4 KiB. Events and the message of a status are not
// kept. Identifiers stay as they are spelled. Spans without a trace ID, a span ID (of
// at most 256 bytes) or a readable time are counted as invalid and left out; a span
// that ends before it starts is kept, for the diagnosis to judge.
package ingest
