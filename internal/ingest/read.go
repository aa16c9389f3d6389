package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/longpole/longpole/internal/trace"
)

// ErrNoSpans is in the error for an input in which no span was found.
var ErrNoSpans = errors.New("no spans found")

const accepted = "OTLP (JSON, JSON lines, protobuf), Jaeger JSON and Zipkin v2 JSON are accepted, plain, gzip or zstd"

// Limits bounds what ReadPaths takes in. The zero value means the defaults. An input with more spans than fit is
// sampled trace by trace, and each trace that is kept has its weight: the slow and the failed stay before the others.
type Limits struct {
	MessageBytes int64 // of one protobuf message; default 256 MiB. JSON needs no such limit: it is never held
	Spans        int   // kept of all files; default 5 million
	Bytes        int64 // of memory that the spans take, estimated; default 512 MiB. Log records may take an eighth of it besides
	Workers      int   // goroutines that decode protobuf; default as many as Go uses processors
}

func (l Limits) withDefaults() Limits {
	if l.MessageBytes <= 0 {
		l.MessageBytes = 256 << 20
	}
	if l.Spans <= 0 {
		l.Spans = 5_000_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 1 << 29
	}
	if l.Workers <= 0 {
		l.Workers = runtime.GOMAXPROCS(0)
	}
	return l
}

// Input is what was read: the traces in the order in which they first appear, and what has to
// be said about them.
//
// Spans share attributes with each other, which must not be changed in place; see trace.Span.Unshare.
type Input struct {
	Traces   []trace.Trace // a span that was exported twice is there twice: the diagnosis keeps one
	Stats    Stats
	Warnings []string // of files left out, lines left out, limits reached; at most 100
}

// Stats counts what was read.
type Stats struct {
	Files         int `json:"files"` // in which spans or log records were found
	Traces        int `json:"traces"`
	Spans         int `json:"spans"`          // in Traces
	InvalidSpans  int `json:"invalid_spans"`  // without trace ID, span ID or readable times; left out
	DroppedSpans  int `json:"dropped_spans"`  // did not fit into Limits: of sampled traces, or too many in one
	SampledTraces int `json:"sampled_traces"` // left out of Traces, for which others carry weight
	BadLines      int `json:"bad_lines"`      // lines of JSON-lines files that are no JSON; left out
	CutValues     int `json:"cut_values"`     // attributes and texts shortened or left out

	Logs trace.LogCounts `json:"logs"`
}

// Progress is how far ReadPaths is. Bytes are as they stand in the files, compressed or not.
type Progress struct {
	File       string // being read
	Files      int    // read before it
	TotalFiles int
	Bytes      int64 // of all files so far
	TotalBytes int64 // standard input counts as 0
	Spans      int
}

// ReadPaths is Limits.ReadPaths with the default limits.
func ReadPaths(ctx context.Context, paths []string, stdin io.Reader, progress func(Progress)) (Input, error) {
	return Limits{}.ReadPaths(ctx, paths, stdin, progress)
}

// ReadPaths reads files, folders (with all below them, in sorted order) and, for "-",
// stdin, and joins their spans to traces. progress may be nil; it is called from the same goroutine.
//
// A file that is named and cannot be read, is damaged or holds no spans is an error,
// which names the place; one with log records alone is none, beside traces. In a folder such a file is left out with a warning; what was
// read of it before the fault is kept. Bad lines in JSON lines are left out with a warning
// everywhere. When nothing was found at all, the error wraps ErrNoSpans.
func (l Limits) ReadPaths(ctx context.Context, paths []string, stdin io.Reader, progress func(Progress)) (Input, error) {
	l = l.withDefaults()
	r := &reader{ctx: ctx, limits: l, progress: progress, gathered: newGatherer(l)}
	r.decoder = newDecoder(r.add)
	r.sink = logSink{least: trace.SeverityWarn, emit: r.gathered.logs.add}
	r.decoder.logs = &r.sink
	r.pipeline = newPipeline(l.Workers, r.take)
	files, err := r.list(paths)
	if err != nil {
		return Input{}, err
	}
	for i, f := range files {
		r.at.File, r.at.Files = f.name, i
		r.report()
		err := r.read(f, stdin)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return Input{}, context.Cause(ctx)
		case f.named:
			return Input{}, fmt.Errorf("ingest: %s: %w", f.name, err)
		default:
			r.warn("%s: left out: %v", f.name, err)
		}
	}
	return r.finish(paths)
}

// A file to read.
type file struct {
	name  string
	named bool // by the caller, not found in a folder
	size  int64
}

// list finds the files that paths name.
func (r *reader) list(paths []string) ([]file, error) {
	var files []file
	for _, p := range paths {
		if p == "-" {
			files = append(files, file{name: "standard input", named: true, size: -1})
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("ingest: %w", err)
		}
		if !info.IsDir() {
			files = append(files, file{name: p, named: true, size: info.Size()})
			continue
		}
		err = filepath.WalkDir(p, func(name string, d fs.DirEntry, err error) error {
			if r.ctx.Err() != nil {
				return context.Cause(r.ctx)
			}
			if err != nil {
				r.warn("%s: left out: %v", name, err)
				return nil
			}
			if d.IsDir() {
				return nil
			}
			info, err := os.Stat(name) // follows links to files
			if err != nil || !info.Mode().IsRegular() {
				r.warn("%s: left out: it is no regular file", name)
				return nil
			}
			files = append(files, file{name: name, size: info.Size()})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("ingest: %w", err)
		}
	}
	r.at.TotalFiles = len(files)
	for _, f := range files {
		r.at.TotalBytes += max(f.size, 0)
	}
	return files, nil
}

// A reader is one run of ReadPaths.
type reader struct {
	ctx      context.Context // of the one call that made the reader
	limits   Limits
	progress func(Progress)
	at       Progress
	bytes    atomic.Int64 // read so far
	reported int64        // of them, at the last report
	shared   bool         // several goroutines read: only what they read is counted on them
	decoder  *decoder
	pipeline *pipeline
	gathered *gatherer
	sink     logSink      // of the reader's own decoder
	chunk    []trace.Span // decoded and not yet gathered
	counts   counts       // of what the pipeline decoded
	spans    int          // so far
	fault    error        // of the pipeline in this file
	input    Input
	unsaid   int // warnings beyond the most that are kept
}

const maxWarnings = 100

func (r *reader) warn(format string, args ...any) {
	if len(r.input.Warnings) >= maxWarnings {
		r.unsaid++
		return
	}
	r.input.Warnings = append(r.input.Warnings, fmt.Sprintf(format, args...))
}

func (r *reader) report() {
	r.at.Bytes = r.bytes.Load()
	r.reported = r.at.Bytes
	if r.progress != nil {
		r.at.Spans = r.spans
		r.progress(r.at)
	}
}

// A countingReader counts what is read of a file and stops when the context ends.
type countingReader struct {
	*reader
	from io.Reader
}

func (c countingReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.from.Read(p)
	c.bytes.Add(int64(n))
	if !c.shared {
		c.progressed()
	}
	return n, err
}

// progressed reports progress, if it is enough.
func (r *reader) progressed() {
	if r.bytes.Load()-r.reported >= 4<<20 {
		r.report()
	}
}

// chunkSpans is how many spans are gathered at a time.
const chunkSpans = 512

// add takes a span of the reader's own decoder.
func (r *reader) add(s trace.Span) {
	if r.chunk == nil {
		r.chunk = make([]trace.Span, 0, chunkSpans)
	}
	r.chunk = append(r.chunk, s)
	r.spans++
	if len(r.chunk) == chunkSpans {
		r.gather()
	}
}

func (r *reader) gather() {
	r.gathered.add(r.decoder.size, r.chunk)
	r.chunk, r.decoder.size = nil, 0
}

// take takes a batch from the pipeline, unless the file was faulty before it.
func (r *reader) take(b *batch) error {
	if r.fault != nil {
		return r.fault
	}
	r.gather()
	r.spans += r.gathered.add(b.bytes, b.spans...)
	for i := range b.logs {
		r.gathered.logs.add(b.logs[i])
	}
	r.sink.minor += b.sink.minor
	r.sink.invalid += b.sink.invalid
	r.counts.Invalid += b.counts.Invalid
	r.counts.CutText += b.counts.CutText
	r.fault = b.err
	r.progressed()
	return r.fault
}

// whole reads one file to its end, or to its first fault.
func (r *reader) whole(from io.Reader, f file) error {
	r.fault = nil
	err := r.stream(countingReader{r, from}, f)
	r.gather()
	r.decoder.drop(mark{})
	if r.fault != nil {
		return r.fault
	}
	return err
}

// logs is how many log records were found so far.
func (r *reader) logs() int { return r.sink.minor + r.sink.invalid + r.gathered.logs.taken }

func (r *reader) invalid() int { return r.decoder.counts.Invalid + r.counts.Invalid }

// read reads one file.
func (r *reader) read(f file, stdin io.Reader) error {
	from := stdin
	if f.size >= 0 {
		opened, err := os.Open(f.name)
		if err != nil {
			return errors.Unwrap(err) // the caller names the file
		}
		defer func() { _ = opened.Close() }()
		from = opened
	}
	if from == nil {
		return errors.New("there is no standard input")
	}
	before, invalid, logs := r.spans, r.invalid(), r.logs()
	err := r.whole(from, f)
	found := r.spans - before
	logs = r.logs() - logs
	if found > 0 || logs > 0 {
		r.input.Stats.Files++
	}
	if err != nil {
		if found > 0 && !f.named {
			return fmt.Errorf("%w; the %d spans before that are kept", err, found)
		}
		return err
	}
	if found == 0 && logs == 0 {
		if invalid = r.invalid() - invalid; invalid > 0 {
			if invalid == 1 {
				return fmt.Errorf("%w: 1 span has no trace ID, no span ID or no readable times", ErrNoSpans)
			}
			return fmt.Errorf("%w: %d spans have no trace ID, no span ID or no readable times", ErrNoSpans, invalid)
		}
		return fmt.Errorf("%w; %s", ErrNoSpans, accepted)
	}
	return nil
}

// finish closes the accounts.
func (r *reader) finish(paths []string) (Input, error) {
	in := &r.input
	in.Stats.InvalidSpans = r.invalid()
	in.Stats.CutValues = r.decoder.counts.CutText + r.counts.CutText
	in.Traces = r.gathered.finish(r.limits.Workers)
	r.finishLogs()
	in.Stats.Traces = len(in.Traces)
	d := r.gathered.dropped
	in.Stats.DroppedSpans = int(d.Spans + d.LateSpans + d.TraceSpans)
	in.Stats.SampledTraces = int(d.Traces)
	in.Stats.Spans = r.spans - in.Stats.DroppedSpans
	if d.Traces > 0 {
		r.warn("the input takes more than %d MiB: %d of %d traces are kept, the slow and the failed before the others, and each stands for those like it that are not", r.limits.Bytes>>20, in.Stats.Traces, in.Stats.Traces+int(d.Traces))
	}
	if d.TraceSpans > 0 {
		r.warn("%d spans of traces that are too long were dropped", d.TraceSpans)
	}
	if in.Stats.InvalidSpans > 0 {
		r.warn("%d spans without trace ID, span ID or readable times were left out", in.Stats.InvalidSpans)
	}
	if r.unsaid > 0 {
		in.Warnings = append(in.Warnings, fmt.Sprintf("and %d more warnings", r.unsaid))
	}
	r.at.Files, r.at.File = r.at.TotalFiles, ""
	r.report()
	if in.Stats.Spans > 0 {
		return *in, nil
	}
	if n := in.Stats.Logs.Records; n > 0 {
		return Input{}, fmt.Errorf("ingest: %w in %q: %d log records, and no trace that they belong to", ErrNoSpans, paths, n)
	}
	if len(in.Warnings) > 0 {
		return Input{}, fmt.Errorf("ingest: %w in %q: %s", ErrNoSpans, paths, in.Warnings[0])
	}
	return Input{}, fmt.Errorf("ingest: %w in %q; %s", ErrNoSpans, paths, accepted)
}

// looksLikeText reports whether a file that starts with b may be text: it holds no control
// characters. Protobuf always does, in the tags of its fields.
func looksLikeText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// firstByte is the first byte of b that is no blank; 0 when there is none.
func firstByte(b []byte) byte {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, byteOrderMark), " \t\r\n")
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
