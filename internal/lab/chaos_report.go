package lab

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

//go:embed chaos.html.tmpl
var chaosPage string

// WriteChaosReport writes r as one HTML page that needs nothing else, as [WriteReport] does. An error is w's.
func WriteChaosReport(w io.Writer, r ChaosReport) error {
	page, err := template.New("chaos").Funcs(template.FuncMap{
		"percent": percent, "span": lasting, "ms": func(ms float64) string { return milliseconds(time.Duration(ms * 1e6)) },
		"seconds": tenths, "held": heldBadge, "chart": chartOf, "policies": policiesOf, "cell": reactionOf, "inc": func(i int) int { return i + 1 },
		"words": bare, "recovery": recoveryText,
	}).Parse(pageStyle + chaosPage)
	if err != nil {
		return fmt.Errorf("lab: chaos report: %w", err)
	}
	if err := page.Execute(w, r); err != nil {
		return fmt.Errorf("lab: chaos report: %w", err)
	}
	return nil
}

// tenths is seconds with one decimal, as columns of times have.
func tenths(d time.Duration) string { return fmt.Sprintf("%.1f\u00a0s", d.Seconds()) }

func recoveryText(f ChaosResult) string {
	if f.Recovered == nil {
		return "Not as before until the next fault."
	}
	return fmt.Sprintf("As before %s after the end of the fault.", tenths(time.Duration(*f.Recovered*1e6)))
}

func heldBadge(r ChaosResult) badge {
	switch {
	case r.Held:
		return badge{"good", "✓", "held"}
	case r.Late:
		return badge{"even", "?", "did not hold"}
	}
	return badge{"bad", "✕", "did not hold"}
}

// allReactions is their order in the report: what hides a failure, what keeps calls away, what is refused or replaced.
var allReactions = []string{Retried, Hedged, HedgeWon, CutOff, Opened, Unfit, Ejected, Back, Shed, Stale, Coalesced}

// policiesOf are those that reacted to any fault.
func policiesOf(r ChaosReport) []string {
	return slices.DeleteFunc(slices.Clone(allReactions), func(policy string) bool {
		return !slices.ContainsFunc(r.Faults, func(f ChaosResult) bool { return reactionOf(f, policy) != nil })
	})
}

// reactionOf is what a policy did; nil = nothing.
func reactionOf(f ChaosResult, policy string) *Reaction {
	i := slices.IndexFunc(f.Reactions, func(x Reaction) bool { return x.Policy == policy })
	if i < 0 {
		return nil
	}
	return &f.Reactions[i]
}

// bare is the name of a reaction without its article.
func bare(reaction string) string {
	_, name, _ := strings.Cut(reaction, " ")
	return name
}

// chaosChart is what clients saw during the whole schedule: p99 above, the share of failed calls below, and the faults behind both.
type chaosChart struct {
	Width, Height, Left, Right float64
	Top, Middle, Upper, Bottom float64 // of the plot of p99, and of that of errors
	Lines                      []string
	Errors, Bands              []block
	X, Y                       []tick
	Label                      string
}

// chartOf lays it out; nil when there is nothing to draw.
func chartOf(r ChaosReport) *chaosChart {
	c := &chaosChart{Width: 1000, Height: 300, Left: 62, Right: 988, Top: 24, Middle: 190, Upper: 208, Bottom: 264}
	low, high, from, to := math.Inf(1), 0.0, math.Inf(1), math.Inf(-1)
	for _, p := range r.Timeline {
		from, to = math.Min(from, p.At.Seconds()), math.Max(to, (p.At+p.Took).Seconds())
		if p.P99 > 0 {
			low, high = math.Min(low, p.P99*1e6), math.Max(high, p.P99*1e6)
		}
	}
	if high == 0 || to <= from {
		return nil
	}
	low, high = low/1.3, high*1.3
	x := func(d time.Duration) float64 { return c.Left + clamp((d.Seconds()-from)/(to-from))*(c.Right-c.Left) }
	y := func(d time.Duration) float64 {
		return c.Middle - math.Log(float64(d)/low)/math.Log(high/low)*(c.Middle-c.Top)
	}
	c.draw(r.Timeline, x, y)
	for i, f := range r.Faults {
		at := x(f.At)
		c.Bands = append(c.Bands, block{X: at, Y: c.Top, Width: math.Max(2, x(f.At+f.Took)-at), Height: c.Bottom - c.Top, Text: fmt.Sprint(i + 1), Warm: !f.Held})
	}
	c.Y = logTicks(low, high, y)
	step := stepOf(to - from)
	for d := math.Ceil(from/step) * step; d <= to; d += step {
		at := time.Duration(d * float64(time.Second))
		c.X = append(c.X, tick{x(at), fmt.Sprintf("%.0f s", d), "mid"})
	}
	c.Label = fmt.Sprintf("p99 and share of failed calls of all clients over %s, with %d faults", lasting(time.Duration((to-from)*1e9)), len(r.Faults))
	return c
}

// draw lays out what was measured. A line ends where no call ended.
func (c *chaosChart) draw(points []ChaosPoint, x, y func(time.Duration) float64) {
	var line strings.Builder
	end := func() {
		if line.Len() > 0 {
			c.Lines = append(c.Lines, strings.TrimSpace(line.String()))
			line.Reset()
		}
	}
	for _, p := range points {
		if p.P99 <= 0 {
			end()
			continue
		}
		fmt.Fprintf(&line, "%.1f,%.1f ", x(p.At+p.Took/2), y(time.Duration(p.P99*1e6)))
		if height := clamp(p.Errors) * (c.Bottom - c.Upper); height > 0 {
			from := x(p.At)
			c.Errors = append(c.Errors, block{X: from, Y: c.Bottom - height, Width: math.Max(1, x(p.At+p.Took)-from), Height: height, Text: percent(p.Errors)})
		}
	}
	end()
}

// stepOf is how many seconds lie between two marks of a time axis of so many.
func stepOf(length float64) float64 {
	for _, step := range []float64{5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600} {
		if length/step <= 12 {
			return step
		}
	}
	return 7200
}
