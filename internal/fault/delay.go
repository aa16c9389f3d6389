package fault

import (
	"fmt"
	"math"
	"time"

	"github.com/longpole/longpole/setting"
)

// Distribution is the shape of delays.
type Distribution string

// The distributions and their parameters.
const (
	Fixed       Distribution = "fixed"       // always Mean
	Uniform     Distribution = "uniform"     // Min..Max
	Normal      Distribution = "normal"      // Mean, Deviation; not below 0
	LogNormal   Distribution = "lognormal"   // Median, P99: the shape of most services
	Exponential Distribution = "exponential" // Mean
	Pareto      Distribution = "pareto"      // Min, Shape: a heavy tail, the heavier the smaller Shape is
)

// Delay is how long a call waits. In a file a duration alone may stand for it, which is a fixed one.
type Delay struct {
	Distribution Distribution  `yaml:"distribution"` // default fixed
	Mean         time.Duration `yaml:"mean"`         // of fixed, normal and exponential
	Deviation    time.Duration `yaml:"deviation"`    // standard deviation of normal
	Median       time.Duration `yaml:"median"`       // of lognormal
	P99          time.Duration `yaml:"p99"`          // of lognormal; at least Median
	Min          time.Duration `yaml:"min"`          // of uniform and pareto
	Shape        float64       `yaml:"shape"`        // of pareto; more than 0; at 1 and below the mean is that of max alone
	Max          time.Duration `yaml:"max"`          // of any: none is longer; up to 10m; default 1m, or the mean or minimum if that is longer
}

// UnmarshalText reads a fixed delay.
func (d *Delay) UnmarshalText(text []byte) error {
	mean, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("fault: a duration is expected: %w", err)
	}
	*d = Delay{Mean: mean}
	return nil
}

// WithDefaults fills what is zero.
func (d Delay) WithDefaults() Delay {
	if d.Distribution == "" {
		d.Distribution = Fixed
	}
	if d.Max == 0 {
		d.Max = min(MaxDelay, max(time.Minute, d.Mean, d.Median, d.Min))
	}
	return d
}

// Validate returns every fault of d, joined; each is a *setting.Error.
func (d Delay) Validate() error {
	var f setting.Faults
	for _, p := range []struct {
		name string
		of   time.Duration
	}{{"mean", d.Mean}, {"deviation", d.Deviation}, {"median", d.Median}, {"p99", d.P99}, {"min", d.Min}, {"max", d.Max}} {
		f.Check(p.of >= 0 && p.of <= MaxDelay, p.name, p.of, "0..10m")
	}
	switch d.Distribution {
	case Fixed, Exponential, "":
		f.Check(d.Mean > 0, "mean", d.Mean, "more than 0")
	case Uniform:
		f.Check(d.Max > 0 && d.Max >= d.Min, "max", d.Max, "more than 0 and at least min")
	case Normal:
		f.Check(d.Mean > 0 && d.Deviation > 0, "mean", d.Mean, "more than 0, and so deviation")
	case LogNormal:
		f.Check(d.Median > 0 && d.P99 >= d.Median, "p99", d.P99, "at least median, which is more than 0")
	case Pareto:
		f.Check(d.Min > 0, "min", d.Min, "more than 0")
		f.Check(d.Shape > 0 && d.Shape <= 100, "shape", d.Shape, "more than 0, up to 100")
	default:
		f.Check(false, "distribution", d.Distribution, "fixed, uniform, normal, lognormal, exponential or pareto")
	}
	return f.Err()
}

// z99 is the quantile 99 % of the standard normal distribution.
const z99 = 2.3263478740408408

// draw is one delay, 0..Max. d has its defaults.
func (d *Delay) draw(s *stream) time.Duration {
	x := float64(d.Mean)
	switch d.Distribution {
	case Uniform:
		x = float64(d.Min) + s.unit()*float64(d.Max-d.Min)
	case Normal:
		x += float64(d.Deviation) * s.normal()
	case LogNormal:
		sigma := math.Log(float64(d.P99)/float64(d.Median)) / z99
		x = float64(d.Median) * math.Exp(sigma*s.normal())
	case Exponential:
		x *= -math.Log1p(-s.unit())
	case Pareto:
		x = float64(d.Min) * math.Pow(1-s.unit(), -1/d.Shape)
	}
	if !(x > 0) {
		return 0
	}
	return time.Duration(min(x, float64(d.Max)))
}

// stream is the random numbers of one call: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), which needs no state but where
// it begins, so that calls at the same time need no lock.
type stream struct{ state uint64 }

func newStream(seed, n uint64) *stream { return &stream{mix(seed) ^ n*0x9e3779b97f4a7c15} }

func (s *stream) next() uint64 {
	s.state += 0x9e3779b97f4a7c15
	return mix(s.state)
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is uniform in [0, 1).
func (s *stream) unit() float64 { return float64(s.next()>>11) / (1 << 53) }

// normal is standard normal, by Box and Muller.
func (s *stream) normal() float64 {
	return math.Sqrt(-2*math.Log1p(-s.unit())) * math.Cos(2*math.Pi*s.unit())
}
