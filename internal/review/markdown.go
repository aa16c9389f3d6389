package review

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/staging"
)

// section is one part of a review for a person, whatever the form of the page.
type section struct {
	Title string
	Note  string // under the title
	Head  []string
	Rows  [][]string
	Bad   map[int]bool // rows that need somebody
}

// sections are the parts of r, in the order in which they are read.
func (r *Review) sections() []section {
	return []section{r.findingSection(), r.holdbackSection(), r.diffSection(), r.poleSection(), r.ledgerSection(), r.transferSection(), r.predictionSection(), r.budgetSection(), r.faultSection()}
}

// Headline is the review in one line.
func (r *Review) Headline() string {
	n := map[Verdict]int{}
	for _, c := range r.Ledger {
		if c.Standing != nil {
			n[c.Standing.Verdict]++
		}
	}
	parts := []string{}
	for _, v := range []Verdict{NowHarmful, Decayed, NoEffect, StillHelps, NotJudged} {
		if n[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[v], v))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "no change is held back")
	}
	return fmt.Sprintf("%s; %d findings", strings.Join(parts, ", "), len(r.Findings))
}

func (r *Review) findingSection() section {
	s := section{Title: "Findings", Head: []string{"code", "severity", "what", "about", "numbers", "mend"}, Bad: map[int]bool{}}
	for i, f := range r.Findings {
		s.Rows = append(s.Rows, []string{f.Code, string(f.Severity), f.Name, f.Subject, f.Detail, f.Mend})
		s.Bad[i] = f.Severity == Critical
	}
	return s.orNote("Nothing is stale.")
}

func (s section) orNote(none string) section {
	if len(s.Rows) == 0 {
		s.Note = none
	}
	return s
}

func (r *Review) holdbackSection() section {
	s := section{Title: "Holdbacks", Head: []string{"rollout", "route", "verdict", "target", "then", "now", "calls held back", "in words"}, Bad: map[int]bool{}}
	for _, c := range r.Ledger {
		if h := c.Standing; h != nil {
			s.Bad[len(s.Rows)] = h.Verdict == NowHarmful
			s.Rows = append(s.Rows, []string{c.Rollout, c.Route, string(h.Verdict), h.Target, percentOf(h.Then), percentOf(h.Now), fmt.Sprint(h.HeldBackCalls), h.Sentence})
		}
	}
	return s.orNote("No promoted change keeps a holdback.")
}

func (r *Review) diffSection() section {
	s := section{Title: "Since the last review", Head: []string{"", "what"}}
	if r.Diff.Since.IsZero() {
		s.Note = "This is the first review."
		return s
	}
	s.Note = "The last one was of " + stamp(r.Diff.Since) + "."
	for _, part := range []struct {
		name string
		list []string
	}{{"new", r.Diff.New}, {"gone", r.Diff.Gone}, {"verdict", r.Diff.Verdicts}} {
		for _, what := range part.list {
			s.Rows = append(s.Rows, []string{part.name, what})
		}
	}
	return s
}

func (r *Review) poleSection() section {
	s := section{Title: "New long poles", Head: []string{"route", "segment", "share of p99", "before"}}
	for _, p := range r.Poles {
		before := percentPlain(p.Before)
		if p.New {
			before = "new"
		}
		s.Rows = append(s.Rows, []string{p.Route, p.Segment, percentPlain(p.Share), before})
	}
	return s.orNote("No segment's share of p99 grew by 5 points or more.")
}

func (r *Review) ledgerSection() section {
	s := section{Title: "Ledger", Head: []string{"rollout", "ended", "route", "why", "outcome", "predicted", "staging", "here", "now", "cost", "hash", "review after"}}
	for _, c := range r.Ledger {
		s.Rows = append(s.Rows, []string{
			c.Rollout, stamp(c.At), c.Route, cmp.Or(strings.TrimSpace(c.Code+" "+c.Kind), c.Reason, "-"), c.outcome(), c.predicted(), c.staged(), effectText(c.Before, c.After),
			c.now(), cmp.Or(c.Cost, "-"), shortHash(c.Hash), stamp(c.ReviewAfter),
		})
	}
	return s.orNote("No rollout has ended yet.")
}

func (c *Change) outcome() string {
	text := c.Phase
	if c.Override {
		text += ", overridden"
	}
	if !c.Undone.IsZero() {
		text += ", undone " + stamp(c.Undone)
	}
	return text
}

func (c *Change) predicted() string {
	if c.Predicted == nil {
		return "-"
	}
	return effectText(c.Before, *c.Predicted)
}

func (c *Change) staged() string {
	if c.Staged == nil {
		return "-"
	}
	return effectText(c.Staged.Before, c.Staged.After)
}

func (c *Change) now() string {
	if c.Standing == nil || c.Standing.HeldBackCalls == 0 {
		return "-"
	}
	return c.Standing.Target + " " + percentOf(c.Standing.Now)
}

// effectText is the effect on p50, p95 and p99.
func effectText(before, after staging.Latency) string {
	if before.P50 == 0 || after.P50 == 0 {
		return "-"
	}
	e := staging.EffectOf(before, after)
	return fmt.Sprintf("%s / %s / %s", percentOf(e.P50), percentOf(e.P95), percentOf(e.P99))
}

func (r *Review) transferSection() section {
	s := section{Title: "Staging and production", Head: []string{"change", "route", "segment", "predicted p99", "staging p99", "production p99"}}
	if r.Fidelity != nil {
		s.Note = r.Fidelity.String() + "."
	}
	if r.Transfer == nil {
		return s.orNote(cmp.Or(s.Note, "No other environment is known."))
	}
	for _, c := range r.Transfer.Changes {
		predicted := "-"
		if c.Predicted != nil {
			predicted = percentOf(c.Predicted.P99)
		}
		s.Rows = append(s.Rows, []string{shortHash(c.Hash), c.Route, c.Class, predicted, percentOf(c.Staging.P99), percentOf(c.Production.P99)})
	}
	for _, f := range r.Transfer.Factors {
		s.Note += fmt.Sprintf(" Of an effect in staging on %s, %.2f arrives (%d changes).", f.Class, f.Value, f.Changes)
	}
	return s
}

func (r *Review) predictionSection() section {
	p := r.Prediction
	s := section{Title: "The adviser's predictions"}
	if p.Changes == 0 {
		s.Note = "No change with a forecast was measured yet."
		return s
	}
	s.Note = fmt.Sprintf("%d changes had a forecast: measured over predicted is %+.0f %% on average, %.0f %% without sign.", p.Changes, staging.Percent(p.Error), staging.Percent(p.AbsError))
	if p.Intervals > 0 {
		s.Note += fmt.Sprintf(" %.0f %% of %d intervals held the measured value, where 90 %% are promised; %.2g times as wide they would have.", 100*p.Covered, p.Intervals, p.Widen)
	}
	return s
}

func (r *Review) budgetSection() section {
	s := section{Title: "Error budgets", Head: []string{"objective", "route", "target", "good", "budget left", "burned most by"}}
	for _, o := range r.Budgets {
		by := "-"
		if len(o.BurnedBy) > 0 {
			by = o.BurnedBy[0].String()
		}
		s.Rows = append(s.Rows, []string{o.Name, o.Route, fmt.Sprintf("%.5g %%", 100*o.Target), fmt.Sprintf("%.5g %%", 100*o.Good), percentPlain(o.Remaining), by})
	}
	return s.orNote("No objective is configured.")
}

func (r *Review) faultSection() section {
	s := section{Title: "Faults exercised", Head: append([]string{"route"}, FaultClasses()...), Bad: map[int]bool{}}
	at := map[string]int{}
	for _, c := range r.Faults {
		row, known := at[c.Route]
		if !known {
			row = len(s.Rows)
			at[c.Route] = row
			s.Rows = append(s.Rows, append(make([]string, 0, len(s.Head)), c.Route))
		}
		text := "never"
		if !c.Last.IsZero() {
			text = c.Last.UTC().Format(time.DateOnly) + " " + c.Verdict
		}
		if c.Overdue {
			text += " (overdue)"
		}
		s.Rows[row] = append(s.Rows[row], text)
	}
	return s.orNote("No route is known.")
}

func percentPlain(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func shortHash(h string) string {
	return strings.TrimPrefix(h, "sha256:")[:min(12, len(strings.TrimPrefix(h, "sha256:")))]
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// title is the heading of a review.
func (r *Review) title() string {
	title := "Review of " + stamp(r.At) + " UTC"
	if r.Environment != "" {
		title += ", " + r.Environment
	}
	return title
}

// Markdown writes r for people and for version control.
func (r *Review) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", escape(r.title()), escape(r.Headline()))
	for _, s := range r.sections() {
		fmt.Fprintf(&b, "\n## %s\n\n", s.Title)
		if s.Note != "" {
			fmt.Fprintf(&b, "%s\n", escape(s.Note))
		}
		if len(s.Rows) == 0 {
			continue
		}
		if s.Note != "" {
			b.WriteByte('\n')
		}
		line(&b, s.Head)
		b.WriteString("|" + strings.Repeat("---|", len(s.Head)) + "\n")
		for _, row := range s.Rows {
			line(&b, row)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func line(b *strings.Builder, cells []string) {
	for _, c := range cells {
		b.WriteString("| " + escape(c) + " ")
	}
	b.WriteString("|\n")
}

// escape keeps text from elsewhere, such as names in traces, from becoming markup or a row.
var escape = strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "<", "&lt;", "[", "\\[", "*", "\\*", "`", "'").Replace
