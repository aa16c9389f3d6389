package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Report is what came of a run, as it is printed and kept in a file. Latencies in it are in milliseconds, rates a second,
// shares 0..1.
type Report struct {
	Format      string    `json:"format"` // longpole-load
	Version     int       `json:"version"`
	Started     time.Time `json:"started"`
	TookSeconds float64   `json:"took_seconds"` // of what was measured
	Interrupted bool      `json:"interrupted,omitempty"`
	Workload    Workload  `json:"workload"`
	Valid       bool      `json:"valid"`
	Doubts      []string  `json:"doubts"` // why it is not valid
	Notes       []string  `json:"notes"`  // what a reader should know
	Total       Figures   `json:"total"`
	Targets     []Figures `json:"targets"`
	CPU         CPU       `json:"cpu"`
	Thresholds  []Check   `json:"thresholds"`

	SliceSeconds float64 `json:"slice_seconds"`
	Slices       []Slice `json:"slices,omitempty"` // left out of what is printed
	Response     *Bins   `json:"response_histogram,omitempty"`
	Service      *Bins   `json:"service_histogram,omitempty"`
	Lag          *Bins   `json:"lag_histogram,omitempty"`
}

// Workload is what was asked for: two runs can be compared when theirs are equal.
type Workload struct {
	Arrivals    Arrivals `json:"arrivals,omitempty"`
	Rate        float64  `json:"rate,omitempty"`
	Stages      []string `json:"stages,omitempty"` // 100/s over 30s
	Burst       string   `json:"burst,omitempty"`
	Replay      string   `json:"replay,omitempty"`
	Duration    string   `json:"duration,omitempty"`
	Warmup      string   `json:"warmup,omitempty"`
	Seed        int      `json:"seed"`
	Protocol    Protocol `json:"protocol"`
	Connections int      `json:"connections,omitempty"`
	KeepAlive   bool     `json:"keep_alive"`
	Timeout     string   `json:"timeout"`
	Targets     []string `json:"targets"` // weight, method and URL
}

// Figures are those of a target, or of all.
type Figures struct {
	Name      string  `json:"name"`
	Asked     float64 `json:"asked_per_second"`    // arrivals that were due, sent or not
	Achieved  float64 `json:"achieved_per_second"` // answers, failed ones included
	Calls     uint64  `json:"calls"`
	Failed    uint64  `json:"failed"`
	Errors    float64 `json:"error_ratio"`
	Dropped   uint64  `json:"dropped"`
	Abandoned uint64  `json:"abandoned"`
	Skipped   uint64  `json:"skipped"`
	Response  Latency `json:"response_ms"`
	Service   Latency `json:"service_ms"`
	Lag       Latency `json:"lag_ms"`
	Codes     Counts  `json:"codes"`
	Faults    Counts  `json:"errors"`
	BytesIn   uint64  `json:"bytes_in"`
	BytesOut  uint64  `json:"bytes_out"`
}

// Latency is the usual percentiles, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// CPU is how busy the processors were, 0..1; 0 where that is not known.
type CPU struct {
	Generator float64 `json:"generator_ratio"`
	Machine   float64 `json:"machine_ratio"`
}

// Slice is a second of a run, or more of a long one: the calls that ended in it.
type Slice struct {
	Calls    uint64 `json:"calls"`
	Failed   uint64 `json:"failed,omitempty"`
	Dropped  uint64 `json:"dropped,omitempty"`
	Response Bins   `json:"response"`
}

func (s Slice) join(o Slice) Slice {
	return Slice{s.Calls + o.Calls, s.Failed + o.Failed, s.Dropped + o.Dropped, s.Response.merge(o.Response)}
}

// The marks of a saved run.
const (
	reportFormat  = "longpole-load"
	reportVersion = 1
)

// maxSlices bounds what a long run keeps: beyond it slices are joined in pairs.
const maxSlices = 3600

// MaxReportBytes bounds a saved run that is read.
const MaxReportBytes = 256 << 20

// ErrReport says that a file is no saved run.
var ErrReport = errors.New("load: not a run saved by `longpole load --save`")

// ParseReport reads a saved run.
func ParseReport(data []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if r.Format != reportFormat || r.Version != reportVersion {
		return r, ErrReport
	}
	if len(r.Slices) > 2*maxSlices || len(r.Slices) == 0 && r.Valid || !(r.SliceSeconds > 0) {
		return r, fmt.Errorf("%w: %d slices of %g s", ErrReport, len(r.Slices), r.SliceSeconds)
	}
	for i, s := range r.Slices {
		if err := s.Response.check(); err != nil || s.Failed > s.Calls || s.Response.Count() > 2*s.Calls+1000 {
			return r, fmt.Errorf("%w: slice %d is damaged", ErrReport, i)
		}
	}
	for _, b := range []*Bins{r.Response, r.Service, r.Lag} {
		if b != nil && b.check() != nil {
			return r, fmt.Errorf("%w: %w", ErrReport, errBins)
		}
	}
	return r, nil
}

// Printed is r without what only a program reads.
func (r Report) Printed() Report {
	r.Slices, r.Response, r.Service, r.Lag = nil, nil, nil, nil
	return r
}

func figures(r Result, seconds float64) Figures {
	seconds = max(seconds, 1e-9)
	return Figures{
		Name: r.Target, Asked: float64(r.Calls+r.Dropped+r.Abandoned) / seconds, Achieved: float64(r.Calls) / seconds,
		Calls: r.Calls, Failed: r.Failed, Errors: r.ErrorRatio(), Dropped: r.Dropped, Abandoned: r.Abandoned, Skipped: r.Skipped,
		Response: latency(r.Response), Service: latency(r.Service), Lag: latency(r.Lag),
		Codes: r.Codes, Faults: r.Faults, BytesIn: r.BytesIn, BytesOut: r.BytesOut,
	}
}

func latency(s stats.Snapshot) Latency {
	at := func(q float64) float64 { return milli(s.Quantile(q)) }
	l := Latency{P50: at(0.5), P90: at(0.9), P95: at(0.95), P99: at(0.99), P999: at(0.999), Max: milli(s.Max())}
	if n := s.Count(); n > 0 {
		l.Mean = milli(s.Sum() / time.Duration(n))
	}
	return l
}

func milli(d time.Duration) float64 { return float64(d) / 1e6 }

// workload describes s.
func workload(s Scenario) Workload {
	w := Workload{
		Arrivals: s.Arrivals, Rate: s.Rate, Seed: s.Seed, Protocol: s.Protocol, Connections: s.Connections,
		KeepAlive: s.KeepAlive == nil || *s.KeepAlive, Timeout: s.Timeout.String(), Targets: []string{},
	}
	for _, stage := range s.Stages {
		w.Stages = append(w.Stages, fmt.Sprintf("%g/s over %s", stage.Rate, stage.Over))
	}
	if s.Arrivals == Bursty {
		b := Plan{Burst: s.Burst}.WithDefaults().Burst
		w.Burst = fmt.Sprintf("on %s, off %s, idle %g", b.On, b.Off, b.Idle)
	}
	if s.Duration > 0 {
		w.Duration = s.Duration.String()
	}
	if s.Warmup > 0 {
		w.Warmup = s.Warmup.String()
	}
	for _, c := range s.Targets {
		w.Targets = append(w.Targets, fmt.Sprintf("%g %s %s", c.Weight, c.Method, c.URL))
	}
	if r := s.Replay; r != nil {
		w.Arrivals = ""
		w.Replay = fmt.Sprintf("%s to %s at speed %g", r.File, r.To, max(r.Speed, 1))
		if r.Speed > 0 {
			w.Replay = fmt.Sprintf("%s to %s at speed %g", r.File, r.To, r.Speed)
		}
	}
	return w
}
