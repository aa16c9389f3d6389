package rollout

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/stats"
)

// What a Status says is said by package judge.
type (
	Verdict      = judge.Verdict
	Judgement    = judge.Judgement
	MetricResult = judge.MetricResult
	Calibration  = judge.CalibrationStatus
)

// The verdicts of package judge.
const (
	Inconclusive = judge.Inconclusive
	NoWorse      = judge.NoWorse
	Improved     = judge.Improved
	Worse        = judge.Worse
	Invalid      = judge.Invalid
	Environment  = judge.Environment
)

// Quantiles are three percentiles of a latency. In JSON they are numbers of
// milliseconds, in YAML durations. Zero means unknown.
type Quantiles struct {
	P50 time.Duration `yaml:"p50"`
	P95 time.Duration `yaml:"p95"`
	P99 time.Duration `yaml:"p99"`
}

// QuantilesOf reads them from s; all zero when it is empty.
func QuantilesOf(s stats.Snapshot) Quantiles {
	return Quantiles{P50: s.Quantile(0.50), P95: s.Quantile(0.95), P99: s.Quantile(0.99)}
}

type quantilesJSON struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// MarshalJSON gives {"p50": 1.5, ...} in milliseconds.
func (q Quantiles) MarshalJSON() ([]byte, error) {
	return json.Marshal(quantilesJSON{milliseconds(q.P50), milliseconds(q.P95), milliseconds(q.P99)})
}

// UnmarshalJSON takes what MarshalJSON gives.
func (q *Quantiles) UnmarshalJSON(data []byte) error {
	var ms quantilesJSON
	if err := json.Unmarshal(data, &ms); err != nil {
		return fmt.Errorf("rollout: percentiles in milliseconds: %w", err)
	}
	duration := func(ms float64) time.Duration { return time.Duration(math.Round(ms * 1e6)) }
	*q = Quantiles{duration(ms.P50), duration(ms.P95), duration(ms.P99)}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
