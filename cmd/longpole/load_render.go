package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/load"
)

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// readBounded reads a file of at most limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d MiB", name, limit>>20)
	}
	return data, err
}

// renderLoad writes what came of a run for a person.
func renderLoad(out io.Writer, r load.Report) error {
	w := bufio.NewWriter(out)
	t := r.Total
	verdict := "valid"
	if !r.Valid {
		verdict = "INVALID"
	}
	fmt.Fprintf(w, "Run        %s, %.3g s, %s\n", workloadLine(r.Workload), r.TookSeconds, verdict)
	for _, d := range r.Doubts {
		fmt.Fprintf(w, "           ! %s\n", d)
	}
	fmt.Fprintf(w, "Rate       asked %.1f/s, achieved %.1f/s\n", t.Asked, t.Achieved)
	fmt.Fprintf(w, "Calls      %d ended, %d failed (%s), %d dropped, %d cut off\n", t.Calls, t.Failed, percent(t.Errors), t.Dropped, t.Abandoned)
	fmt.Fprintf(w, "Answers    %s\n", countsLine(t.Codes))
	fmt.Fprintf(w, "Errors     %s\n", countsLine(t.Faults))
	fmt.Fprintf(w, "Bytes      %s received, %s sent, bodies only\n", bytesOf(t.BytesIn), bytesOf(t.BytesOut))
	fmt.Fprintf(w, "Generator  lag p50 %s, p99 %s, max %s ms; processors %s busy, %s by the generator\n\n",
		ms(t.Lag.P50), ms(t.Lag.P99), ms(t.Lag.Max), percent(r.CPU.Machine), percent(r.CPU.Generator))
	rows := [][]string{{"LATENCY (ms)", "MEAN", "P50", "P90", "P95", "P99", "P99.9", "MAX"}}
	row := func(name string, l load.Latency) {
		rows = append(rows, []string{name, ms(l.Mean), ms(l.P50), ms(l.P90), ms(l.P95), ms(l.P99), ms(l.P999), ms(l.Max)})
	}
	row("response time", t.Response)
	row("service time", t.Service)
	table(w, rows)
	if len(r.Targets) > 1 {
		fmt.Fprintln(w)
		renderTargets(w, r.Targets)
	}
	if len(r.Thresholds) > 0 {
		fmt.Fprint(w, "\nTHRESHOLDS\n")
		for _, c := range r.Thresholds {
			mark := "✓"
			if !c.Held {
				mark = "✗"
			}
			fmt.Fprintf(w, "  %s %s  measured %s\n", mark, c.Threshold, c.Measured)
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	return w.Flush()
}

func renderTargets(w io.Writer, targets []load.Figures) {
	rows := [][]string{{"TARGET", "CALLS", "RATE", "FAILED", "P50", "P95", "P99", "SERVICE P99", "ANSWERS"}}
	for _, t := range targets {
		answers := countsLine(t.Codes)
		if len(t.Faults) > 0 {
			answers += " " + countsLine(t.Faults)
		}
		rows = append(rows, []string{
			cut(t.Name, 48), fmt.Sprint(t.Calls), fmt.Sprintf("%.1f/s", t.Achieved), percent(t.Errors),
			ms(t.Response.P50), ms(t.Response.P95), ms(t.Response.P99), ms(t.Service.P99), strings.TrimPrefix(answers, "none "),
		})
	}
	table(w, rows)
}

func workloadLine(l load.Workload) string {
	parts := []string{string(l.Arrivals)}
	if l.Replay != "" {
		parts = []string{"replay of " + l.Replay}
	}
	if l.Burst != "" {
		parts[0] += " (" + l.Burst + ")"
	}
	if l.Rate > 0 {
		parts[0] += fmt.Sprintf(" %g/s", l.Rate)
	}
	for _, s := range l.Stages {
		parts = append(parts, "then "+s)
	}
	parts = append(parts, string(l.Protocol))
	if l.Connections > 0 {
		parts = append(parts, count(l.Connections, "connection"))
	}
	if !l.KeepAlive {
		parts = append(parts, "no keep-alive")
	}
	return strings.Join(parts, ", ")
}

// countsLine is the most frequent first.
func countsLine(c load.Counts) string {
	names := slices.Sorted(maps.Keys(c))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case c[a] > c[b]:
			return -1
		case c[a] < c[b]:
			return 1
		}
		return 0
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s: %d", name, c[name]))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// bytesOf formats a size.
func bytesOf(n uint64) string {
	for _, u := range []struct {
		size uint64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
