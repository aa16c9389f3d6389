package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// ErrSeries is wrapped by the errors of ParseSeries.
var ErrSeries = errors.New("evidence: no answer of Prometheus")

// Series is one series of a Prometheus server, as its HTTP API answers a query.
type Series struct {
	Labels map[string]string // with __name__, where the query kept it
	Points []SeriesPoint     // by time
}

// Name is the name of the metric; "" = the query dropped it.
func (s Series) Name() string { return s.Labels["__name__"] }

// SeriesPoint is a value at a time. Of a native histogram Value is the count.
type SeriesPoint struct {
	At      time.Time
	Value   float64        // at most 1e18 either way, never NaN
	Buckets []SeriesBucket // of a native histogram, by their bounds; nil = it is a number
}

// SeriesBucket is a bucket of a native histogram.
type SeriesBucket struct {
	Upper float64
	Count float64 // of this bucket alone
}

// The bounds of an answer.
const (
	maxSeriesPoints  = 1 << 20 // of all series together
	maxOfSeries      = 11_000  // points; Prometheus itself gives no more
	maxSeriesBuckets = 1000    // of one histogram
	mostValue        = 1e18    // what is more measures nothing, and sums of it might be no number
)

// SeriesAnswer is what a query gave.
type SeriesAnswer struct {
	Series   []Series
	Cut      int      // series beyond the bound that were left out
	Warnings []string // of the server
}

// apiAnswer is the envelope of every answer.
//
// Source: https://prometheus.io/docs/prometheus/latest/querying/api/
type apiAnswer struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Data      struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`
}

type apiSeries struct {
	Metric     map[string]string     `json:"metric"`
	Value      apiPoint              `json:"value"`
	Values     several[apiPoint]     `json:"values"`
	Histogram  apiHistogram          `json:"histogram"`
	Histograms several[apiHistogram] `json:"histograms"`
}

// several is a bounded list.
type several[T any] []T

// UnmarshalJSON reads an array of at most maxOfSeries elements.
func (s *several[T]) UnmarshalJSON(data []byte) error {
	return elements(data, func(d *json.Decoder) error {
		if len(*s) == maxOfSeries {
			return fmt.Errorf("a series of more than %d points", maxOfSeries)
		}
		var one T
		err := d.Decode(&one)
		*s = append(*s, one)
		return err
	})
}

// SeriesError is what the server said of a query that it did not answer.
type SeriesError struct{ Kind, Text string }

// Error is the kind and the text.
func (e *SeriesError) Error() string { return fmt.Sprintf("%s: %.300s", e.Kind, e.Text) }

// ParseSeries reads the answer of query or query_range, of numbers and native histograms; at most most series. Values that are no
// number, or infinite, are left out, and so are series without any. A refusal of the server is a *SeriesError; all errors wrap ErrSeries.
func ParseSeries(answer []byte, most int) (out SeriesAnswer, err error) {
	var a apiAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return out, fmt.Errorf("%w: %w", ErrSeries, err)
	}
	if a.Status != "success" {
		if a.Status == "error" {
			return out, fmt.Errorf("%w: %w", ErrSeries, &SeriesError{a.ErrorType, a.Error})
		}
		return out, fmt.Errorf("%w: status %.40q; want success", ErrSeries, a.Status)
	}
	out.Warnings = a.Warnings[:min(len(a.Warnings), 8)]
	if kind := a.Data.ResultType; kind != "vector" && kind != "matrix" {
		return out, fmt.Errorf("%w: a result of type %.40q; want vector or matrix", ErrSeries, kind)
	}
	if err := out.read(a.Data.Result, most); err != nil {
		return out, fmt.Errorf("%w: %w", ErrSeries, err)
	}
	return out, nil
}

// read takes in one series after the other, since those of a large answer together take many times its size.
func (a *SeriesAnswer) read(result []byte, most int) error {
	points := 0
	var one apiSeries
	return elements(result, func(d *json.Decoder) error {
		one = apiSeries{}
		if err := d.Decode(&one); err != nil {
			return err
		}
		s := one.series()
		points += len(s.Points)
		switch {
		case len(s.Points) == 0:
		case len(a.Series) >= most || points > maxSeriesPoints:
			a.Cut++
		default:
			a.Series = append(a.Series, s)
		}
		return nil
	})
}

// elements calls each for every element of an array; null is an empty one. What each does not read ends it.
func elements(data []byte, each func(*json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	switch open, err := d.Token(); {
	case err != nil:
		return err
	case open == nil:
		return nil
	case open != json.Delim('['):
		return errors.New("want an array")
	}
	for d.More() {
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *apiSeries) series() Series {
	s := Series{Labels: a.Metric}
	for _, p := range append(a.Values, a.Value) {
		if p.told {
			s.Points = append(s.Points, p.SeriesPoint)
		}
	}
	for _, p := range append(a.Histograms, a.Histogram) {
		if p.told {
			s.Points = append(s.Points, p.SeriesPoint)
		}
	}
	return s
}

// apiPoint is [seconds, "value"].
type apiPoint struct {
	SeriesPoint
	told bool
}

// UnmarshalJSON reads the pair. A value that is NaN or infinite is left out.
func (p *apiPoint) UnmarshalJSON(data []byte) error {
	var text string
	at, err := pair(data, &text)
	if err != nil {
		return err
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("no number: %.40q", text)
	}
	p.At, p.Value, p.told = at, v, math.Abs(v) <= mostValue
	return nil
}

// pair reads [seconds, value].
func pair(data []byte, value any) (at time.Time, err error) {
	var seconds float64
	list := []any{&seconds, value}
	if err := json.Unmarshal(data, &list); err != nil {
		return at, err
	}
	if len(list) != 2 || !(math.Abs(seconds) < 1e11) {
		return at, fmt.Errorf("want a time in seconds and a value, not %.40q", data)
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), nil
}

// apiHistogram is [seconds, {count, sum, buckets: [[rule, "lower", "upper", "count"]]}].
type apiHistogram struct {
	SeriesPoint
	told bool
}

// UnmarshalJSON reads the pair.
func (p *apiHistogram) UnmarshalJSON(data []byte) error {
	var h struct {
		Count   string  `json:"count"`
		Buckets [][]any `json:"buckets"`
	}
	at, err := pair(data, &h)
	if err != nil {
		return err
	}
	count, err := strconv.ParseFloat(h.Count, 64)
	if err != nil || len(h.Buckets) > maxSeriesBuckets {
		return fmt.Errorf("a histogram of %.40q with %d buckets", h.Count, len(h.Buckets))
	}
	p.At, p.Value, p.told = at, count, math.Abs(count) <= mostValue
	p.Buckets = make([]SeriesBucket, 0, len(h.Buckets))
	for _, b := range h.Buckets {
		if len(b) != 4 {
			return errors.New("a bucket that is none")
		}
		upper, err := bound64(b[2])
		n, also := bound64(b[3])
		if err != nil || also != nil || math.Abs(n) > mostValue {
			return errors.New("a bucket that is none")
		}
		p.Buckets = append(p.Buckets, SeriesBucket{upper, n})
	}
	return nil
}

// bound64 reads a number that stands as a text. NaN is none.
func bound64(v any) (float64, error) {
	text, _ := v.(string)
	n, err := strconv.ParseFloat(text, 64)
	if err == nil && math.IsNaN(n) {
		err = errors.New("not a number")
	}
	return n, err
}
