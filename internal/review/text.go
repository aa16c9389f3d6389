package review

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// textWidth is the column after which a sentence goes on in the next line. Commands are left whole, so that they can be copied.
const textWidth = 110

// Text writes what a person at a terminal wants first: holdbacks, findings with their mends, what is new, and of the rest
// what is not as it should be.
func (r *Review) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.title())
	wrap(&b, "", r.Headline())
	for _, c := range r.Ledger {
		switch h := c.Standing; {
		case h != nil:
			fmt.Fprintf(&b, "\n%s  %s of route %s\n", h.Verdict, c.Rollout, c.Route)
			wrap(&b, "  ", h.Sentence)
		case c.Unheld != "":
			fmt.Fprintf(&b, "\n%s  %s of route %s\n", NoHoldback, c.Rollout, c.Route)
			wrap(&b, "  ", c.Unheld)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s %s  %s: %s\n", f.Code, f.Severity, f.Name, oneLine(f.Subject))
		wrap(&b, "  ", f.Detail)
		fmt.Fprintf(&b, "  mend: %s\n", oneLine(f.Mend))
	}
	for _, f := range r.Dismissed {
		fmt.Fprintf(&b, "\n%s dismissed  %s: %s\n", f.Code, f.Name, oneLine(f.Subject))
		wrap(&b, "  ", f.Dismissal.told())
	}
	for _, p := range r.Poles {
		fmt.Fprintf(&b, "\nlong pole  %s: %s is %s of p99, %s before\n", oneLine(p.Route), oneLine(p.Segment), percentPlain(p.Share), percentPlain(p.Before))
	}
	for _, s := range []section{r.adviceSection(), r.diffSection(), r.headroomSection(), r.transferSection(), r.predictionSection(), r.faultSummary()} {
		s.text(&b)
	}
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}

// text writes a section as a heading, its note and a table.
func (s section) text(b *strings.Builder) {
	if s.Note == "" && len(s.Rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", strings.ToUpper(s.Title))
	if s.Note != "" {
		wrap(b, "  ", s.Note)
	}
	rows := s.Rows
	if s.Head != nil && s.Head[0] != "" && len(rows) > 0 {
		rows = append([][]cell{cells(s.Head...)}, rows...)
	}
	widths := make([]int, len(s.Head))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(oneLine(c.Text)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			fmt.Fprintf(&line, "  %-*s", widths[i], oneLine(c.Text))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// wrap writes a sentence in lines of at most textWidth, each after indent. A word is never broken.
func wrap(b *strings.Builder, indent, text string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
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
	s := section{Title: "Faults exercised", Note: "All that there is was exercised in time."}
	if overdue > 0 {
		s.Note = fmt.Sprintf("%d of %d classes on routes are overdue; -o markdown shows which, and the commands.", overdue, len(r.Faults))
	}
	if len(r.Faults) == 0 {
		s.Note = "No route has anything behind it."
	}
	return s
}
