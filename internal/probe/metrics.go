package probe

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
)

// gunzip unpacks data that are packed, up to limit bytes.
func gunzip(data []byte, limit int64) ([]byte, error) {
	if len(data) < 2 || data[0] != 0x1f || data[1] != 0x8b {
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("unpacks to more than %d bytes", limit)
	}
	return out, nil
}

// MetricsConfig is where a process, or the exporter of its host or container, shows its metrics. URLs is mandatory; the rest has the
// defaults given at each field.
type MetricsConfig struct {
	Service  string            `yaml:"service"`   // name in the traces
	Instance string            `yaml:"instance"`  // its host, pod or instance ID in the traces; default not told
	URLs     []string          `yaml:"urls"`      // one or several pages, read as one; each in the Prometheus text format or OpenMetrics
	Match    map[string]string `yaml:"match"`     // labels that a sample must have, where it has such a label: those of one container on a page of many, as container: shop; up to 8
	Timeout  time.Duration     `yaml:"timeout"`   // of all of them; 10ms..1m; default 5s
	MaxSize  int64             `yaml:"max_bytes"` // of a page; 4KiB..64MiB; default 8MiB
	Budget   Budget            `yaml:"budget"`    // of its looks
}

// WithDefaults fills what is zero.
func (c MetricsConfig) WithDefaults() MetricsConfig {
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.MaxSize, 8<<20)
	c.Budget = c.Budget.WithDefaults()
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c MetricsConfig) Validate() error {
	var f setting.Faults
	f.Check(len(c.URLs) > 0 && len(c.URLs) <= 8, "urls", len(c.URLs), "1..8 pages")
	for i, u := range c.URLs {
		var one setting.Faults
		checkURL(&one, u)
		for range setting.List(one.Err()) {
			f.Check(false, fmt.Sprintf("urls[%d]", i), plainURL(u), "http://host:port/path")
		}
	}
	f.Check(len(c.Match) <= 8, "match", len(c.Match), "up to 8 labels")
	within(&f, "timeout", c.Timeout, 10*time.Millisecond, time.Minute, "10ms..1m")
	within(&f, "max_bytes", c.MaxSize, 4<<10, 64<<20, "4KiB..64MiB")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

// Metrics reads the metrics of one process and what surrounds it. Safe for concurrent use.
type Metrics struct {
	cfg    MetricsConfig
	client *http.Client
	guard  *guard
}

// NewMetrics makes a collector that reads with client.
func NewMetrics(c MetricsConfig, client *http.Client) (*Metrics, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Metrics{cfg: c, client: client, guard: newGuard(c.Budget)}, nil
}

// Spent is what the collector has done.
func (m *Metrics) Spent() Spent { return m.guard.report(time.Now()) }

// Look reads all pages. A page that fails is a Gap, unless all do.
func (m *Metrics) Look(ctx context.Context) (out evidence.RuntimeLook, err error) {
	err = m.guard.look(ctx, "metrics", m.cfg.Timeout, func(ctx context.Context) error {
		out.At = time.Now()
		var last error
		read := 0
		for _, u := range m.cfg.URLs {
			samples, err := m.page(ctx, u)
			if err != nil {
				last = fmt.Errorf("probe: metrics of %s: %w", plainURL(u), err)
				out.Gaps = append(out.Gaps, evidence.Gap{What: plainURL(u), Why: err.Error()})
				continue
			}
			read++
			out.Samples = append(out.Samples, slices.DeleteFunc(samples, m.foreign)...)
		}
		if read == 0 {
			return last
		}
		return nil
	})
	return out, err
}

// foreign tells a sample of something else on the same page.
func (m *Metrics) foreign(s evidence.Sample) bool {
	for label, want := range m.cfg.Match {
		if have, ok := s.Labels[label]; ok && have != want {
			return true
		}
	}
	return false
}

func (m *Metrics) page(ctx context.Context, u string) ([]evidence.Sample, error) {
	data, err := get(ctx, m.client, u, m.cfg.MaxSize)
	if err != nil {
		return nil, err
	}
	return evidence.ParseMetrics(string(data))
}
