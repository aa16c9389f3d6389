package review

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Text writes what a person at a terminal wants first: holdbacks, findings with their mends, and what is new.
func (r *Review) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", r.title(), r.Headline())
	for _, c := range r.Ledger {
		if h := c.Standing; h != nil {
			fmt.Fprintf(&b, "\n%s  %s of route %s\n  %s\n", h.Verdict, c.Rollout, c.Route, h.Sentence)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s %s  %s: %s\n  %s\n  mend: %s\n", f.Code, f.Severity, f.Name, f.Subject, f.Detail, f.Mend)
	}
	for _, p := range r.Poles {
		fmt.Fprintf(&b, "\nlong pole  %s: %s is %s of p99, %s before\n", p.Route, p.Segment, percentPlain(p.Share), percentPlain(p.Before))
	}
	for _, s := range []section{r.diffSection(), r.transferSection(), r.predictionSection(), r.faultSummary()} {
		fmt.Fprintf(&b, "\n%s: %s\n", s.Title, strings.TrimSpace(s.Note))
		if s.Head == nil || s.Head[0] == "" {
			for _, row := range s.Rows {
				fmt.Fprintf(&b, "  %s\n", strings.Join(row, "  "))
			}
		}
	}
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}

// printable keeps names in traces from steering the terminal.
func printable(c rune) rune {
	if unicode.IsControl(c) && c != '\n' {
		return -1
	}
	return c
}

// faultSummary is how much of the matrix is overdue.
func (r *Review) faultSummary() section {
	overdue := 0
	for _, c := range r.Faults {
		if c.Overdue {
			overdue++
		}
	}
	return section{Title: "Faults exercised", Note: fmt.Sprintf("%d of %d classes on routes are overdue; -o markdown shows which.", overdue, len(r.Faults))}
}
