package diagnose_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

const nezha = "../../../shared/corpora/nezha"

// label is one injected fault and the files that show it.
type label struct{ Suspect, Baseline, Fault, Service string }

func labels(t *testing.T) []label {
	t.Helper()
	f, err := os.Open(filepath.Join(nezha, "labels.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no corpus at %s", nezha)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []label
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l label
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

func read(t *testing.T, name string) []trace.Trace {
	t.Helper()
	in, err := ingest.ReadPaths(t.Context(), []string{filepath.Join(nezha, name)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return in.Traces
}

// TestNezhaFindsTheFaultyService compares the real traces of two systems under 20 injected faults with those before
// the fault. Run it with -v for the table of docs/bench/nezha.md.
func TestNezhaFindsTheFaultyService(t *testing.T) {
	t.Parallel()
	list := labels(t)
	healthy := make(map[string][]trace.Trace)
	first, three := 0, 0
	var table strings.Builder
	for _, l := range list {
		if healthy[l.Baseline] == nil {
			healthy[l.Baseline] = read(t, l.Baseline)
		}
		c := diagnose.Compare(read(t, l.Suspect), healthy[l.Baseline])
		rank, named := 0, []string{}
		for i, x := range c.Culprits {
			if x.Service == l.Service && rank == 0 {
				rank = i + 1
			}
			if i < 3 {
				named = append(named, fmt.Sprintf("%s (%s, %.1f ms)", x.Service, x.Class, x.ExcessMS))
			}
		}
		if rank == 1 {
			first++
		}
		if rank >= 1 && rank <= 3 {
			three++
		}
		position := "-"
		if rank > 0 {
			position = fmt.Sprint(rank)
		}
		if len(named) == 0 {
			named = append(named, "no difference beyond chance")
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", strings.TrimSuffix(l.Suspect, ".otlp.jsonl.gz"), l.Fault, l.Service, position, strings.Join(named, ", "))
	}
	t.Logf("first: %d of %d; first three: %d of %d\n%s", first, len(list), three, len(list), table.String())
	if 100*first < 80*len(list) {
		t.Errorf("%d of %d faulty services stand first; want 80 %%", first, len(list))
	}
	if 100*three < 85*len(list) {
		t.Errorf("%d of %d faulty services stand among the first three; want 85 %%", three, len(list))
	}
}

// TestNezhaHalvesDoNotDiffer compares every file with itself: two random halves of the same traffic.
func TestNezhaHalvesDoNotDiffer(t *testing.T) {
	t.Parallel()
	files := make(map[string]bool)
	for _, l := range labels(t) {
		files[l.Suspect], files[l.Baseline] = true, true
	}
	r := rand.New(rand.NewPCG(1, 2))
	pairs, named := 0, 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		traces := read(t, name)
		for range 3 {
			r.Shuffle(len(traces), func(i, j int) { traces[i], traces[j] = traces[j], traces[i] })
			pairs++
			if c := diagnose.Compare(traces[:len(traces)/2], traces[len(traces)/2:]); len(c.Culprits) > 0 {
				named++
				t.Logf("%s: %s, %.2f ms", name, c.Culprits[0].Service, c.Culprits[0].ExcessMS)
			}
		}
	}
	t.Logf("named in %d of %d equal pairs", named, pairs)
	if 10*named > pairs {
		t.Errorf("in %d of %d equal pairs a service is named; want 10 %% at most", named, pairs)
	}
}
