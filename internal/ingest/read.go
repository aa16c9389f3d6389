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

	"github.com/longpole/longpole/internal/trace"
)

// ErrNoSpans is in the error for an input in which no span was found.
var ErrNoSpans = errors.New("no spans found")

const accepted = "OTLP (JSON, JSON lines, protobuf), Jaeger JSON and Zipkin v2 JSON are accepted, plain, gzip or zstd"

// Limits bounds what ReadPaths takes in. The zero value means the defaults.
type Limits struct {
	MessageBytes int64 // of one protobuf message; default 256 MiB. JSON needs no such limit: it is never held
	Spans        int   // of all files; further ones are counted and dropped; default 5 million, which take about 6 GB
}

func (l Limits) withDefaults() Limits {
	if l.MessageBytes <= 0 {
		l.MessageBytes = 256 << 20
	}
	if l.Spans <= 0 {
		l.Spans = 5_000_000
	}
	return l
}

// Input is what was read: the traces in the order in which they first appear, and what has to
// be said about them.
//
// Spans of a trace that have no attributes of their own share one list of attributes:
// it must not be changed in place.
type Input struct {
	Traces   []trace.Trace
	Stats    Stats
	Warnings []string // of files left out, lines left out, limits reached; at most 100
}

// Stats counts what was read.
type Stats struct {
	Files          int `json:"files"` // in which spans were found
	Traces         int `json:"traces"`
	Spans          int `json:"spans"`           // in Traces
	DuplicateSpans int `json:"duplicate_spans"` // equal in ID, times, name, service and parent to one that is kept; left out
	InvalidSpans   int `json:"invalid_spans"`   // without trace ID, span ID or readable times; left out
	DroppedSpans   int `json:"dropped_spans"`   // beyond Limits.Spans
	BadLines       int `json:"bad_lines"`       // lines of JSON-lines files that are no JSON; left out
	CutValues      int `json:"cut_values"`      // attributes and texts shortened or left out
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
// which names the place. In a folder such a file is left out with a warning; what was
// read of it before the fault is kept. Bad lines in JSON lines are left out with a warning
// everywhere. When nothing was found at all, the error wraps ErrNoSpans.
func (l Limits) ReadPaths(ctx context.Context, paths []string, stdin io.Reader, progress func(Progress)) (Input, error) {
	r := &reader{ctx: ctx, limits: l.withDefaults(), progress: progress, index: make(map[string]int)}
	r.decoder = newDecoder(r.add)
	r.decoder.chunk = 1024
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
	reported int64 // bytes at the last report
	decoder  *decoder
	index    map[string]int // trace ID to its place in input.Traces
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
	r.reported = r.at.Bytes
	if r.progress != nil {
		r.at.Spans = r.input.Stats.Spans
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
	c.at.Bytes += int64(n)
	if c.at.Bytes-c.reported >= 4<<20 {
		c.report()
	}
	return n, err
}

// add puts a span into its trace.
func (r *reader) add(s trace.Span) {
	if r.input.Stats.Spans >= r.limits.Spans {
		r.input.Stats.DroppedSpans++
		return
	}
	r.input.Stats.Spans++
	i, ok := r.index[s.TraceID]
	if !ok {
		i = len(r.input.Traces)
		r.index[s.TraceID] = i
		r.input.Traces = append(r.input.Traces, trace.Trace{ID: s.TraceID})
	}
	t := &r.input.Traces[i]
	s.TraceID = t.ID
	t.Spans = append(t.Spans, s)
}

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
	before := r.input.Stats.Spans + r.input.Stats.DroppedSpans
	invalid := r.decoder.counts.Invalid
	err := r.stream(countingReader{r, from}, f)
	r.decoder.drop(mark{})
	found := r.input.Stats.Spans + r.input.Stats.DroppedSpans - before
	if found > 0 {
		r.input.Stats.Files++
	}
	if err != nil {
		if found > 0 && !f.named {
			return fmt.Errorf("%w; the %d spans before that are kept", err, found)
		}
		return err
	}
	if found == 0 {
		if invalid = r.decoder.counts.Invalid - invalid; invalid > 0 {
			if invalid == 1 {
				return fmt.Errorf("%w: 1 span has no trace ID, no span ID or no readable times", ErrNoSpans)
			}
			return fmt.Errorf("%w: %d spans have no trace ID, no span ID or no readable times", ErrNoSpans, invalid)
		}
		return fmt.Errorf("%w; %s", ErrNoSpans, accepted)
	}
	return nil
}

// finish removes duplicates and closes the accounts.
func (r *reader) finish(paths []string) (Input, error) {
	in := &r.input
	in.Stats.InvalidSpans = r.decoder.counts.Invalid
	in.Stats.CutValues = r.decoder.counts.CutText
	in.Stats.Traces = len(in.Traces)
	var seen map[string]int
	for i := range in.Traces {
		var dropped int
		if seen, dropped = dedupe(&in.Traces[i], seen); dropped > 0 {
			in.Stats.DuplicateSpans += dropped
			in.Stats.Spans -= dropped
		}
	}
	if in.Stats.DroppedSpans > 0 {
		r.warn("%d spans beyond the first %d were dropped", in.Stats.DroppedSpans, r.limits.Spans)
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
	if len(in.Warnings) > 0 {
		return Input{}, fmt.Errorf("ingest: %w in %q: %s", ErrNoSpans, paths, in.Warnings[0])
	}
	return Input{}, fmt.Errorf("ingest: %w in %q; %s", ErrNoSpans, paths, accepted)
}

// dedupe removes spans that were exported twice: equal in all that places them. Spans
// that share an ID and differ are kept, for the diagnosis to judge. seen is scratch.
func dedupe(t *trace.Trace, seen map[string]int) (map[string]int, int) {
	if seen == nil || len(seen) > 4096 {
		seen = make(map[string]int, len(t.Spans))
	}
	clear(seen)
	kept := t.Spans[:0]
	for _, s := range t.Spans {
		i, ok := seen[s.ID]
		if ok && same(&kept[i], &s) {
			continue
		}
		if !ok {
			seen[s.ID] = len(kept)
		}
		kept = append(kept, s)
	}
	dropped := len(t.Spans) - len(kept)
	clear(t.Spans[len(kept):])
	t.Spans = kept
	return seen, dropped
}

func same(a, b *trace.Span) bool {
	return a.Start == b.Start && a.End == b.End && a.Kind == b.Kind && a.Parent == b.Parent && a.Service == b.Service && a.Name == b.Name
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
