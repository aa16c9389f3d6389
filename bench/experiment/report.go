package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/rollout"
)

func (r *result) took() time.Duration { return r.status.Ended.Sub(r.status.Started) }

// report writes the tables of docs/bench/rollout.md.
func (b *bench) report(w io.Writer, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	uptime, _ := os.ReadFile("/proc/loadavg")
	doubts, lag := 0, time.Duration(0)
	for _, r := range b.results {
		if lag = max(lag, r.lag); r.doubt != "" {
			doubts++
		}
	}
	fmt.Fprintf(w, "%d rollouts in %s, %s, %d processors, load averages at the end %s; usual p99 %s, calls sent late by %s at most (p99) and in %d rollouts later than the load generator approves\n",
		len(b.results), took.Round(time.Second), runtime.Version(), runtime.NumCPU(), strings.Join(strings.Fields(string(uptime))[:3], " "),
		b.usual.Round(time.Millisecond), lag.Round(100*time.Microsecond), doubts)
	fmt.Fprint(w, "\n| change | wanted | of | as wanted | after, median (range) | calls of the candidate | what was seen | Flagger-style rolls back | Kayenta-style, once a minute |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range cases() {
		var of []result
		for _, r := range b.results {
			if r.name == c.name {
				of = append(of, r)
			}
		}
		if len(of) > 0 {
			fmt.Fprintln(w, c.row(of, b.o.warmup))
		}
	}
}

// row is what became of one change, whose rollouts warmed up for so long.
func (c change) row(of []result, warmup time.Duration) string {
	wanted := map[kind]string{harms: "rolled back", helps: "promoted", nothing: "not rolled back"}[c.kind]
	met := 0
	var took, flagged, high []time.Duration
	var calls []uint64
	why := map[string]int{}
	for _, r := range of {
		good := r.status.Phase == map[kind]rollout.Phase{harms: rollout.RolledBack, helps: rollout.Promoted}[c.kind]
		if c.kind == nothing {
			good = r.status.Phase != rollout.RolledBack
		}
		if good {
			met++
			took, calls = append(took, r.took()), append(calls, r.calls)
		}
		why[sign(&r)]++
		if r.flagged > 0 {
			flagged = append(flagged, r.flagged)
		}
		if r.high > 0 {
			high = append(high, r.high)
		}
	}
	other := func(at []time.Duration) string {
		if c.apart || c.kind == helps {
			return "-"
		}
		return fmt.Sprintf("%d %s", len(at), spread(at, warmup))
	}
	slices.Sort(calls)
	candidate := "-"
	if len(calls) > 0 {
		candidate = fmt.Sprint(calls[len(calls)/2])
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %s | %s | %s | %s | %s |", c.name, wanted, len(of), met, spread(took, 0), candidate, common(why), other(flagged), other(high))
}

// spread is the median and the range of times, each with so much before it.
func spread(all []time.Duration, before time.Duration) string {
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	at := func(d time.Duration) string { return fmt.Sprintf("%.0f s", (d + before).Seconds()) }
	return fmt.Sprintf("%s (%s to %s)", at(all[len(all)/2]), at(all[0]), at(all[len(all)-1]))
}

// sign is how a rollout ended, and on which metric when that is said.
func sign(r *result) string {
	verdict, rest, _ := strings.Cut(r.status.Outcome, ": ")
	if r.status.Phase != rollout.RolledBack {
		return string(r.status.Phase)
	}
	for _, end := range []string{" were seen", " is ", " are ", " per call"} {
		rest, _, _ = strings.Cut(rest, end)
	}
	return strings.ToLower(verdict) + ": " + rest
}

func common(why map[string]int) string {
	var all []string
	for text, n := range why {
		all = append(all, fmt.Sprintf("%d %s", n, text))
	}
	slices.Sort(all)
	slices.Reverse(all)
	return strings.Join(all, ", ")
}
