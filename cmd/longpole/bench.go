package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/rca"
	"github.com/longpole/longpole/internal/trace"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how right the diagnosis is, on labelled traces",
		Args:  onlyCommands,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchRCA())
	return cmd
}

const benchRCALong = `Compare the suspect with the healthy traces of every case of a corpus, as ` + "`longpole diagnose --baseline`" + ` does, and score
the culprits against the labels: how often the faulty service stands first, among the first three and the first five,
and whether its class is right.

CORPUS is a folder with a file labels.jsonl, or that file. It has one JSON object a line for each case:

  {"suspect": "slow.json.gz", "baseline": ["monday.json", "tuesday/"], "service": "cart", "fault": "cpu_contention"}

  suspect    path or list of paths: traces under the fault; relative to the labels, in any format that diagnose reads
  baseline   path or list of paths: healthy traces of the same system
  service    the culprit, or "" when nothing is wrong and no difference should be found; several as a list in "services"
  fault      type of fault, by which results are grouped (default none)
  class      cpu, network, ... that the culprit should get; by default what the words of the fault say, if anything
  system     by which results are grouped too (default: the first suspect's name up to its first figure)
  name       of the case (default: the first suspect's name without extensions)

Exit codes: 0 done, 99 the accuracy is below one of the minima.`

// minima is the accuracy that must be reached. A negative share asks for nothing.
type minima struct{ top1, top3, top5, class, quiet share }

// share is a flag that takes 90% and 0.9.
type share float64

func (s *share) String() string {
	if *s < 0 {
		return ""
	}
	return fmt.Sprintf("%g%%", 100*float64(*s))
}

func (s *share) Set(text string) error {
	v, err := parseShare(text)
	if err != nil || v < 0 || v > 1 {
		return errors.New("want a share from 0% to 100%")
	}
	*s = share(v)
	return nil
}

func (s *share) Type() string { return "SHARE" }

func newBenchRCA() *cobra.Command {
	want := minima{-1, -1, -1, -1, -1}
	var output string
	cmd := &cobra.Command{
		Use:   "rca [flags] CORPUS",
		Short: "Score the culprits against labelled faults: top-1, top-3, top-5 and class",
		Long:  benchRCALong,
		Example: `  longpole bench rca corpus/
  longpole bench rca --min-top1 90% --min-top3 95% corpus/
  longpole bench rca -o json corpus/ | jq '.results[] | select(.rank != 1)'`,
		Args: oneArg("a folder with labels.jsonl"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			report, err := benchRCA(cmd, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), report)
			} else {
				err = renderRCA(cmd.OutOrStdout(), report)
			}
			if err != nil {
				return err
			}
			return want.check(report.Total)
		},
	}
	f := cmd.Flags()
	f.Var(&want.top1, "min-top1", "`SHARE` of faults whose culprit must stand first, as 90%")
	f.Var(&want.top3, "min-top3", "`SHARE` of faults whose culprit must be among the first three")
	f.Var(&want.top5, "min-top5", "`SHARE` of faults whose culprit must be among the first five")
	f.Var(&want.class, "min-class", "`SHARE` of the classes judged that must be right")
	f.Var(&want.quiet, "min-quiet", "`SHARE` of cases without a fault in which nothing may be said to differ")
	f.StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func (m minima) check(t rca.Tally) error {
	var failed []string
	for _, c := range []struct {
		what      string
		got       float64
		want      share
		cases     int
		nothingOf string
	}{
		{"top-1", t.Top1, m.top1, t.Cases, "fault"},
		{"top-3", t.Top3, m.top3, t.Cases, "fault"},
		{"top-5", t.Top5, m.top5, t.Cases, "fault"},
		{"class", t.ClassRatio(), m.class, t.ClassJudged, "class that was judged"},
		{"quiet", t.QuietRatio(), m.quiet, t.Healthy, "case without a fault"},
	} {
		switch {
		case c.want < 0:
		case c.cases == 0:
			failed = append(failed, fmt.Sprintf("%s: no %s to measure it by", c.what, c.nothingOf))
		case c.got < float64(c.want)-1e-9:
			failed = append(failed, fmt.Sprintf("%s is %.1f %%, want %g %%", c.what, 100*c.got, 100*float64(c.want)))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &failure{code: exitThreshold, err: errors.New(strings.Join(failed, "; "))}
}

// benchRCA answers every case of a corpus and scores the answers.
func benchRCA(cmd *cobra.Command, corpus string) (rca.Report, error) {
	folder, cases, err := readLabels(corpus)
	if err != nil {
		return rca.Report{}, err
	}
	show := newProgress(cmd.ErrOrStderr())
	defer show.Clear()
	var answers []rca.Answer
	var baseline []trace.Trace
	var read []string // what baseline was read from: many cases share theirs
	for i, c := range cases {
		progress := func(p ingest.Progress) { show.Show("case %d of %d: %s, %d spans", i+1, len(cases), c.Name, p.Spans) }
		if !slices.Equal(read, c.Baseline) {
			in, err := readCase(cmd, folder, c, c.Baseline, progress)
			if err != nil {
				return rca.Report{}, err
			}
			baseline, read = in.Traces, c.Baseline
		}
		in, err := readCase(cmd, folder, c, c.Suspect, progress)
		if err != nil {
			return rca.Report{}, err
		}
		began := time.Now()
		found := diagnose.Compare(in.Traces, baseline)
		answers = append(answers, rca.Answer{
			Case: c, Traces: len(in.Traces), Spans: in.Stats.Spans, Culprits: found.Culprits, Notes: found.Notes, Took: time.Since(began),
		})
	}
	return rca.Score(answers), nil
}

// readLabels finds the labels of a corpus, and the folder that their paths are relative to.
func readLabels(corpus string) (folder string, cases []rca.Case, err error) {
	const hint = "CORPUS is a folder with labels.jsonl, or that file; see `longpole bench rca --help`"
	name := corpus
	if info, err := os.Stat(corpus); err == nil && info.IsDir() {
		name = filepath.Join(corpus, "labels.jsonl")
	}
	f, err := os.Open(name)
	if err != nil {
		return "", nil, &failure{code: exitError, err: plainPath(err), hint: hint}
	}
	defer func() { _ = f.Close() }()
	if cases, err = rca.ParseLabels(f); err != nil {
		return "", nil, &failure{code: exitError, err: fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "rca: ")), hint: hint}
	}
	return filepath.Dir(name), cases, nil
}

// plainPath is an error of a file without the system call that met it.
func plainPath(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", failed.Path, failed.Err)
	}
	return err
}

func readCase(cmd *cobra.Command, folder string, c rca.Case, paths []string, progress func(ingest.Progress)) (ingest.Input, error) {
	joined := make([]string, len(paths))
	for i, p := range paths {
		if joined[i] = p; !filepath.IsAbs(p) {
			joined[i] = filepath.Join(folder, p)
		}
	}
	in, err := ingest.ReadPaths(cmd.Context(), joined, nil, progress)
	if err != nil {
		return in, fmt.Errorf("case %s: %w", c.Name, err)
	}
	for _, w := range in.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: case %s: %s\n", c.Name, w)
	}
	return in, nil
}

func renderRCA(out io.Writer, r rca.Report) error {
	w := bufio.NewWriter(out)
	rows := [][]string{{"", "cases", "top-1", "top-3", "top-5", "class right", "healthy", "quiet"}}
	for _, t := range slices.Concat(r.Faults, r.Systems, []rca.Tally{r.Total}) {
		rows = append(rows, tallyRow(t))
	}
	table(w, rows)
	misses := r.Misses()
	if len(misses) > 0 {
		fmt.Fprintf(w, "\n%s missed, with what was said instead:\n", count(len(misses), "case"))
	}
	for _, x := range misses {
		fmt.Fprintf(w, "  %s (%s): %s\n", x.Name, x.Fault, missed(x))
	}
	for _, x := range r.Results {
		if x.ClassRight != nil && !*x.ClassRight {
			fmt.Fprintf(w, "  %s (%s): class of %s is said to be %s, want %s\n", x.Name, x.Fault, x.Culprits[x.Rank-1].Service, x.ClassSaid, x.Class)
		}
	}
	spans := 0
	for _, x := range r.Results {
		spans += x.Spans
	}
	fmt.Fprintf(w, "\n%s compared in %s ms, %d suspect spans\n", count(len(r.Results), "case"), ms(r.TookMS), spans)
	return w.Flush()
}

func tallyRow(t rca.Tally) []string {
	row := []string{t.Group, "", "", "", "", "", "", ""}
	if t.Cases > 0 {
		row[1] = fmt.Sprint(t.Cases)
		row[2], row[3], row[4] = accuracy(t.Top1), accuracy(t.Top3), accuracy(t.Top5)
	}
	if t.ClassJudged > 0 {
		row[5] = fmt.Sprintf("%d of %d", t.ClassRight, t.ClassJudged)
	}
	if t.Healthy > 0 {
		row[6], row[7] = fmt.Sprint(t.Healthy), accuracy(t.QuietRatio())
	}
	return row
}

func accuracy(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// missed says what came instead of the right answer.
func missed(x rca.Result) string {
	want := strings.Join(x.Services, ", ")
	if want == "" {
		want = "no difference"
	}
	if x.Quiet {
		return "want " + want + ", said that nothing differs"
	}
	said := make([]string, 0, 3)
	for _, c := range x.Culprits[:min(3, len(x.Culprits))] {
		said = append(said, fmt.Sprintf("%s (%s, %s ms)", c.Service, c.Class, ms(c.ExcessMS)))
	}
	where := ""
	if x.Rank > 0 {
		where = fmt.Sprintf(" (rank %d)", x.Rank)
	}
	return "want " + want + where + ", said " + strings.Join(said, ", ")
}
