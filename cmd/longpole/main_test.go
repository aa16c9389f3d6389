package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"longpole": main, "chaos-backend": chaosBackend, "chaos-nats": chaosNATS})
}

// TestScript runs testdata/script, one file a subject. Beside the commands of testscript there are:
//
//	exits CODE ARG...        run longpole ARG... and want this exit code
//	otlp TEXT FILE [N]       write a trace of internal/trace's notation as OTLP protobuf, N copies with IDs of their own
//	compress gz|zst IN OUT   compress a file
//	head BYTES IN OUT        cut a file
//	shuffle IN OUT           mix the lines of a file
//	serve VARIABLE DIR [KEY] answer requests for a path whose last part is NAME with DIR/NAME.json, at the URL that goes into
//	                         the variable; with KEY only those that show it as their bearer token
//	partition                want each line of the last output to be a path whose sections partition its duration
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "", // rewrites the files that cmp compares with
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "otlp": otlp, "compress": compress, "head": head, "shuffle": shuffle, "serve": serveFiles,
			"partition": partition,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("LONGPOLE_ADMIN_TOKEN", "")
			e.Setenv("LONGPOLE_ADMIN", "")
			return nil
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	err := ts.Exec("longpole", args[1:]...)
	code := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("longpole %s exits %d; want %s\n%s", strings.Join(args[1:], " "), code, args[0], ts.ReadFile("stderr"))
	}
}

func otlp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: otlp TEXT FILE [N]")
	}
	copies := 1
	if len(args) > 2 {
		var err error
		copies, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	var all []trace.Span
	for i := range copies {
		t, err := trace.Parse(ts.ReadFile(args[0]))
		ts.Check(err)
		ids := map[string]string{"": ""}
		for n, s := range t.Spans {
			ids[s.ID] = fmt.Sprintf("%016x", n+1)
		}
		for _, s := range t.Spans {
			if s.TraceID = fmt.Sprintf("%032x", i+1); t.ID != "t" {
				s.TraceID = fmt.Sprint(t.ID, i) // becomes a hash
			}
			if s.ID, s.Parent = ids[s.ID], ids[s.Parent]; s.ID == "" {
				ts.Fatalf("%s: a span without ID", args[0])
			}
			all = append(all, s)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), ingest.EncodeOTLP(all), 0o600))
}

func compress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: compress gz|zst IN OUT")
	}
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if args[0] == "zst" {
		z, err := zstd.NewWriter(&out)
		ts.Check(err)
		w = z
	}
	_, err := io.WriteString(w, ts.ReadFile(args[1]))
	ts.Check(err)
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), out.Bytes(), 0o600))
}

func head(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: head BYTES IN OUT")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(ts.ReadFile(args[1])[:n]), 0o600))
}

func shuffle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shuffle IN OUT")
	}
	lines := strings.SplitAfter(strings.TrimSuffix(ts.ReadFile(args[0]), "\n")+"\n", "\n")
	lines = lines[:len(lines)-1]
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "")), 0o600))
}

func serveFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: serve VARIABLE DIR [KEY]")
	}
	dir := ts.MkAbs(args[1])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(args) == 3 && r.Header.Get("Authorization") != "Bearer "+args[2] {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		http.ServeFile(w, r, filepath.Join(dir, path.Base(r.URL.Path)+".json"))
	}))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}

func partition(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: partition")
	}
	lines := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		var p pathLine
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		ts.Check(d.Decode(&p))
		lines++
		if p.TraceID == "" || p.RootSpanID == "" || len(p.Sections) == 0 {
			ts.Fatalf("an ID or the sections are missing in %s", line)
		}
		at := p.Sections[0].StartNS
		end := at + p.DurationNS
		for _, s := range p.Sections {
			if s.StartNS != at || s.EndNS <= s.StartNS || s.SpanID == "" {
				ts.Fatalf("section %+v does not start at %d in %s", s, at, line)
			}
			at = s.EndNS
		}
		if at != end {
			ts.Fatalf("the sections end at %d and the span at %d in %s", at, end, line)
		}
	}
	if lines == 0 {
		ts.Fatalf("no path in the output")
	}
}
