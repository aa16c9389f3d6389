package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/ingest"
)

// spendMemory lets a command that reads files and then ends collect garbage seldom: that is a third of its time. It
// does so while there is little, and not against the will of GOGC.
func spendMemory() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(3 << 29)
	}
}

// onAllCores calls do with 0..n-1, as many at once as Go uses processors, each with the next that nobody has begun.
func onAllCores(n int, do func(i int)) {
	var next atomic.Int64
	var all errgroup.Group
	for range min(n, runtime.GOMAXPROCS(0)) {
		all.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
			return nil
		})
	}
	_ = all.Wait() // no call fails
}

// readInput reads trace files with progress, and prints what the reader must know as warnings.
func readInput(cmd *cobra.Command, paths []string) (ingest.Input, error) {
	spendMemory()
	show := newProgress(cmd.ErrOrStderr())
	type result struct {
		in  ingest.Input
		err error
	}
	read := make(chan result, 1)
	// On its own goroutine, since a read of standard input may wait for ever, and an interrupt must end that.
	go func() {
		in, err := ingest.ReadPaths(cmd.Context(), paths, cmd.InOrStdin(), func(p ingest.Progress) {
			show.Show("reading %s (%d of %d): %d MB, %d spans", p.File, p.Files+1, p.TotalFiles, p.Bytes/1e6, p.Spans)
		})
		read <- result{in, err}
	}()
	var in ingest.Input
	var err error
	select {
	case r := <-read:
		in, err = r.in, r.err
	case <-cmd.Context().Done():
		err = context.Cause(cmd.Context())
	}
	show.Clear()
	if err != nil {
		return in, &failure{code: exitError, err: err, hint: inputHint(err)}
	}
	for _, w := range in.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "longpole: warning:", w)
	}
	return in, nil
}

// inputHint is the mend of an input that could not be read. What a file of another kind should hold, its error says.
func inputHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "PATH is a file, a folder, or - for standard input"
	case errors.Is(err, ingest.ErrNoSpans):
		return ""
	}
	return "a faulty file in a folder is left out with a warning, and the others are read"
}

// checkOutput refuses an -o that the command does not have.
func checkOutput(output string, known ...string) error {
	if slices.Contains(known, output) {
		return nil
	}
	last := len(known) - 1
	want := known[last]
	if last > 0 {
		want = strings.Join(known[:last], ", ") + " or " + want
	}
	return usagef("want "+want, "unknown output %q", output)
}
