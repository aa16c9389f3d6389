package ingest

import "strconv"

// otlpPointsJSON decodes an ExportMetricsServiceRequest in JSON.
func (d *decoder) otlpPointsJSON(data []byte, k *pointSink) error {
	return d.document(data, func(j *document, key []byte) {
		switch string(key) {
		case "resourceMetrics", "resource_metrics":
			j.scan.array(func() { j.metricResource(k) })
		default:
			j.scan.skip()
		}
	})
}

func (j *document) metricResource(k *pointSink) {
	m := j.mark()
	defer j.drop(m)
	var metrics []heldMetric
	r := j.resourceJSON(func(key []byte) bool {
		if string(key) != "scopeMetrics" && string(key) != "scope_metrics" {
			return false
		}
		j.scopes("metrics", "metrics", func() {
			if !j.another() {
				j.scan.skip()
				return
			}
			var m heldMetric
			j.scan.object(func(key []byte) { j.metricMember(&m, key) })
			metrics = append(metrics, m)
		})
		return true
	})
	for i := range metrics {
		k.keep(j.decoder, &metrics[i], r)
	}
}

func (j *document) metricMember(m *heldMetric, key []byte) {
	switch string(key) {
	case "name":
		_, t := j.scan.scalar()
		m.Name = j.text(t)
	case "unit":
		_, t := j.scan.scalar()
		m.Unit = j.text(t)
	case "gauge":
		j.metricData(m, Gauge)
	case "sum":
		j.metricData(m, Sum)
	case "histogram":
		j.metricData(m, Histogram)
	case "exponentialHistogram", "exponential_histogram":
		j.metricData(m, ExponentialHistogram)
	case "summary":
		j.scan.object(func(key []byte) {
			if string(key) == "dataPoints" || string(key) == "data_points" {
				j.scan.array(func() { j.counts.Invalid++; j.scan.skip() })
				return
			}
			j.scan.skip()
		})
	default:
		j.scan.skip()
	}
}

func (j *document) metricData(m *heldMetric, kind PointKind) {
	m.Kind = kind
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "dataPoints", "data_points":
			j.scan.array(func() {
				if !j.another() {
					j.scan.skip()
					return
				}
				h := newHeldPoint(m, len(j.pool))
				j.scan.object(func(key []byte) { j.pointMember(&h, key) })
				h.to = len(j.pool)
				m.points = append(m.points, h)
			})
		case "aggregationTemporality", "aggregation_temporality":
			_, t := j.scan.scalar()
			m.Delta = string(t) == "1" || string(t) == "AGGREGATION_TEMPORALITY_DELTA"
		case "isMonotonic", "is_monotonic":
			_, t := j.scan.scalar()
			m.Monotonic = string(t) == "true"
		default:
			j.scan.skip()
		}
	})
}

func (j *document) pointMember(h *heldPoint, key []byte) {
	switch string(key) {
	case "attributes":
		j.otlpAttributes(h.from)
	case "startTimeUnixNano", "start_time_unix_nano":
		h.Start = j.pointInt(h)
	case "timeUnixNano", "time_unix_nano":
		h.Time = j.pointInt(h)
	case "asDouble", "as_double":
		h.Value = j.pointFloat(h)
	case "asInt", "as_int":
		h.Value = float64(j.pointInt(h))
	case "flags":
		h.absent = j.pointInt(h)&noValue != 0
	default:
		if h.Histogram == nil {
			j.scan.skip()
			return
		}
		j.spreadMember(h, h.Histogram, key)
	}
}

func (j *document) spreadMember(h *heldPoint, s *Spread, key []byte) {
	switch string(key) {
	case "count":
		s.Count = j.pointCount(h)
	case "sum":
		s.Sum = j.pointFloat(h)
	case "min":
		s.Min = j.pointFloat(h)
	case "max":
		s.Max = j.pointFloat(h)
	case "bucketCounts", "bucket_counts":
		s.Counts = j.pointCounts(h, maxBuckets+1)
	case "explicitBounds", "explicit_bounds":
		j.scan.array(func() {
			b := j.pointFloat(h)
			if len(s.Bounds) >= maxBuckets {
				h.bad = true
				return
			}
			s.Bounds = append(s.Bounds, b)
		})
	case "scale":
		s.Scale = j.pointInt32(h)
	case "zeroCount", "zero_count":
		s.ZeroCount = j.pointCount(h)
	case "zeroThreshold", "zero_threshold":
		s.ZeroThreshold = j.pointFloat(h)
	case "positive":
		s.PositiveOffset, s.Positive = j.pointBuckets(h)
	case "negative":
		s.NegativeOffset, s.Negative = j.pointBuckets(h)
	default:
		j.scan.skip()
	}
}

func (j *document) pointBuckets(h *heldPoint) (offset int32, list []uint64) {
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "offset":
			offset = j.pointInt32(h)
		case "bucketCounts", "bucket_counts":
			list = j.pointCounts(h, maxBuckets)
		default:
			j.scan.skip()
		}
	})
	return offset, list
}

func (j *document) pointCounts(h *heldPoint, most int) (list []uint64) {
	j.scan.array(func() {
		n := j.pointCount(h)
		if len(list) >= most {
			h.bad = true
			return
		}
		list = append(list, n)
	})
	return list
}

func (j *document) pointInt(h *heldPoint) int64 {
	n, ok := j.scan.integer()
	h.bad = h.bad || !ok
	return n
}

func (j *document) pointInt32(h *heldPoint) int32 {
	n := j.pointInt(h)
	h.bad = h.bad || n != int64(int32(n))
	return int32(n)
}

func (j *document) pointCount(h *heldPoint) uint64 {
	_, t := j.scan.scalar()
	n, err := strconv.ParseUint(string(t), 10, 64)
	h.bad = h.bad || err != nil
	return n
}

// pointFloat takes a number, or a string that holds one: NaN and Infinity are such.
func (j *document) pointFloat(h *heldPoint) float64 {
	_, t := j.scan.scalar()
	x, err := strconv.ParseFloat(string(t), 64)
	h.bad = h.bad || err != nil
	return x
}
