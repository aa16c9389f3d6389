package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
)

func renderFinding(w io.Writer, f advise.Finding, o shown) {
	fmt.Fprintf(w, "  %s %s (%s, confidence %s): %s\n", f.Code, f.Class, f.Verdict, percent(f.Confidence), f.Summary)
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
