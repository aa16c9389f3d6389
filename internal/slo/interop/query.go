package interop

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/slo"
)

// Histograms is which form of a latency histogram Prometheus keeps of a gateway.
type Histograms string

// The forms. A gateway shows both; which one Prometheus takes is its own setting.
const (
	Classic Histograms = "classic" // buckets at ClassicBounds; what Prometheus takes by default
	Native  Histograms = "native"  // 64 buckets for each doubling; with --enable-feature=native-histograms, in later versions scrape_native_histograms
)

// ClassicBounds are the upper bounds of the classic buckets of longpole_call_duration_seconds, in ascending order.
func ClassicBounds() []time.Duration {
	return []time.Duration{
		500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
		500 * time.Millisecond, 750 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
		7500 * time.Millisecond, 10 * time.Second,
	}
}

const (
	callsMetric   = "longpole_calls_total"
	latencyMetric = "longpole_call_duration_seconds"
)

// events are the queries for one objective: its calls and its bad calls, as a function of what is done with the counters
// over a window.
type events struct {
	o       slo.Objective
	native  bool
	matcher string        // of the route, and what the user added
	bound   time.Duration // of the latency threshold, as far as the histogram can tell
}

// newEvents finds the bucket that stands for the threshold: the last one that is not above it, so that a call that may be too
// slow counts as bad. note says so when it is another one; err when there is none.
func newEvents(o slo.Objective, h Histograms, selector string) (e events, note string, err error) {
	e = events{o: o.WithDefaults(), native: h == Native, matcher: "route=" + quote(o.Route), bound: o.Threshold}
	if selector != "" {
		e.matcher += "," + selector
	}
	if e.o.Kind != slo.Latency || e.native {
		return e, "", nil
	}
	e.bound = 0
	for _, b := range ClassicBounds() {
		if b <= o.Threshold {
			e.bound = b
		}
	}
	switch e.bound {
	case o.Threshold:
	case 0:
		return e, "", fmt.Errorf("%w: objective %s: no classic bucket ends at %s or before; want native histograms, or a threshold of at least %s", ErrRules, o.Name, o.Threshold, ClassicBounds()[0])
	default:
		note = fmt.Sprintf("objective %s: no classic bucket ends at %s; %s is taken, so that calls between them count as bad: use native histograms, or one of the bounds", o.Name, o.Threshold, e.bound)
	}
	return e, note, nil
}

// over are total and bad calls with a function of PromQL, rate or increase, over a window.
func (e events) over(function, window string) (total, bad string) {
	sum := func(metric, matcher string) string {
		return fmt.Sprintf("sum(%s(%s{%s}[%s]))", function, metric, matcher, window)
	}
	switch {
	case e.o.Kind == slo.Availability:
		return sum(callsMetric, e.matcher+",class!="+quote(slo.Ignored)), sum(callsMetric, e.matcher+",class=~"+quote(strings.Join(slo.BadClasses(), "|")))
	case e.native:
		h := sum(latencyMetric, e.matcher)
		total = fmt.Sprintf("histogram_count(%s)", h)
		return total, fmt.Sprintf("%s * (1 - histogram_fraction(0, %s, %s))", total, seconds(e.bound), h)
	}
	total = sum(latencyMetric+"_count", e.matcher)
	return total, fmt.Sprintf("(%s - %s)", total, sum(latencyMetric+"_bucket", e.matcher+","+bucketLabel(e.bound)))
}

// ratio is the share of bad calls in a window; there is none without calls.
func (e events) ratio(window string) string {
	total, bad := e.over("rate", window)
	return fmt.Sprintf("%s / (%s > 0)", bad, total)
}

// bucketLabel matches the bound of a bucket in both spellings: 1 and 1.0, as OpenMetrics has it.
func bucketLabel(bound time.Duration) string {
	s := seconds(bound)
	if strings.Contains(s, ".") {
		return "le=" + quote(s)
	}
	return "le=~" + quote(s+`(\.0)?`)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func number(x float64) string { return strconv.FormatFloat(x, 'g', 12, 64) }

// quote is a string of PromQL.
func quote(s string) string { return strconv.Quote(s) }

// span is a duration as Prometheus writes it: 5m, 6h, 30d.
func span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{slo.Day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
