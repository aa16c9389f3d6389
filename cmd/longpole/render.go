package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/report"
)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// segmentsShown and findingsShown bound the text form; the JSON form has all.
const (
	segmentsShown    = 8
	findingsShown    = 4
	differencesShown = 5
	queuesShown      = 5
	asyncShown       = 5
	changedShown     = 5
	clocksShown      = 6
	callsShown       = 20 // calls between two hosts, below which nobody can say that their clocks are not steady
)

// shown is what the text form has.
type shown struct {
	routes   int  // at most; 0 = all
	snippets bool // settings for other tools, in full
}

// renderReport writes a report for a person.
func renderReport(out io.Writer, r advise.Report, o shown) error {
	w := bufio.NewWriter(out)
	renderInput(w, r.Input)
	renderClocks(w, r.Clocks)
	if n := r.Orders.Dropped; n > 0 {
		fmt.Fprintf(w, "%s of calls seen in one trace and falsified by others: neither waits for the other\n", count(n, "order"))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	if r.Culprits != nil {
		renderCulprits(w, r.Culprits)
	}
	routes := r.Routes
	if o.routes > 0 && len(routes) > o.routes {
		routes = routes[:o.routes]
	}
	for _, route := range routes {
		renderRoute(w, route, o)
	}
	if rest := len(r.Routes) - len(routes); rest > 0 {
		fmt.Fprintf(w, "\n… %s; `--routes 0` prints them all\n", count(rest, "more route"))
	}
	return w.Flush()
}

func renderInput(w io.Writer, in diagnose.Input) {
	fmt.Fprintln(w, strings.Join(report.InputLines(in), ", "))
}

// renderClocks shows the clocks that differ or cannot be trusted: the others are what a reader takes for granted.
func renderClocks(w io.Writer, clocks []diagnose.ClockModel) {
	rows := [][]string{{"  CLOCK OF", "LESS THAT OF", "OFFSET MS", "+- MS", "STEP", "CALLS", ""}}
	rest := 0
	for _, c := range clocks {
		state := ""
		switch {
		case c.Reference == "" || c.Steady && !c.Corrected:
			continue
		case c.Corrected:
			state = "corrected"
		case c.Samples < callsShown || c.OffsetMS >= -c.ToleranceMS && c.OffsetMS <= c.ToleranceMS:
			continue
		default:
			state = "not steady: each trace by itself"
		}
		if len(rows) > clocksShown {
			rest++
			continue
		}
		rows = append(rows, []string{"  " + cut(c.Host, 40), cut(c.Reference, 40), signed(c.OffsetMS), ms(c.SpreadMS), time.Duration(c.GranularityMS * 1e6).String(), strconv.Itoa(c.Samples), state})
	}
	if len(rows) == 1 {
		return
	}
	fmt.Fprintln(w, "\nClocks that differ")
	if rest > 0 {
		rows = append(rows, []string{fmt.Sprintf("  … %d more", rest)})
	}
	table(w, rows)
}

// signed is ms for what may be less than zero.
func signed(v float64) string {
	if v < 0 {
		return "-" + ms(-v)
	}
	return "+" + ms(v)
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

func renderRoute(w io.Writer, r advise.Route, o shown) {
	traces := count(r.Traces, "trace")
	if r.Incomplete > 0 {
		traces += fmt.Sprintf(" (%s incomplete)", percent(float64(r.Incomplete)/float64(max(r.Traces, 1))))
	}
	fmt.Fprintf(w, "\n%s  %s   %s, %s\n", r.Service, r.Operation, traces, count(r.Errors, "error"))
	l := r.Latency
	fmt.Fprintf(w, "  p50 %s   p90 %s   p95 %s   p99 %s   p99.9 %s   max %s ms\n", ms(l.P50), ms(l.P90), ms(l.P95), ms(l.P99), ms(l.P999), ms(l.Max))
	renderSegments(w, r.Segments)
	renderAgainst(w, r.Against)
	renderDifferences(w, "SLOW TRACES HAVE", "SLOW", "OTHERS", r.Differences)
	renderLogged(w, r.Logged)
	renderQueues(w, r.Queues)
	renderAsync(w, r.Async)
	for i, f := range r.Findings {
		if i == findingsShown {
			fmt.Fprintf(w, "  … %s\n", count(len(r.Findings)-i, "more finding"))
			break
		}
		renderFinding(w, f, o)
	}
}

func renderSegments(w io.Writer, segments []diagnose.Segment) {
	rows := [][]string{{"  SEGMENT", "SERVICE", "OPERATION", "P50 BAND", "", "P95 BAND", "", "P99 BAND", "", "DRAG", "SLOW-TYPICAL", ""}}
	for i, s := range segments {
		if i == segmentsShown {
			rows = append(rows, []string{fmt.Sprintf("  … %d more", len(segments)-i)})
			break
		}
		rows = append(rows, []string{
			"  " + string(s.Segment), cut(s.Service, 28), cut(s.Operation, 40),
			percent(s.Share.P50), ms(s.CriticalMS.P50) + " ms", percent(s.Share.P95), ms(s.CriticalMS.P95) + " ms",
			percent(s.Share.P99), ms(s.CriticalMS.P99) + " ms", ms(s.DragMS.P99) + " ms",
			signed(s.CriticalMS.P99-s.CriticalMS.P50) + " ms", bar(s.Share.P99),
		})
	}
	table(w, rows)
}

func renderDifferences(w io.Writer, what, with, without string, differences []diagnose.Difference) {
	if len(differences) == 0 {
		return
	}
	rows := [][]string{{"  " + what, "OF", with, without, "EXCESS", "CHANCE"}}
	for i, d := range differences {
		if i == differencesShown {
			rows = append(rows, []string{fmt.Sprintf("  … %d more", len(differences)-i)})
			break
		}
		what := "  " + cut(d.Key+" = "+d.Value, 60)
		if n := len(d.Also); n > 0 {
			what += fmt.Sprintf(" and %d more", n)
		}
		rows = append(rows, []string{what, cut(d.Service, 28), percent(d.SlowShare), percent(d.HealthyShare), signed(d.ExcessMS) + " ms", fmt.Sprintf("%.0e", d.P)})
	}
	table(w, rows)
}

func renderQueues(w io.Writer, queues []diagnose.Queue) {
	if len(queues) == 0 {
		return
	}
	rows := [][]string{{"  WAIT IN QUEUE", "SYSTEM", "MESSAGES", "P50", "P99", "MAX", "BY"}}
	for i, q := range queues {
		if i == queuesShown {
			rows = append(rows, []string{fmt.Sprintf("  … %d more", len(queues)-i)})
			break
		}
		rows = append(rows, []string{
			"  " + cut(cmp.Or(q.Destination, "(no name)"), 40), q.System, strconv.Itoa(q.Messages),
			ms(q.WaitMS.P50) + " ms", ms(q.WaitMS.P99) + " ms", ms(q.WaitMS.Max) + " ms", q.From,
		})
	}
	table(w, rows)
}

func renderAsync(w io.Writer, paths []diagnose.AsyncPath) {
	if len(paths) == 0 {
		return
	}
	rows := [][]string{{"  NOT WAITED FOR", "OPERATION", "WHY", "TIMES", "P50", "P99", "MOSTLY"}}
	for i, p := range paths {
		if i == asyncShown {
			rows = append(rows, []string{fmt.Sprintf("  … %d more", len(paths)-i)})
			break
		}
		mostly := ""
		if len(p.Path) > 0 {
			on := p.Path[0]
			mostly = fmt.Sprintf("%s %s %s %s", on.Segment, cut(on.Service, 28), cut(on.Operation, 40), percent(on.Share))
		}
		rows = append(rows, []string{"  " + cut(p.Service, 28), cut(p.Operation, 40), p.Why, strconv.Itoa(p.Count), ms(p.DurationMS.P50) + " ms", ms(p.DurationMS.P99) + " ms", mostly})
	}
	table(w, rows)
}

// bar draws a share as up to twenty blocks.
func bar(share float64) string {
	return strings.Repeat("█", int(share*20+0.5))
}
