package review

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/staging"
)

// section is one part of a review for a person, whatever the form of the page.
type section struct {
	Title string
	Note  string // under the title
	Head  []string
	Rows  [][]cell
	After []string // commands under the table
}

// cell is one field of a table. Its tone is how a page shows it; it never says more than its text.
type cell struct {
	Text string
	Tone string // "" = plain; bad, warn, good, quiet, code
}

// cells are plain ones.
func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].Text = text
	}
	return row
}

// tone is row with one cell set off.
func tone(row []cell, at int, how string) []cell {
	row[at].Tone = how
	return row
}

// sections are the parts of r, in the order in which they are read. A part that has nothing to say for this system, as one
// about objectives where there are none, is left out.
func (r *Review) sections() []section {
	all := []section{
		r.findingSection(), r.dismissedSection(), r.holdbackSection(), r.adviceSection(), r.diffSection(), r.poleSection(), r.headroomSection(), r.costSection(),
		r.ledgerSection(), r.transferSection(), r.predictionSection(), r.budgetSection(), r.faultSection(),
	}
	kept := all[:0]
	for _, s := range all {
		if s.Note != "" || len(s.Rows) > 0 {
			kept = append(kept, s)
		}
	}
	return kept
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
	text := strings.Join(parts, ", ") + "; " + plural(len(r.Findings), "finding")
	by := map[Severity]int{}
	for _, f := range r.Findings {
		by[f.Severity]++
	}
	var severities []string
	for _, s := range []Severity{Critical, Warning, Info} {
		if by[s] > 0 {
			severities = append(severities, counted(by[s], s))
		}
	}
	if len(severities) > 0 {
		text += " (" + strings.Join(severities, ", ") + ")"
	}
	if len(r.Dismissed) > 0 {
		text += fmt.Sprintf("; %d dismissed", len(r.Dismissed))
	}
	return text
}

// counted is so many findings of a severity.
func counted(n int, s Severity) string {
	if s == Warning {
		return plural(n, "warning")
	}
	return fmt.Sprintf("%d %s", n, s)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// toneOf is how a severity is shown.
func toneOf(s Severity) string {
	return map[Severity]string{Critical: "bad", Warning: "warn", Info: "quiet"}[s]
}

// toneOfVerdict is how a verdict is shown.
func toneOfVerdict(v Verdict) string {
	return map[Verdict]string{NowHarmful: "bad", NoEffect: "warn", Decayed: "warn", StillHelps: "good", NotJudged: "quiet"}[v]
}

func (r *Review) findingSection() section {
	s := section{Title: "Findings", Head: []string{"code", "severity", "what", "about", "numbers", "mend"}}
	for _, f := range r.Findings {
		s.Rows = append(s.Rows, tone(cells(f.Code, string(f.Severity), f.Name, f.Subject, f.Detail, f.Mend), 1, toneOf(f.Severity)))
	}
	return s.orNote("Nothing is stale.")
}

func (s section) orNote(none string) section {
	if len(s.Rows) == 0 {
		s.Note = none
	}
	return s
}

func (r *Review) dismissedSection() section {
	s := section{Title: "Dismissed", Head: []string{"code", "what", "about", "numbers", "by", "until", "reason"}}
	for _, f := range r.Dismissed {
		d := f.Dismissal
		s.Rows = append(s.Rows, cells(f.Code, f.Name, f.Subject, f.Detail, d.By, stamp(d.Until), d.Reason))
	}
	return s
}

func (r *Review) holdbackSection() section {
	s := section{Title: "Holdbacks", Head: []string{"rollout", "route", "verdict", "target", "then", "now", "calls held back", "in words"}}
	for _, c := range r.Ledger {
		switch h := c.Standing; {
		case h == nil && c.Unheld != "":
			s.Rows = append(s.Rows, tone(cells(c.Rollout, c.Route, string(NoHoldback), c.Target, "-", "-", "-", c.Unheld), 2, "quiet"))
		case h != nil:
			s.Rows = append(s.Rows, tone(cells(c.Rollout, c.Route, string(h.Verdict), h.Target, percentOf(h.Then), percentOf(h.Now), fmt.Sprint(h.HeldBackCalls), h.Sentence), 2, toneOfVerdict(h.Verdict)))
		}
	}
	return s.orNote("No promoted change keeps a holdback.")
}

func (r *Review) adviceSection() section {
	s := section{Title: "Advice", Head: []string{"code", "stage", "about", "share of p99", "cure", "in words"}}
	for _, a := range r.Advice {
		stage := string(a.Stage)
		if a.Rollout != "" {
			stage += " " + a.Rollout
		}
		words := a.Summary
		if a.Dismissal != nil {
			words = "dismissed " + a.Dismissal.told()
		}
		how := map[Stage]string{Failed: "warn", Succeeded: "good", SetAside: "quiet"}[a.Stage]
		s.Rows = append(s.Rows, tone(cells(a.Code, stage, a.Subject, percentPlain(a.ShareP99), a.Kind, words), 1, how))
	}
	return s
}

func (r *Review) diffSection() section {
	s := section{Title: "Since the last review", Head: []string{"", "what"}}
	if r.Diff.Since.IsZero() {
		s.Note = "This is the first review."
		return s
	}
	s.Note = "The last one was of " + stamp(r.Diff.Since) + "."
	if b := r.Baseline; b != nil && !b.At.Equal(r.Diff.Since) {
		s.Note += " Figures are compared with those of " + stamp(b.At) + "."
	}
	for _, part := range []struct {
		name string
		list []string
	}{{"new", r.Diff.New}, {"gone", r.Diff.Gone}, {"verdict", r.Diff.Verdicts}} {
		for _, what := range part.list {
			s.Rows = append(s.Rows, cells(part.name, what))
		}
	}
	for _, l := range r.Lapsed {
		s.Rows = append(s.Rows, cells("back", fmt.Sprintf("%s %s: %s", l.Code, l.Subject, l.Why)))
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
		s.Rows = append(s.Rows, cells(p.Route, p.Segment, percentPlain(p.Share), before))
	}
	return s.orNote("No segment's share of p99 grew by 5 points or more.")
}

func (r *Review) headroomSection() section {
	s := section{Title: "Headroom", Head: []string{"route or workload", "busiest minute", "knee", "in use", "grows by", "knee reached", "because"}}
	for _, h := range r.Headroom {
		grows, reached := "-", "-"
		switch {
		case h.Days < leastDays:
			grows = fmt.Sprintf("known after %d days, %d so far", leastDays, h.Days)
		case h.Weekly > 0:
			grows = digits(h.Weekly) + "/s a week"
		}
		if !h.Reached.IsZero() {
			reached = h.Reached.UTC().Format(time.DateOnly)
		}
		how := ""
		if h.Used() >= fullAbove {
			how = "warn"
		}
		s.Rows = append(s.Rows, tone(cells(h.Name, digits(h.Peak)+"/s", digits(h.Capacity)+"/s", percentPlain(h.Used()), grows, reached, h.Why), 3, how))
	}
	return s
}

func (r *Review) costSection() section {
	s := section{Title: "Cost of a thousand calls", Head: []string{"route", "attempts", "CPU time", "bytes", "money", "calls measured"}}
	for _, c := range r.Figures.Costs {
		was, known := r.Baseline.cost(c.Route)
		row := []string{c.Route}
		for _, p := range partsOf(was, c) {
			text := "-"
			if p.now > 0 {
				text = p.show(p.now)
			}
			if known && p.before > 0 && p.now > 0 {
				text += fmt.Sprintf(" (%+.0f %%)", 100*(p.now/p.before-1))
			}
			row = append(row, text)
		}
		money := "-"
		if c.Money > 0 {
			money = r.Prices.money(c.Money)
		}
		s.Rows = append(s.Rows, cells(append(row, money, number(float64(c.Calls)))...))
	}
	return s
}

func (r *Review) ledgerSection() section {
	s := section{Title: "Ledger", Head: []string{"rollout", "ended", "route", "why", "outcome", "predicted p50 / p95 / p99", "staging", "here", "now", "cost", "hash", "review after"}}
	for _, c := range r.Ledger {
		s.Rows = append(s.Rows, cells(
			c.Rollout, stamp(c.At), c.Route, cmp.Or(strings.TrimSpace(c.Code+" "+c.Kind), c.Reason, "-"), c.outcome(), c.predicted(), c.staged(), effectText(c.Before, c.After),
			c.now(), cmp.Or(c.Cost, "-"), shortHash(c.Hash), stamp(c.ReviewAfter),
		))
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

// predicted is the effect that was foretold, with the interval of p99.
func (c *Change) predicted() string {
	if c.Predicted == nil {
		return "-"
	}
	text := effectText(c.Before, *c.Predicted)
	if text != "-" && c.Low != nil && c.High != nil && c.High.P99 > 0 && c.Low.P99 > 0 {
		text += fmt.Sprintf(" (%s to %s)", percentOf(logRatio(c.Before.P99, c.Low.P99)), percentOf(logRatio(c.Before.P99, c.High.P99)))
	}
	return text
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
		return s
	}
	for _, c := range r.Transfer.Changes {
		predicted := "-"
		if c.Predicted != nil {
			predicted = percentOf(c.Predicted.P99)
		}
		s.Rows = append(s.Rows, cells(shortHash(c.Hash), c.Route, c.Class, predicted, percentOf(c.Staging.P99), percentOf(c.Production.P99)))
	}
	for _, f := range r.Transfer.Factors {
		s.Note = strings.TrimSpace(s.Note + fmt.Sprintf(" Of an effect in staging on %s, %.2f arrives (%s).", f.Class, f.Value, plural(f.Changes, "change")))
	}
	return s
}

func (r *Review) predictionSection() section {
	p := r.Prediction
	s := section{Title: "The adviser's predictions", Head: []string{"kind of action", "outcomes", "held by the model's own intervals", "intervals from now on"}}
	if p.Changes == 0 {
		s.Note = "No change with a forecast was measured yet."
		return s
	}
	s.Note = fmt.Sprintf("Measured over predicted, of %s: %+.0f %% on average, %.0f %% without sign.", plural(p.Changes, "change"), staging.Percent(p.Error), staging.Percent(p.AbsError))
	if p.Intervals > 0 {
		s.Note += fmt.Sprintf(" %.0f %% of %s held what was measured, where 90 %% are promised.", 100*p.Covered, plural(p.Intervals, "interval"))
	}
	for _, k := range p.Kinds {
		s.Rows = append(s.Rows, cells(cmp.Or(k.Kind, "not said"), fmt.Sprint(k.Outcomes), fmt.Sprintf("%.0f %%", 100*k.Covered), cmp.Or(k.String(), "as the model draws them")))
	}
	return s
}

func (r *Review) budgetSection() section {
	s := section{Title: "Error budgets", Head: []string{"objective", "route", "target", "good", "budget left", "burned most by"}}
	for _, o := range r.Budgets {
		by, how := "-", ""
		if len(o.BurnedBy) > 0 {
			by = o.BurnedBy[0].String()
		}
		if o.Remaining < 0 {
			how = "bad"
		}
		s.Rows = append(s.Rows, tone(cells(o.Name, o.Route, fmt.Sprintf("%.5g %%", 100*o.Target), fmt.Sprintf("%.5g %%", 100*o.Good), percentPlain(o.Remaining), by), 4, how))
	}
	return s
}

// mostCommands bounds the faults that a page proposes.
const mostCommands = 10

func (r *Review) faultSection() section {
	s := section{Title: "Faults exercised", Head: append([]string{"route", "upstream"}, FaultClasses()...)}
	at := map[string]int{}
	for _, c := range r.Faults {
		row, known := at[c.Route]
		if !known {
			row = len(s.Rows)
			at[c.Route] = row
			s.Rows = append(s.Rows, cells(c.Route, cmp.Or(c.Upstream, "-")))
		}
		s.Rows[row] = append(s.Rows[row], c.cell())
		if c.Command != "" && len(s.After) < mostCommands {
			s.After = append(s.After, c.Command)
		}
	}
	return s.orNote("No route is known.")
}

func (c *Cell) cell() cell {
	out := cell{Text: "never"}
	if !c.Last.IsZero() {
		out.Text = c.Last.UTC().Format(time.DateOnly) + " " + c.Verdict
		if c.Environment != "" {
			out.Text += " in " + c.Environment
		}
		if c.Verdict == "held" {
			out.Tone = "good"
		}
	}
	if c.Overdue {
		out.Text += " (overdue)"
		out.Tone = "bad"
	}
	return out
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
