package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/report"
)

// renderAgainst writes how a route fares beside the baseline.
func renderAgainst(w io.Writer, a *diagnose.Against) {
	if a == nil {
		return
	}
	l := a.Latency
	fmt.Fprintf(w, "  beside the baseline (%s; p50 %s   p95 %s   p99 %s ms): %s", count(a.Traces, "trace"), ms(l.P50), ms(l.P95), ms(l.P99), a.Change)
	if a.Change != diagnose.Alike {
		fmt.Fprintf(w, " (chance %.0e)", a.P)
	}
	fmt.Fprintln(w)
	if len(a.Segments) > 0 {
		rows := [][]string{{"  CHANGED", "SERVICE", "OPERATION", "P50 BAND", "P95 BAND", "P99 BAND"}}
		for _, s := range a.Segments[:min(len(a.Segments), changedShown)] {
			change := func(now, before float64) string { return ms(before) + " → " + ms(now) + " ms" }
			rows = append(rows, []string{
				"  " + string(s.Segment), cut(s.Service, 28), cut(s.Operation, 40),
				change(s.NowMS.P50, s.BeforeMS.P50), change(s.NowMS.P95, s.BeforeMS.P95), change(s.NowMS.P99, s.BeforeMS.P99),
			})
		}
		table(w, rows)
	}
	renderDifferences(w, "THESE TRACES HAVE", "NOW", "BASELINE", a.Differences)
}

func renderFinding(w io.Writer, f advise.Finding, o shown) {
	stands := report.Standing(f.Against)
	if stands != "" {
		stands = ", " + stands
	}
	fmt.Fprintf(w, "  %s %s (%s, confidence %s%s): %s\n", f.Code, f.Class, f.Verdict, percent(f.Confidence), stands, f.Summary)
	for _, e := range f.Evidence {
		fmt.Fprintf(w, "    + %s\n", e)
	}
	for _, e := range f.CounterEvidence {
		fmt.Fprintf(w, "    - %s\n", e)
	}
	for i := range f.Actions {
		renderAction(w, &f.Actions[i], o)
	}
}

func renderAction(w io.Writer, a *advise.Action, o shown) {
	fmt.Fprintf(w, "    → %s: %s\n", a.Kind, a.Summary)
	if p := a.Predicted; p != nil {
		i := a.Interval
		if i == nil {
			i = &advise.Interval{}
		}
		fmt.Fprintf(w, "      predicted p50 %s%s   p95 %s%s   p99 %s%s ms\n", ms(p.P50), between(i.P50), ms(p.P95), between(i.P95), ms(p.P99), between(i.P99))
		if a.Widened != nil {
			fmt.Fprintf(w, "      intervals %s of its kind, of which the model's own held %s\n", a.Widened, percent(a.Widened.Covered))
		}
	}
	for _, line := range []struct{ name, text string }{
		{"cost", a.Cost}, {"risk", a.Risk}, {"needs", strings.Join(a.Prerequisites, "; ")}, {"watch", strings.Join(a.Watch, "; ")},
	} {
		if line.text != "" {
			fmt.Fprintf(w, "      %s: %s\n", line.name, line.text)
		}
	}
	indented(w, a.Text)
	if len(a.Snippets) > 0 && !o.snippets {
		var tools []string
		for _, s := range a.Snippets {
			tools = append(tools, s.For)
		}
		fmt.Fprintf(w, "      settings for %s: with --snippets\n", strings.Join(tools, ", "))
		return
	}
	for _, s := range a.Snippets {
		fmt.Fprintf(w, "      for %s:\n", s.For)
		indented(w, s.Text)
	}
}

// between is an interval of milliseconds in brackets; nothing where there is none.
func between(i [2]float64) string {
	if i[1] <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%s to %s)", ms(i[0]), ms(i[1]))
}

// indented writes a text as it is, set off by a line at its side.
func indented(w io.Writer, text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(w, "      | %s\n", strings.TrimRight(line, "\r\n"))
	}
}

func renderLogged(w io.Writer, list []diagnose.Logged) {
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"  LOGGED WITH SLOW AND FAILED TRACES", "BY", "SLOW, FAILED", "OTHERS"}}
	for _, l := range list {
		what := "  " + l.Severity + " " + l.Exception
		rows = append(rows, []string{cut(strings.TrimRight(what, " ")+": "+l.Text, 90), cut(l.Service, 28), percent(l.BadShare), percent(l.GoodShare)})
	}
	table(w, rows)
}
