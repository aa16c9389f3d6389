package lab

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The charts are computed here and drawn by the template, as numbers and short texts only: the template escapes all
// of them. Sizes are in the units of the viewBox, which is narrow so that text stays readable on a telephone.

// tick is a mark on an axis.
type tick struct {
	At     float64
	Text   string
	Anchor string // class of the text: mid, or end for the last one, which would run out of the picture
}

func anchor(last bool) string {
	if last {
		return "end"
	}
	return "mid"
}

// dot is one predicted percentile.
type dot struct {
	X, Y float64
	Text string
}

// curveChart is the quantile curves of one route.
type curveChart struct {
	Width, Height            float64
	Left, Right, Top, Bottom float64 // the edges of the plot
	Before, After            string  // points of a polyline
	Predicted                []dot
	X, Y                     []tick
	Label                    string // for those who cannot see it
}

// curves lays out the chart of r; nil when there is nothing to draw. The x axis is log 1/(1-q), which gives the tail
// as much room as the body; the y axis is logarithmic.
func curves(r RouteResult) *curveChart {
	if len(r.BeforeCurve) == 0 || len(r.AfterCurve) == 0 {
		return nil
	}
	c := &curveChart{Width: 400, Height: 250, Left: 56, Right: 388, Top: 14, Bottom: 212}
	low, high := math.Inf(1), 0.0
	for _, p := range append(append([]Point(nil), r.BeforeCurve...), r.AfterCurve...) {
		v := float64(max(p.Latency, time.Microsecond))
		low, high = math.Min(low, v), math.Max(high, v)
	}
	low, high = low/1.15, high*1.15
	x := func(q float64) float64 {
		nines := math.Log10(1 / (1 - math.Min(q, 0.999)))
		return c.Left + nines/3*(c.Right-c.Left)
	}
	y := func(d time.Duration) float64 {
		v := float64(max(d, time.Microsecond))
		return c.Bottom - math.Log(v/low)/math.Log(high/low)*(c.Bottom-c.Top)
	}
	line := func(points []Point) string {
		var b strings.Builder
		for _, p := range points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(p.Quantile), y(p.Latency))
		}
		return strings.TrimSpace(b.String())
	}
	c.Before, c.After = line(r.BeforeCurve), line(r.AfterCurve)
	for _, t := range []struct {
		q    float64
		text string
	}{{0, "min"}, {0.5, "p50"}, {0.9, "p90"}, {0.99, "p99"}, {0.999, "p99.9"}} {
		c.X = append(c.X, tick{x(t.q), t.text, anchor(t.q == 0.999)})
	}
	c.Y = logTicks(low, high, y)
	if p := r.Predicted; p != nil {
		for _, t := range []struct {
			q    float64
			d    time.Duration
			text string
		}{{0.5, p.P50, "p50"}, {0.95, p.P95, "p95"}, {0.99, p.P99, "p99"}} {
			if at := y(t.d); t.d > 0 && at >= c.Top && at <= c.Bottom {
				c.Predicted = append(c.Predicted, dot{x(t.q), at, "predicted " + t.text + " " + milliseconds(t.d) + " ms"})
			}
		}
	}
	c.Label = fmt.Sprintf("Latency by quantile of %s. %s", r.Route, headline(r))
	return c
}

// logTicks puts marks at 1, 2 and 5 of each decade; at 1 alone when there would be too many.
func logTicks(low, high float64, y func(time.Duration) float64) []tick {
	steps := []float64{1, 2, 5}
	if high/low > 1000 {
		steps = steps[:1]
	}
	var ticks []tick
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for _, step := range steps {
			if v := decade * step; v >= low && v <= high {
				d := time.Duration(v)
				ticks = append(ticks, tick{At: y(d), Text: fmt.Sprintf("%g ms", float64(d.Round(time.Microsecond))/1e6)})
			}
		}
	}
	return ticks
}

// bar is one segment's shares; the widths are percentages.
type bar struct {
	Share
	Where    string // service and operation
	P50, P99 float64
}

// maxBars bounds the table; a long tail of segments of no share helps nobody.
const maxBars = 12

func shareBars(shares []Share) []bar {
	var bars []bar
	for _, s := range shares[:min(len(shares), maxBars)] {
		bars = append(bars, bar{
			Share: s, Where: strings.TrimSpace(s.Service + " " + s.Operation),
			P50: 100 * clamp(s.P50Ratio), P99: 100 * clamp(s.P99Ratio),
		})
	}
	return bars
}

func clamp(ratio float64) float64 { return math.Max(0, math.Min(1, ratio)) }

// block is one step of a rollout, drawn.
type block struct {
	X, Y, Width, Height float64
	Text                string
	Inside              bool // the text has room
	Warm                bool // not judged
}

// timelineChart is the candidate's share of the calls over time.
type timelineChart struct {
	Width, Height, Left, Right, Top, Bottom float64
	Blocks                                  []block
	X                                       []tick
	Label                                   string
}

// timeline lays out a rollout's steps; nil when there is none. Heights are by the square root of the weight: a first
// step of 1 % would be invisible on a linear scale, and the label says the figure.
func timeline(r Rollout) *timelineChart {
	if len(r.Steps) == 0 {
		return nil
	}
	c := &timelineChart{Width: 400, Height: 130, Left: 12, Right: 392, Top: 10, Bottom: 100}
	total := max(r.Took, time.Millisecond)
	for _, s := range r.Steps {
		total = max(total, s.End)
	}
	x := func(d time.Duration) float64 {
		return c.Left + clamp(float64(d)/float64(total))*(c.Right-c.Left)
	}
	var told []string
	for _, s := range r.Steps {
		from, to := x(s.Start), x(max(s.End, s.Start))
		height := math.Max(4, math.Sqrt(clamp(s.WeightRatio))*(c.Bottom-c.Top))
		b := block{
			X: from, Y: c.Bottom - height, Width: math.Max(1, to-from-1.5), Height: height,
			Text: whole(s.WeightRatio), Warm: s.Name == "warmup",
		}
		b.Inside = b.Width > 30
		c.Blocks = append(c.Blocks, b)
		told = append(told, fmt.Sprintf("%s %s for %s", words(s.Name), whole(s.WeightRatio), lasting(s.End-s.Start)))
	}
	for i := range 5 {
		d := total * time.Duration(i) / 4
		c.X = append(c.X, tick{x(d), fmt.Sprintf("%.0f s", d.Seconds()), anchor(i == 4)})
	}
	c.Label = fmt.Sprintf("Share of calls to the candidate for %s: %s", r.Route, strings.Join(told, ", "))
	return c
}
