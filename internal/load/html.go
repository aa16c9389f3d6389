package load

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

// The charts are computed here and drawn by the template, as numbers and short texts only: the template escapes all of
// them. Sizes are in the units of the viewBox.

//go:embed report.html.tmpl
var reportPage string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"ms": func(v float64) string { return number(v) }, "percent": func(v float64) string { return number(100*v) + " %" },
	"rate": func(v float64) string { return fmt.Sprintf("%.1f", v) },
}).Parse(reportPage))

// number has about three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// mark is a tick of an axis.
type mark struct {
	At     float64
	Text   string
	Anchor string // class of the text: mid, or end
}

// curve is one line of a chart.
type curve struct {
	Name   string
	Class  string
	Points string // of a polyline
}

// bar is one bar of a chart.
type bar struct{ X, Y, Width, Height float64 }

// plot is one chart.
type plot struct {
	Title                                   string
	Width, Height, Left, Right, Top, Bottom float64
	Curves                                  []curve
	Bars                                    []bar
	X, Y                                    []mark
	Label                                   string // for those who cannot see it
}

func frameOf(title string) *plot {
	return &plot{Title: title, Width: 720, Height: 260, Left: 64, Right: 704, Top: 16, Bottom: 222}
}

// WriteHTML writes r as a page that needs nothing else: no script, no font, no picture from elsewhere.
func (r Report) WriteHTML(w io.Writer) error {
	page := struct {
		Report
		Plots []*plot
		Rows  []row
	}{Report: r, Rows: []row{{"response time", r.Total.Response}, {"service time", r.Total.Service}, {"generator's lag", r.Total.Lag}}}
	for _, p := range []*plot{overTime(r), ofRate(r), byQuantile(r), histogram(r)} {
		if p != nil {
			page.Plots = append(page.Plots, p)
		}
	}
	if err := reportTemplate.Execute(w, page); err != nil {
		return fmt.Errorf("load: report: %w", err)
	}
	return nil
}

type row struct {
	Name string
	Latency
}

// scale maps values to an axis.
type scale struct {
	from, to float64 // of the values; logarithms when log is set
	at, end  float64 // of the axis
	log      bool
}

func (s scale) of(v float64) float64 {
	if s.log {
		v = math.Log(v)
	}
	return s.at + (v-s.from)/(s.to-s.from)*(s.end-s.at)
}

// logScale covers low to high with some room.
func logScale(low, high, at, end float64) scale {
	low = max(low, 1e-3)
	return scale{math.Log(low / 1.15), math.Log(max(high, low) * 1.15), at, end, true}
}

// marks puts ticks at 1, 2 and 5 of each decade, at 1 alone when there would be too many.
func (s scale) marks(unit string) (all []mark) {
	steps := []float64{1, 2, 5}
	if s.to-s.from > math.Log(300) {
		steps = steps[:1]
	}
	low, high := math.Exp(s.from), math.Exp(s.to)
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for _, step := range steps {
			if v := decade * step; v >= low && v <= high {
				all = append(all, mark{At: s.of(v), Text: fmt.Sprintf("%.4g%s", v, unit), Anchor: "mid"})
			}
		}
	}
	return all
}

// shownSlices is how many points a curve over time has at most.
const shownSlices = 240

// quantiles are those that are drawn over time.
var quantiles = []struct {
	name  string
	q     float64
	class string
}{{"p50", 0.5, "a"}, {"p90", 0.9, "b"}, {"p99", 0.99, "c"}, {"max", 1, "d"}}

// overTime is the quantiles of response time second by second.
func overTime(r Report) *plot {
	all := thin(r.Slices, shownSlices, Slice.join)
	values := make([][]float64, len(quantiles))
	low, high := math.Inf(1), 0.0
	for _, s := range all {
		for i, k := range quantiles {
			v := math.NaN()
			if s.Response.Count() > 0 {
				v = milli(s.Response.Quantile(k.q))
				low, high = min(low, v), max(high, v)
			}
			values[i] = append(values[i], v)
		}
	}
	if high == 0 || len(all) < 2 {
		return nil
	}
	p := frameOf("Response time over time, ms")
	x, y := p.seconds(r, len(all)), logScale(low, high, p.Bottom, p.Top)
	for i, k := range quantiles {
		var b strings.Builder
		for n, v := range values[i] {
			if !math.IsNaN(v) {
				fmt.Fprintf(&b, "%.1f,%.1f ", x(n), y.of(v))
			}
		}
		p.Curves = append(p.Curves, curve{k.name, k.class, strings.TrimSpace(b.String())})
	}
	p.Y = y.marks("")
	p.Label = fmt.Sprintf("Response time over %g s: p50 between %s and p99 up to %s ms", r.TookSeconds, number(slicesMin(values[0])), number(slicesMax(values[2])))
	return p
}

// slicesMin and slicesMax leave out what is not a number.
func slicesMin(v []float64) float64 { return slices.MinFunc(v, compareKnown(1)) }
func slicesMax(v []float64) float64 { return slices.MaxFunc(v, compareKnown(-1)) }

func compareKnown(unknown float64) func(a, b float64) int {
	known := func(v float64) float64 {
		if math.IsNaN(v) {
			return math.Inf(int(unknown))
		}
		return v
	}
	return func(a, b float64) int {
		switch a, b = known(a), known(b); {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
}

// seconds lays out the axis of time for n slices, and gives the place of the middle of each.
func (p *plot) seconds(r Report, n int) func(int) float64 {
	for i := range 5 {
		anchor := "mid"
		if i == 4 {
			anchor = "end"
		}
		p.X = append(p.X, mark{p.Left + float64(i)/4*(p.Right-p.Left), number(r.TookSeconds*float64(i)/4) + " s", anchor})
	}
	return func(i int) float64 { return p.Left + (float64(i)+0.5)/float64(n)*(p.Right-p.Left) }
}

// ofRate is the answers a second, and those that failed.
func ofRate(r Report) *plot {
	all := thin(r.Slices, shownSlices, Slice.join)
	if len(all) < 2 {
		return nil
	}
	width := r.TookSeconds / float64(len(all))
	most := 0.0
	for _, s := range all {
		most = max(most, float64(s.Calls)/width)
	}
	if most == 0 {
		return nil
	}
	p := frameOf("Answers a second")
	x := p.seconds(r, len(all))
	y := scale{0, most * 1.1, p.Bottom, p.Top, false}
	for _, c := range []struct {
		name, class string
		of          func(Slice) uint64
	}{
		{"answers", "a", func(s Slice) uint64 { return s.Calls }},
		{"failed", "d", func(s Slice) uint64 { return s.Failed }},
		{"dropped", "c", func(s Slice) uint64 { return s.Dropped }},
	} {
		var b strings.Builder
		for i, s := range all {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(i), y.of(min(float64(c.of(s))/width, most*1.1)))
		}
		p.Curves = append(p.Curves, curve{c.name, c.class, strings.TrimSpace(b.String())})
	}
	for i := range 5 {
		v := most * float64(i) / 4
		p.Y = append(p.Y, mark{y.of(v), number(v), "mid"})
	}
	p.Label = fmt.Sprintf("Answers a second, %s at most", number(most))
	return p
}

// byQuantile is response and service time by quantile. The x axis is log 1/(1-q), which gives the tail as much room as the body.
func byQuantile(r Report) *plot {
	if r.Response == nil || r.Service == nil || r.Response.Count() == 0 {
		return nil
	}
	nines := math.Ceil(max(math.Log10(float64(r.Response.Count())), 1))
	p := frameOf("Latency by quantile, ms")
	y := logScale(min(milli(r.Response.Quantile(0)), milli(r.Service.Quantile(0))), milli(max(r.Response.Quantile(1), r.Service.Quantile(1))), p.Bottom, p.Top)
	place := func(q float64) float64 { return p.Left + math.Log10(1/(1-q))/nines*(p.Right-p.Left) }
	for _, c := range []struct {
		name, class string
		of          *Bins
	}{{"response time", "a", r.Response}, {"service time", "b", r.Service}} {
		var b strings.Builder
		const steps = 160
		for i := range steps + 1 {
			q := 1 - math.Pow(10, -nines*float64(i)/steps)
			fmt.Fprintf(&b, "%.1f,%.1f ", place(q), y.of(max(milli(c.of.Quantile(q)), 1e-3)))
		}
		p.Curves = append(p.Curves, curve{c.name, c.class, strings.TrimSpace(b.String())})
	}
	for _, t := range []struct {
		q    float64
		text string
	}{{0, "min"}, {0.5, "p50"}, {0.9, "p90"}, {0.99, "p99"}, {0.999, "p99.9"}, {0.9999, "p99.99"}} {
		if at := place(t.q); at <= p.Right {
			p.X = append(p.X, mark{at, t.text, "mid"})
		}
	}
	p.Y = y.marks("")
	p.Label = fmt.Sprintf("Response time p50 %s, p99 %s ms; service time p50 %s, p99 %s ms", number(r.Total.Response.P50), number(r.Total.Response.P99), number(r.Total.Service.P50), number(r.Total.Service.P99))
	return p
}

// histogram is how many calls took how long.
func histogram(r Report) *plot {
	if r.Response == nil || r.Response.Count() == 0 {
		return nil
	}
	const bars = 60
	p := frameOf("Response times, share of the calls by ms")
	x := logScale(milli(r.Response.Quantile(0)), milli(r.Response.Quantile(1)), p.Left, p.Right)
	var shares [bars]float64
	most := 0.0
	for i, n := range r.Response.all() {
		k := int((x.of(max(milli(middle(i)), 1e-3)) - p.Left) / (p.Right - p.Left) * bars)
		k = min(max(k, 0), bars-1)
		shares[k] += float64(n) / float64(r.Response.Count())
		most = max(most, shares[k])
	}
	y := scale{0, most * 1.1, p.Bottom, p.Top, false}
	width := (p.Right - p.Left) / bars
	for k, share := range shares {
		if share > 0 {
			top := y.of(share)
			p.Bars = append(p.Bars, bar{p.Left + float64(k)*width + 0.5, top, width - 1, max(p.Bottom-top, 0.5)})
		}
	}
	p.X = x.marks("")
	for i := range 5 {
		v := most * float64(i) / 4
		p.Y = append(p.Y, mark{y.of(v), number(100*v) + " %", "mid"})
	}
	p.Label = fmt.Sprintf("Histogram of %d response times from %s to %s ms", r.Total.Calls, number(milli(r.Response.Quantile(0))), number(r.Total.Response.Max))
	return p
}
