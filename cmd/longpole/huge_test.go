package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// endless is an input that begins with head and goes on with fill until limit bytes were taken.
type endless struct {
	head, fill  string
	taken, size int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.taken >= e.size {
		return 0, io.EOF
	}
	n := copy(p, e.head)
	e.head = e.head[n:]
	for n < len(p) {
		n += copy(p[n:], e.fill)
	}
	e.taken += int64(n)
	return n, nil
}

// TestHugeLineIsNotHeldInMemory feeds single lines that never seem to end. Each is refused with its place, and neither
// held nor, where its first bytes say enough, read.
func TestHugeLineIsNotHeldInMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("streams 100 MB")
	}
	const size = 24 << 20
	protobuf := binary.AppendUvarint([]byte{1<<3 | 2}, 2<<30)
	tests := []struct {
		name       string
		head, fill string
		most       int64 // bytes that may be taken
		want       string
	}{
		{"no JSON", "", "aaaaaaaa", 1 << 20, `standard input: text that is no JSON`},
		{"a name without end", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"`, "aaaaaaaa", size + 1<<20, `standard input: line 1, byte \d{8,}: .*cut`},
		{"an unknown field without end", `{"resourceSpans":[{"other":[0`, ",1234567", size + 1<<20, `standard input: line 1, byte \d{8,}: .*cut`},
		{"a number without end", `[{"timestamp":1`, "00000000", size + 1<<20, `standard input: line 1, byte \d+: `},
		{"brackets without end", `{"resourceSpans":`, "[[[[[[[[", size + 1<<20, `standard input: line 1, byte \d+: `},
		{"a protobuf message of 2 GiB", string(protobuf), "\x0a\x80\x80\x80\x80\x04aa", 1 << 20, `standard input: .*longer than the limit`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := &endless{head: tt.head, fill: tt.fill, size: size}
			var out, errs bytes.Buffer
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			code := run(t.Context(), []string{"diagnose", "-"}, in, &out, &errs)
			runtime.ReadMemStats(&after)
			line, _, _ := strings.Cut(errs.String(), "\n")
			if len(line) > 300 {
				line = line[:300]
			}
			if code != exitError || out.Len() > 0 || !regexp.MustCompile(`^longpole: error: `+tt.want).MatchString(line) {
				t.Errorf("exits %d with %q; want 1 with %q", code, line, tt.want)
			}
			if in.taken > tt.most {
				t.Errorf("took %d bytes of the input; want at most %d", in.taken, tt.most)
			}
			if after.TotalAlloc-before.TotalAlloc > 8<<20 {
				t.Errorf("allocated %d bytes", after.TotalAlloc-before.TotalAlloc)
			}
		})
	}
}
