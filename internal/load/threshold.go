package load

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ErrThreshold says that the text of a threshold cannot be read.
var ErrThreshold = errors.New("load: threshold")

// Threshold is a bound that a run must hold.
type Threshold struct {
	Text   string  // as it was given
	Target string  // "" = all together
	Metric string  // p50, p99.9, mean, max, service.p99, lag.p99, errors, timeouts, dropped, rate
	Op     string  // <, <=, > or >=
	Value  float64 // ns of a latency, 0..1 of a share, calls a second of rate
}

// ParseThreshold reads METRIC OP VALUE, perhaps with TARGET: before it:
//
//	p99<250ms            response time; any percentile, mean and max
//	service.p99<=50ms    service time; lag.p99 is the generator's
//	errors<1%            share of the calls that failed; timeouts and dropped likewise
//	rate>=950            answers a second that did not fail
//	orders: p95 < 80ms   of the target of that name
//
// Its error wraps ErrThreshold.
func ParseThreshold(text string) (Threshold, error) {
	t := Threshold{Text: strings.TrimSpace(text)}
	at := strings.IndexAny(t.Text, "<>")
	if at < 0 || len(text) > 512 {
		return t, fmt.Errorf("%w: %q: want METRIC<VALUE or METRIC>VALUE", ErrThreshold, cutText(text))
	}
	left, right := strings.TrimSpace(t.Text[:at]), t.Text[at+1:]
	t.Op = t.Text[at : at+1]
	if strings.HasPrefix(right, "=") {
		t.Op, right = t.Op+"=", right[1:]
	}
	if i := strings.LastIndex(left, ":"); i >= 0 {
		t.Target, left = strings.TrimSpace(left[:i]), strings.TrimSpace(left[i+1:])
		if t.Target == "" {
			return t, fmt.Errorf("%w: %q: no target before the colon", ErrThreshold, text)
		}
	}
	t.Metric = left
	var err error
	switch name := t.latency(); {
	case name != "":
		var d time.Duration
		d, err = time.ParseDuration(strings.TrimSpace(right))
		t.Value = float64(d)
		if _, ok := percentile(name); !ok && name != "mean" && name != "max" {
			err = errors.New("want a percentile such as p99, mean or max")
		}
	case left == "errors" || left == "timeouts" || left == "dropped":
		t.Value, err = share(right)
	case left == "rate":
		t.Value, err = strconv.ParseFloat(strings.TrimSpace(right), 64)
	default:
		err = errors.New("want a percentile such as p99, mean, max, errors, timeouts, dropped or rate")
	}
	if err == nil && (t.Value < 0 || math.IsNaN(t.Value) || math.IsInf(t.Value, 0)) {
		err = errors.New("want a value that is not negative")
	}
	if err != nil {
		return t, fmt.Errorf("%w: %q: %w", ErrThreshold, text, err)
	}
	return t, nil
}

func cutText(s string) string { return s[:min(len(s), 80)] }

// latency is the figure of a latency that the metric names, without what it is the latency of; "" = it names no latency.
func (t Threshold) latency() string {
	name := strings.TrimPrefix(strings.TrimPrefix(t.Metric, "service."), "lag.")
	if name != t.Metric || name == "mean" || name == "max" {
		return name
	}
	if _, ok := percentile(name); ok {
		return name
	}
	return ""
}

// percentile reads p99.9 as 0.999.
func percentile(name string) (float64, bool) {
	digits, found := strings.CutPrefix(name, "p")
	if !found || digits == "" || len(digits) > 10 || strings.Trim(digits, "0123456789.") != "" {
		return 0, false
	}
	p, err := strconv.ParseFloat(digits, 64)
	return p / 100, err == nil && p > 0 && p < 100
}

// share reads 1% and 0.01.
func share(text string) (float64, error) {
	text = strings.TrimSpace(text)
	digits, isPercent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if isPercent {
		v /= 100
	}
	if err == nil && v > 1 {
		err = errors.New("want a share up to 100%")
	}
	return v, err
}

// Check is what came of a threshold.
type Check struct {
	Threshold string  `json:"threshold"`
	Held      bool    `json:"held"`
	Measured  string  `json:"measured"` // as text, with its unit
	Value     float64 `json:"value"`    // ms of a latency, 0..1 of a share, calls a second of rate
}

// judge compares the threshold with what was measured; without a single call no bound from above holds.
func (t Threshold) judge(r Result, seconds float64) Check {
	v, text := t.measure(r, seconds)
	c := Check{Threshold: t.Text, Value: v, Measured: text}
	switch t.Op {
	case "<":
		c.Held = v < t.Value
	case "<=":
		c.Held = v <= t.Value
	case ">":
		c.Held = v > t.Value
	case ">=":
		c.Held = v >= t.Value
	}
	if r.Calls == 0 && t.Metric != "dropped" {
		c.Held, c.Measured = false, "no call ended"
	}
	if t.latency() != "" {
		c.Value = v / 1e6
	}
	return c
}

func (t Threshold) measure(r Result, seconds float64) (float64, string) {
	if name := t.latency(); name != "" {
		of := r.Response
		switch {
		case strings.HasPrefix(t.Metric, "service."):
			of = r.Service
		case strings.HasPrefix(t.Metric, "lag."):
			of = r.Lag
		}
		d := of.Max()
		if q, ok := percentile(name); ok {
			d = of.Quantile(q)
		} else if name == "mean" && of.Count() > 0 {
			d = of.Sum() / time.Duration(of.Count())
		}
		return float64(d), d.Round(max(d/1000, 1)).String()
	}
	part, whole := r.Failed, r.Calls
	switch t.Metric {
	case "rate":
		v := float64(r.Calls-r.Failed) / max(seconds, 1e-9)
		return v, strconv.FormatFloat(v, 'f', 1, 64) + "/s"
	case "timeouts":
		part = r.Faults[faultNames[faultTimeout]]
	case "dropped":
		part, whole = r.Dropped, r.Calls+r.Dropped
	}
	v := ratio(part, whole)
	return v, strconv.FormatFloat(100*v, 'g', 3, 64) + "%"
}
