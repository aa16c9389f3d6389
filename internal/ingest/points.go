package ingest

import (
	"math"

	"github.com/longpole/longpole/internal/trace"
)

// PointKind says what a Point counts.
type PointKind uint8

// The kinds of Point.
const (
	Gauge                PointKind = iota // a value as it is now, in Value
	Sum                                   // what has added up, in Value
	Histogram                             // how values are spread, in Histogram: by Bounds and Counts
	ExponentialHistogram                  // the same by Scale, Zero, Positive and Negative
)

// String is the lower-case name.
func (k PointKind) String() string {
	if k > ExponentialHistogram {
		return "unknown"
	}
	return [...]string{"gauge", "sum", "histogram", "exponential histogram"}[k]
}

// Point is one value of a metric at one time.
type Point struct {
	Service    string
	Host       string // as trace.Span.Host
	Name       string
	Unit       string // UCUM, as it was sent: "s", "By", "{call}"; "" = none was
	Kind       PointKind
	Monotonic  bool              // of a Sum: it only grows
	Delta      bool              // of all but a Gauge: it counts since Start, which moves on; else since the process began
	Start      int64             // ns since the Unix epoch; 0 = unknown
	Time       int64             // ns since the Unix epoch
	Value      float64           // of a Gauge or Sum
	Histogram  *Spread           // of the histograms; nil for others
	Attributes []trace.Attribute // of the point; then of its resource, where the point has none of that key
}

// Spread is a histogram. Count is the sum of all buckets wherever there are any.
type Spread struct {
	Count    uint64
	Sum      float64 // of all values; NaN = unknown
	Min, Max float64 // NaN = unknown

	// Counts[i] is for values above Bounds[i-1] and at most Bounds[i]; there is one more of them than Bounds, which grow.
	// Both are empty where only Count is known, and in an exponential histogram.
	Bounds []float64
	Counts []uint64

	// In an exponential histogram bucket i is for absolute values above base^i and at most base^(i+1), where
	// base is 2^(2^-Scale).
	Scale          int32
	ZeroCount      uint64  // of absolute values up to ZeroThreshold
	ZeroThreshold  float64 // not negative
	Positive       []uint64
	Negative       []uint64
	PositiveOffset int32 // the bucket of Positive[0]
	NegativeOffset int32
}

// maxBuckets bounds a histogram; SDKs send up to 160. One with more is invalid.
const maxBuckets = 1024

// valid reports whether a point can be believed. It drops the spread that a point of numbers has not.
func (p *Point) valid() bool {
	if p.Name == "" || p.Time < 0 || p.Start < 0 {
		return false
	}
	switch p.Kind {
	case Gauge, Sum:
		p.Histogram = nil
		return !math.IsNaN(p.Value)
	case Histogram:
		return p.Histogram.validBounds()
	case ExponentialHistogram:
		h := p.Histogram
		n, ok := total(h.ZeroCount, h.Positive, h.Negative)
		return ok && n == h.Count && h.Scale >= -10 && h.Scale <= 20 && h.ZeroThreshold >= 0 && far(h.PositiveOffset) && far(h.NegativeOffset)
	}
	return false
}

func (h *Spread) validBounds() bool {
	if len(h.Counts) == 0 && len(h.Bounds) == 0 {
		return true
	}
	if len(h.Counts) != len(h.Bounds)+1 {
		return false
	}
	for i, b := range h.Bounds {
		if math.IsNaN(b) || i > 0 && b <= h.Bounds[i-1] {
			return false
		}
	}
	n, ok := total(0, h.Counts)
	return ok && n == h.Count
}

// far reports whether the index of a bucket, and of those behind it, is one that float64 has values for.
func far(offset int32) bool { return offset > -1<<30 && offset < 1<<30 }

// total adds up buckets; ok is false when that does not fit.
func total(n uint64, lists ...[]uint64) (sum uint64, ok bool) {
	sum, ok = n, true
	for _, list := range lists {
		for _, c := range list {
			sum += c
			ok = ok && sum >= c
		}
	}
	return sum, ok
}

// heldPoint is a point on its way out of a document.
type heldPoint struct {
	Point
	from, to int // its attributes in decoder.pool
	bad      bool
	absent   bool // it says that there was no value
}

func newHeldPoint(of *heldMetric, from int) heldPoint {
	h := heldPoint{Point: of.Point, from: from}
	if h.Kind >= Histogram {
		h.Histogram = &Spread{Sum: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return h
}

// heldMetric is what the points of one metric have in common; its name may stand behind them.
type heldMetric struct {
	Point
	points []heldPoint
}

// pointSink collects the points of one request.
type pointSink struct {
	points []Point
	absent int // points that say that there was no value
}

// keep takes the points of a metric. Its attributes are taken from the pool, which the caller then resets.
func (k *pointSink) keep(d *decoder, m *heldMetric, r *resource) {
	for i := range m.points {
		h := &m.points[i]
		p := &h.Point
		p.Name, p.Unit, p.Monotonic, p.Delta = m.Name, m.Unit, m.Monotonic, m.Delta
		if h.absent {
			k.absent++
			continue
		}
		if h.bad || !p.valid() {
			d.counts.Invalid++
			continue
		}
		p.Service, p.Host = r.service, r.host
		p.Attributes = d.join(d.pool[h.from:h.to], r.attributes)
		k.points = append(k.points, *p)
	}
}

// otlpPoints decodes a MetricsData or ExportMetricsServiceRequest.
func (d *decoder) otlpPoints(message []byte, k *pointSink) error {
	return messages(message, 1, func(data []byte) error {
		r, err := d.resourceOf(data)
		if err != nil {
			return err
		}
		return messages(data, 2, func(scope []byte) error {
			return messages(scope, 2, func(metric []byte) error { return d.metric(metric, r, k) })
		})
	})
}

func (d *decoder) metric(message []byte, r *resource, k *pointSink) error {
	held := d.mark()
	defer d.drop(held)
	var m heldMetric
	err := fields(message, func(f *field) error {
		if f.kind != wireBytes {
			if f.number <= 12 {
				return errWire
			}
			return nil
		}
		switch f.number {
		case 1:
			m.Name = d.text(f.data)
		case 3:
			m.Unit = d.text(f.data)
		case 5, 7, 9, 10:
			m.Kind = metricKinds[f.number]
			return d.metricData(f.data, &m)
		case 11: // summaries cannot be merged; OpenTelemetry keeps them for old senders only
			return messages(f.data, 1, func([]byte) error { d.counts.Invalid++; return nil })
		}
		return nil
	})
	if err == nil {
		k.keep(d, &m, r)
	}
	return err
}

// metricKinds are the fields of a Metric that hold data.
var metricKinds = map[int32]PointKind{5: Gauge, 7: Sum, 9: Histogram, 10: ExponentialHistogram}

// metricData decodes a Gauge, Sum, Histogram or ExponentialHistogram.
func (d *decoder) metricData(message []byte, m *heldMetric) error {
	return fields(message, func(f *field) error {
		switch {
		case f.number == 1 && f.kind == wireBytes:
			if !d.another() {
				return nil
			}
			h := newHeldPoint(m, len(d.pool))
			err := d.point(f.data, &h)
			h.to = len(d.pool)
			m.points = append(m.points, h)
			return err
		case f.number == 2 && f.kind == wireVarint:
			m.Delta = f.n == 1
		case f.number == 3 && f.kind == wireVarint:
			m.Monotonic = f.n != 0
		case f.number <= 3:
			return errWire
		}
		return nil
	})
}

func (d *decoder) point(message []byte, h *heldPoint) error {
	read := d.numberField
	attributes := int32(7)
	switch h.Kind {
	case Histogram:
		read, attributes = d.histogramField, 9
	case ExponentialHistogram:
		read, attributes = d.exponentialField, 1
	case Gauge, Sum:
	}
	return fields(message, func(f *field) error {
		switch f.number {
		case attributes:
			if f.kind != wireBytes {
				return errWire
			}
			key, value, err := d.pair(f.data)
			if err == nil && len(key) > 0 {
				d.attributeNamed(h.from, d.text(key), value)
			}
			return err
		case 2, 3:
			at := &h.Start
			if f.number == 3 {
				at = &h.Time
			}
			*at = int64(f.n)
			return expect(f, wireFixed64)
		}
		return read(f, h)
	})
}

func expect(f *field, kind uint8) error {
	if f.kind != kind {
		return errWire
	}
	return nil
}

// noValue is the flag of a point that says that there was no value.
const noValue = 1

func (d *decoder) numberField(f *field, h *heldPoint) error {
	switch f.number {
	case 4:
		h.Value, _ = f.double()
		return expect(f, wireFixed64)
	case 6:
		h.Value = float64(int64(f.n))
		return expect(f, wireFixed64)
	case 8:
		h.absent = f.n&noValue != 0
	}
	return nil
}

func (d *decoder) histogramField(f *field, h *heldPoint) (err error) {
	s, whole := h.Histogram, true
	switch f.number {
	case 4:
		s.Count = f.n
		return expect(f, wireFixed64)
	case 5:
		s.Sum, _ = f.double()
		return expect(f, wireFixed64)
	case 6:
		s.Counts, whole, err = f.counts(s.Counts, maxBuckets+1, true)
	case 7:
		s.Bounds, whole, err = f.doubles(s.Bounds, maxBuckets)
	case 10:
		h.absent = f.n&noValue != 0
	case 11:
		s.Min, _ = f.double()
		return expect(f, wireFixed64)
	case 12:
		s.Max, _ = f.double()
		return expect(f, wireFixed64)
	}
	h.bad = h.bad || !whole
	return err
}

func (d *decoder) exponentialField(f *field, h *heldPoint) (err error) {
	s, whole := h.Histogram, true
	kind := uint8(wireFixed64)
	switch f.number {
	case 4:
		s.Count = f.n
	case 5:
		s.Sum, _ = f.double()
	case 6:
		n, _ := f.zigzag()
		s.Scale, kind = int32(n), wireVarint
		h.bad = h.bad || n != int64(s.Scale)
	case 7:
		s.ZeroCount = f.n
	case 8:
		kind = wireBytes
		s.PositiveOffset, s.Positive, whole, err = buckets(f.data, s.Positive)
	case 9:
		kind = wireBytes
		s.NegativeOffset, s.Negative, whole, err = buckets(f.data, s.Negative)
	case 10:
		h.absent = f.n&noValue != 0
		return nil
	case 12:
		s.Min, _ = f.double()
	case 13:
		s.Max, _ = f.double()
	case 14:
		s.ZeroThreshold, _ = f.double()
	default:
		return nil
	}
	h.bad = h.bad || !whole
	if err == nil {
		err = expect(f, kind)
	}
	return err
}

// buckets decodes the Buckets of an exponential histogram.
func buckets(message []byte, list []uint64) (offset int32, _ []uint64, whole bool, err error) {
	whole = true
	err = fields(message, func(f *field) (err error) {
		switch f.number {
		case 1:
			n, ok := f.zigzag()
			if !ok {
				return errWire
			}
			offset = int32(n)
			whole = whole && n == int64(offset)
		case 2:
			all := false
			list, all, err = f.counts(list, maxBuckets, false)
			whole = whole && all
		}
		return err
	})
	return offset, list, whole, err
}
