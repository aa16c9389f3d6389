package diagnose_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
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
// the fault. Run it with -v for the table of docs/bench/rca.md.
func TestNezhaFindsTheFaultyService(t *testing.T) {
	if diagnose.RaceDetector {
		t.Skip("takes too long with the race detector; it is run without")
	}
	t.Parallel()
	list := labels(t)
	healthy := make(map[string][]trace.Trace)
	first, three, class := 0, 0, 0
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
				if i < 3 && strings.HasPrefix(l.Fault, x.Class) {
					class++
				}
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
	t.Logf("first: %d of %d; first three: %d of %d; class right: %d\n%s", first, len(list), three, len(list), class, table.String())
	if 100*first < 90*len(list) {
		t.Errorf("%d of %d faulty services stand first; want 90 %%", first, len(list))
	}
	if 100*three < 90*len(list) {
		t.Errorf("%d of %d faulty services stand among the first three; want 90 %%", three, len(list))
	}
	if 100*class < 75*three {
		t.Errorf("the class of %d of %d faulty services is right; want 75 %%", class, three)
	}
}

// variants runs what takes minutes and tells how much the result depends on what it should not depend on.
var variants = flag.Bool("variants", false, "judge the labelled traces under other names, with coarser clocks, and with fewer traces")

// TestNezhaVariants logs the cases in which the faulty service stands first, an innocent does, or nobody.
func TestNezhaVariants(t *testing.T) {
	if !*variants {
		t.Skip("run with -variants")
	}
	for _, v := range []struct {
		name   string
		step   int64 // of the clocks, ns
		rename bool
		keep   float64 // share of the traces
		runs   uint64
	}{
		{"as they are", 1, false, 1, 1},
		{"other names, no hosts", 1, true, 1, 1},
		{"microseconds", 1000, false, 1, 1},
		{"milliseconds", 1e6, false, 1, 1},
		{"four of five traces", 1, false, 0.8, 4},
		{"every other trace", 1, false, 0.5, 4},
		{"every fourth trace", 1, false, 0.25, 4},
	} {
		var first, innocent, silent int
		for run := range v.runs {
			r := rand.New(rand.NewPCG(run, 3))
			for _, l := range labels(t) {
				other := func(name string) []trace.Trace {
					traces := slices.DeleteFunc(read(t, name), func(trace.Trace) bool { return r.Float64() >= v.keep })
					for _, tr := range traces {
						for i := range tr.Spans {
							s := &tr.Spans[i]
							length := s.End - s.Start
							s.Start -= s.Start % v.step
							s.End = s.Start + length - length%v.step
							if v.rename {
								s.Service, s.Host = renamed(s.Service), ""
							}
						}
					}
					return traces
				}
				want := l.Service
				if v.rename {
					want = renamed(want)
				}
				switch c := diagnose.Compare(other(l.Suspect), other(l.Baseline)); {
				case len(c.Culprits) == 0:
					silent++
				case c.Culprits[0].Service == want:
					first++
				default:
					innocent++
				}
			}
		}
		t.Logf("| %s | %d | %d | %d |", v.name, first, innocent, silent)
	}
}

func renamed(service string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(service)))[:12] }

// TestNezhaHalvesDoNotDiffer compares files with themselves: two random halves of the same traffic, ten times. They are
// the healthy files, and with -variants all.
func TestNezhaHalvesDoNotDiffer(t *testing.T) {
	t.Parallel()
	files := make(map[string]bool)
	for _, l := range labels(t) {
		files[l.Baseline] = true
		if *variants {
			files[l.Suspect] = true
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	pairs, named, rounds := 0, 0, 10
	if diagnose.RaceDetector {
		rounds = 2
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		traces := read(t, name)
		for range rounds {
			r.Shuffle(len(traces), func(i, j int) { traces[i], traces[j] = traces[j], traces[i] })
			pairs++
			if c := diagnose.Compare(traces[:len(traces)/2], traces[len(traces)/2:]); len(c.Culprits) > 0 {
				named++
				t.Logf("%s: %s, %.2f ms", name, c.Culprits[0].Service, c.Culprits[0].ExcessMS)
			}
		}
	}
	t.Logf("named in %d of %d equal pairs", named, pairs)
	if 20*named > pairs {
		t.Errorf("in %d of %d equal pairs a service is named; want 5 %% at most", named, pairs)
	}
}
