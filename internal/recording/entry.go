package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The bounds of one entry, as written and as read.
const (
	MaxBodyBytes = 1 << 20
	maxLineBytes = 2 << 20 // a body in base64, and the rest
	maxFields    = 64      // header fields
)

// ErrFormat says that a file is no recording, or one of a version that we do not know.
var ErrFormat = errors.New("recording: not a recording of version 1")

// ErrEntry says that a line of a recording is damaged.
var ErrEntry = errors.New("recording: damaged entry")

const (
	format  = "longpole-recording"
	version = 1
)

// Entry is one request, and what became of it.
type Entry struct {
	At      time.Duration       `json:"at"` // ns since the file's start
	Route   string              `json:"route,omitempty"`
	Method  string              `json:"method"`
	Host    string              `json:"host,omitempty"`
	Path    string              `json:"path"` // escaped, as it was sent
	Query   string              `json:"query,omitempty"`
	Header  map[string][]string `json:"header,omitempty"`
	Body    []byte              `json:"body,omitempty"`    // base64
	Clipped bool                `json:"clipped,omitempty"` // the body was longer than allowed, and is left out
	Status  int                 `json:"status,omitempty"`  // of the answer that was given
	Latency time.Duration       `json:"latency,omitempty"` // ns, to its head
}

// head is the first line of a file.
type head struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Start   time.Time `json:"start"`
}

func parseHead(line []byte) (time.Time, error) {
	var h head
	if err := json.Unmarshal(line, &h); err != nil || h.Format != format || h.Version != version {
		return time.Time{}, ErrFormat
	}
	return h.Start, nil
}

func parseEntry(line []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	switch {
	case e.At < 0, e.Method == "", len(e.Path) == 0, e.Path[0] != '/', len(e.Header) > maxFields, len(e.Body) > MaxBodyBytes:
		return Entry{}, fmt.Errorf("%w: want a time, a method, a path that starts with /, at most %d fields", ErrEntry, maxFields)
	}
	return e, nil
}
