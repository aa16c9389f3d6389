package recording

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	prefix = "traffic-"
	suffix = ".jsonl.zst"

	// frameBytes is how much is gathered before a frame is written, and lost at most in a crash beside what came since
	// the last Flush.
	frameBytes = 256 << 10
)

// ErrClosed says that a writer was used after Close.
var ErrClosed = errors.New("recording: the writer is closed")

// Writer writes entries to the files of a directory. It is used by one goroutine and blocks on the disk. After an error
// it begins a new file with the next entry, so that a disk that was full is used again when it is not.
type Writer struct {
	files   Files
	scrub   Scrub
	encoder *zstd.Encoder
	frame   []byte // lines, not yet written
	packed  []byte

	out     *os.File // nil = none is open
	scrubs  *scrubber
	start   time.Time
	written int64
	closed  bool
}

// NewWriter makes the directory and opens no file yet. files must be valid; its defaults are filled in.
func NewWriter(files Files, scrub Scrub) (*Writer, error) {
	files = files.WithDefaults()
	// Recordings are nobody's business but the operator's.
	if err := os.MkdirAll(files.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("recording: zstd: %w", err)
	}
	return &Writer{files: files, scrub: scrub, encoder: e}, nil
}

// Write adds e, which began at the moment at; its At is set, and what must not be written is left out of it. Entries may
// come out of order; one from before the file's start gets its start.
func (w *Writer) Write(at time.Time, e Entry) error {
	if w.closed {
		return ErrClosed
	}
	if w.out != nil && (w.written+int64(len(w.frame))/4 >= w.files.MaxFileBytes || at.Sub(w.start) >= w.files.MaxAge) {
		if err := w.end(); err != nil {
			return err
		}
	}
	if w.out == nil {
		if err := w.begin(at); err != nil {
			return err
		}
	}
	e = w.scrubs.scrub(e)
	e.At = max(0, at.Sub(w.start))
	if err := w.line(e); err != nil {
		return err
	}
	if len(w.frame) >= frameBytes {
		return w.Flush()
	}
	return nil
}

func (w *Writer) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	w.frame = append(append(w.frame, text...), '\n')
	return nil
}

// begin opens the next file and removes the oldest ones.
func (w *Writer) begin(at time.Time) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	f, err := create(w.files.Dir, at)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	w.out, w.start, w.written, w.frame = f, at, 0, w.frame[:0]
	w.scrubs = newScrubber(w.scrub, secret)
	if err := w.line(head{Format: format, Version: version, Start: at.UTC()}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil { // an empty file is a recording too
		return err
	}
	return w.prune()
}

// create opens a new file, named by the moment at, or by one of the next when that is taken.
func create(dir string, at time.Time) (f *os.File, err error) {
	for i := range 100 {
		name := prefix + at.Add(time.Duration(i)).UTC().Format("20060102T150405.000000000Z") + suffix
		f, err = os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	return f, err
}

func (w *Writer) prune() error {
	all, err := List(w.files.Dir)
	if err != nil {
		return err
	}
	for len(all) > w.files.MaxFiles {
		if err := os.Remove(all[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("recording: %w", err)
		}
		all = all[1:]
	}
	return nil
}

// Flush writes what was gathered as a frame. It should be called once a second or so; without entries it does nothing.
func (w *Writer) Flush() error {
	if w.out == nil || len(w.frame) == 0 {
		return nil
	}
	w.packed = w.encoder.EncodeAll(w.frame, w.packed[:0])
	w.frame = w.frame[:0]
	n, err := w.out.Write(w.packed)
	w.written += int64(n)
	if err != nil {
		_ = w.out.Close()
		w.out = nil
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

func (w *Writer) end() error {
	err := w.Flush()
	if w.out != nil {
		err = errors.Join(err, w.out.Close())
		w.out = nil
	}
	return err
}

// Close writes what was gathered and ends the file.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return errors.Join(w.end(), w.encoder.Close())
}

// List is the recordings in a directory, the oldest first.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(all) // the names are moments
	return all, nil
}
