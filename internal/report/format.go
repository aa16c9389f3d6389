package report

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
)

var functions = template.FuncMap{
	"counted": Counted, "ms": Milliseconds, "percent": Percent, "signed": signed, "class": class, "cut": Cut, "duration": duration, "standing": Standing,
	"line": func(s string) string { return strings.Join(strings.Fields(s), " ") },
	"add":  func(a, b int) int { return a + b },
	"less": func(a, b float64) float64 { return a - b },
	"width": func(share float64) float64 {
		return float64(int(1000*min(1, max(0, share)) + 0.5))
	},
	"odds":  func(p float64) string { return fmt.Sprintf("%.0e", p) },
	"count": func(v float64) string { return fmt.Sprintf("%.0f", v) },
}

// Standing is what a reader is told of how a finding stands to the baseline; "" = there is none.
func Standing(s diagnose.Standing) string {
	switch s {
	case diagnose.New:
		return "new since the baseline"
	case diagnose.Worse:
		return "worse than in the baseline"
	case diagnose.Same:
		return "as in the baseline"
	}
	return ""
}

// Milliseconds formats them to about three significant digits: 0.004, 0.42, 7.31, 184, 1250.
func Milliseconds(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v > 0 && v < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func signed(v float64) string {
	if v < 0 {
		return "−" + Milliseconds(-v)
	}
	return "+" + Milliseconds(v)
}

// Percent formats a share 0..1.
func Percent(v float64) string {
	switch {
	case v > 0 && v < 0.0005:
		return "<0.1 %"
	case v > 0 && v < 0.01:
		return fmt.Sprintf("%.1f %%", v*100)
	}
	return fmt.Sprintf("%.0f %%", v*100)
}

func duration(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// Cut shortens s to n runes with an ellipsis.
func Cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// Counted is a number of things: "1 trace", "3 traces".
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
