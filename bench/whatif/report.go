package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
)

// The order of the quantiles in what follows.
var names = [...]string{"p50", "p95", "p99"}

func three(p advise.Predicted) [3]float64 { return [3]float64{p.P50, p.P95, p.P99} }

// off is by how much each forecast quantile missed, as a share of what came.
func (r *result) off() (list [3]float64) {
	came := three(r.After)
	for i, forecast := range three(r.Forecast.Predicted) {
		list[i] = math.Abs(forecast/came[i] - 1)
	}
	return list
}

// within tells which quantiles came to lie in their intervals.
func (r *result) within() (list [3]bool) {
	in := r.Forecast.Interval
	for i, came := range three(r.After) {
		ends := [...][2]float64{in.P50, in.P95, in.P99}[i]
		list[i] = ends[0] <= came && came <= ends[1]
	}
	return list
}

// tally is the errors and hits of some results.
type tally struct {
	runs    int
	silent  int // without a forecast
	off     [3][]float64
	covered int
	cut     []float64 // by what share p99 really fell
}

func (t *tally) add(r *result) {
	if r.Why != "" {
		t.silent++
		return
	}
	t.runs++
	for i, x := range r.off() {
		t.off[i] = append(t.off[i], x)
	}
	for _, in := range r.within() {
		if in {
			t.covered++
		}
	}
	t.cut = append(t.cut, 1-r.After.P99/r.Forecast.Before.P99)
}

// all is the errors of all quantiles.
func (t *tally) all() []float64 { return slices.Concat(t.off[:]...) }

// coverage is the share of quantiles in their intervals.
func (t *tally) coverage() float64 { return float64(t.covered) / float64(max(1, 3*t.runs)) }

// report writes the tables of docs/bench/whatif.md.
func report(w io.Writer, results []result, took time.Duration) {
	load, _ := os.ReadFile("/proc/loadavg") // not there on other systems
	averages := strings.Fields(string(load))
	fmt.Fprintf(w, "%d runs in %s, %s, %d processors, load averages at the end %s\n", len(results), took, runtime.Version(), runtime.NumCPU(),
		strings.Join(averages[:min(3, len(averages))], " "))
	fmt.Fprint(w, "\n| case | change | calls/s | p50: before, forecast, came | p95 | p99 | off by | in its interval |\n|---|---|---|---|---|---|---|---|\n")
	for i := range results {
		if r := &results[i]; r.Why == "" {
			fmt.Fprintln(w, r.row())
		}
	}
	summary(w, results)
	aside(w, results)
	for i := range results {
		if r := &results[i]; r.Why != "" {
			fmt.Fprintf(w, "\nno forecast: %s at %g/s: %s\n", r.Study, r.Rate, r.Why)
		}
	}
	late := 0
	for i := range results {
		if len(results[i].Doubts) > 0 {
			late++
		}
	}
	if late > 0 {
		fmt.Fprintf(w, "\n? in %d runs the load generator sent late: the machine was too busy to measure on\n", late)
	}
}

// row is one run in the table. A mark stands for a load generator that was late.
func (r *result) row() string {
	var cells, errors, hits []string
	before, forecast, came, off, in := three(r.Forecast.Before), three(r.Forecast.Predicted), three(r.After), r.off(), r.within()
	for i := range names {
		cells = append(cells, fmt.Sprintf("%.4g, %.4g, %.4g", before[i], forecast[i], came[i]))
		errors = append(errors, fmt.Sprintf("%.0f", 100*off[i]))
		hits = append(hits, map[bool]string{true: "yes", false: "no"}[in[i]])
	}
	mark := ""
	if len(r.Doubts) > 0 {
		mark = " ?"
	}
	return fmt.Sprintf("| %s%s | %s | %g | %s | %s %% | %s |", r.Study, mark, r.Change, r.Rate, strings.Join(cells, " | "), strings.Join(errors, ", "), strings.Join(hits, ", "))
}

// summary writes a line for each kind of change, and one for all.
func summary(w io.Writer, results []result) {
	kinds, total, calm := map[string]*tally{}, &tally{}, &tally{}
	var order []string
	for i := range results {
		r := &results[i]
		if r.Aside {
			continue
		}
		if kinds[r.Change] == nil {
			kinds[r.Change] = &tally{}
			order = append(order, r.Change)
		}
		kinds[r.Change].add(r)
		total.add(r)
		if len(r.Doubts) == 0 {
			calm.add(r)
		}
	}
	if total.runs == 0 {
		return
	}
	slices.Sort(order)
	fmt.Fprint(w, "\n| change | runs | without forecast | p99 really cut by | error p50 | error p95 | error p99 | in the 90 % interval |\n|---|---|---|---|---|---|---|---|\n")
	for _, kind := range order {
		fmt.Fprintln(w, kinds[kind].line(kind))
	}
	fmt.Fprintln(w, total.line("all"))
	fmt.Fprintln(w, calm.line("all without ?"))
	fmt.Fprintf(w, "\nmedian error over all runs and quantiles %.1f %% (wanted: at most 15 %%); in the 90 %% interval %.1f %% of %d (wanted: at least 85 %%)\n",
		100*median(total.all()), 100*total.coverage(), 3*total.runs)
}

func (t *tally) line(name string) string {
	return fmt.Sprintf("| %s | %d | %d | %.0f %% | %.1f %% | %.1f %% | %.1f %% | %.0f %% |", name, t.runs, t.silent, 100*median(t.cut),
		100*median(t.off[0]), 100*median(t.off[1]), 100*median(t.off[2]), 100*t.coverage())
}

// aside writes what was promised for segments off the critical path.
func aside(w io.Writer, results []result) {
	runs, claimed, inside := 0, 0, 0
	most := 0.0
	for i := range results {
		r := &results[i]
		if !r.Aside || r.Why != "" {
			continue
		}
		runs++
		if len(r.Claims) > 0 || gains(&r.Forecast) {
			claimed++
			fmt.Fprintf(w, "\nclaimed: %s at %g/s: %s\n", r.Study, r.Rate, strings.Join(r.Claims, "; "))
		}
		before, forecast := three(r.Forecast.Before), three(r.Forecast.Predicted)
		for k := range names {
			most = max(most, 1-forecast[k]/before[k])
		}
		for _, in := range r.within() {
			if in {
				inside++
			}
		}
	}
	if runs > 0 {
		fmt.Fprintf(w, "\noff the critical path: %d runs, %d with a gain claimed (wanted: 0), greatest gain forecast %.2f %%; %d of %d quantiles came to lie in the interval\n", runs, claimed, 100*most, inside, 3*runs)
	}
}

// median of a list; 0 of an empty one.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
