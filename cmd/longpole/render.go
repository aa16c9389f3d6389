package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// segmentsShown and findingsShown bound the text form; the JSON form has all.
const (
	segmentsShown = 8
	findingsShown = 4
)

// renderReport writes a report for a person. routes bounds the routes shown; 0 = all.
func renderReport(out io.Writer, r advise.Report, routes int) error {
	w := bufio.NewWriter(out)
	renderInput(w, r.Input)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	if r.Culprits != nil {
		renderCulprits(w, r.Culprits)
	}
	shown := r.Routes
	if routes > 0 && len(shown) > routes {
		shown = shown[:routes]
	}
	for _, route := range shown {
		renderRoute(w, route)
	}
	if rest := len(r.Routes) - len(shown); rest > 0 {
		fmt.Fprintf(w, "\n… %s; `--routes 0` prints them all\n", count(rest, "more route"))
	}
	return w.Flush()
}

func renderInput(w io.Writer, in diagnose.Input) {
	fmt.Fprintf(w, "%s, %s", count(in.Traces, "trace"), count(in.Spans, "span"))
	if in.Files > 0 {
		fmt.Fprintf(w, ", %s", count(in.Files, "file"))
	}
	for _, c := range []struct {
		n          int
		what, then string
	}{
		{in.IncompleteTraces, "incomplete trace", ""},
		{in.DuplicateSpans, "duplicate span", " dropped"},
		{in.InvalidSpans, "invalid span", " dropped"},
		{in.SkewCorrectedSpans, "span", " moved for clock skew"},
	} {
		if c.n > 0 {
			fmt.Fprintf(w, ", %s%s", count(c.n, c.what), c.then)
		}
	}
	fmt.Fprintln(w)
}

func renderCulprits(w io.Writer, culprits []diagnose.Culprit) {
	fmt.Fprintln(w, "\nWhat makes it slower than the baseline")
	if len(culprits) == 0 {
		fmt.Fprintln(w, "  no service stands out")
		return
	}
	rows := [][]string{{"  #", "SERVICE", "OPERATION", "SEGMENT", "CLASS", "EXCESS MS", "SHARE"}}
	for i, c := range culprits {
		rows = append(rows, []string{fmt.Sprintf("  %d", i+1), c.Service, cut(c.Operation, 48), string(c.Segment), c.Class, ms(c.ExcessMS), percent(c.Share)})
	}
	table(w, rows)
}

func renderRoute(w io.Writer, r advise.Route) {
	fmt.Fprintf(w, "\n%s  %s   %s, %s\n", r.Service, r.Operation, count(r.Traces, "trace"), count(r.Errors, "error"))
	l := r.Latency
	fmt.Fprintf(w, "  p50 %s   p90 %s   p95 %s   p99 %s   p99.9 %s   max %s ms\n", ms(l.P50), ms(l.P90), ms(l.P95), ms(l.P99), ms(l.P999), ms(l.Max))
	rows := [][]string{{"  SEGMENT", "SERVICE", "OPERATION", "P50 BAND", "", "P99 BAND", "", ""}}
	for i, s := range r.Segments {
		if i == segmentsShown {
			rows = append(rows, []string{fmt.Sprintf("  … %d more", len(r.Segments)-i), "", "", "", "", "", "", ""})
			break
		}
		rows = append(rows, []string{
			"  " + string(s.Segment), cut(s.Service, 28), cut(s.Operation, 40),
			percent(s.Share.P50), ms(s.CriticalMS.P50) + " ms", percent(s.Share.P99), ms(s.CriticalMS.P99) + " ms", bar(s.Share.P99),
		})
	}
	table(w, rows)
	for i, f := range r.Findings {
		if i == findingsShown {
			fmt.Fprintf(w, "  … %s\n", count(len(r.Findings)-i, "more finding"))
			break
		}
		renderFinding(w, f)
	}
}

func renderFinding(w io.Writer, f advise.Finding) {
	fmt.Fprintf(w, "  %s %s (%s, confidence %s): %s\n", f.Code, f.Class, f.Verdict, percent(f.Confidence), f.Summary)
	for _, e := range f.Evidence {
		fmt.Fprintf(w, "    + %s\n", e)
	}
	for _, e := range f.CounterEvidence {
		fmt.Fprintf(w, "    - %s\n", e)
	}
	for _, a := range f.Actions {
		fmt.Fprintf(w, "    → %s: %s\n", a.Kind, a.Summary)
		if p := a.Predicted; p != nil {
			fmt.Fprintf(w, "      predicted p50 %s   p95 %s   p99 %s ms\n", ms(p.P50), ms(p.P95), ms(p.P99))
		}
		if a.Cost != "" {
			fmt.Fprintf(w, "      cost: %s\n", a.Cost)
		}
	}
}

// bar draws a share as up to twenty blocks.
func bar(share float64) string {
	return strings.Repeat("█", int(share*20+0.5))
}
