package ingest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

const corpora = "../../../shared/corpora"

// corpus returns the path of a folder of the shared corpora, or skips the test.
func corpus(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(corpora, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the corpus %s is not here", name)
	}
	return path
}

func TestRealTracesOfNezhaAreRead(t *testing.T) {
	dir := corpus(t, "nezha")
	files, _ := filepath.Glob(filepath.Join(dir, "trainticket-*")) // the larger half takes long under the race detector
	in, err := ReadPaths(context.Background(), files, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", in.Stats)
	if in.Stats.InvalidSpans != 0 || in.Stats.BadLines != 0 || in.Stats.Files != len(files) || len(files) < 10 || in.Stats.Spans < 50_000 || len(in.Warnings) > 0 {
		t.Errorf("got %+v, warnings %q", in.Stats, in.Warnings)
	}
}

func TestEveryCriticalPathCaseIsRead(t *testing.T) {
	dir := corpus(t, "critical-path")
	cases, _ := filepath.Glob(filepath.Join(dir, "*", "*", "trace.jaeger.json"))
	if len(cases) < 50 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		in, err := ReadPaths(context.Background(), []string{c}, nil, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if in.Stats.InvalidSpans != 0 || len(in.Warnings) != 0 {
			t.Errorf("%s: %+v %q", c, in.Stats, in.Warnings)
		}
	}
}
