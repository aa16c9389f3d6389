package evidence

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The bounds of a page of metrics.
const (
	maxSamples = 100_000
	maxLabels  = 64
)

// ErrMetrics is wrapped by the errors of ParseMetrics.
var ErrMetrics = errors.New("evidence: no page of metrics")

// Sample is one figure of a page of metrics.
type Sample struct {
	Name   string
	Labels map[string]string // nil = none
	Value  float64
}

// ParseMetrics reads the Prometheus text format 0.0.4 or OpenMetrics 1.0; comments, timestamps and exemplars are left out. A line that
// is none is an error with its number; so are more than 100,000 samples or 64 labels on one.
func ParseMetrics(page string) ([]Sample, error) {
	var out []Sample
	n := 0
	for line := range strings.Lines(page) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := sample(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrMetrics, n, err)
		}
		if out = append(out, s); len(out) > maxSamples {
			return nil, fmt.Errorf("%w: more than %d samples", ErrMetrics, maxSamples)
		}
	}
	return out, nil
}

func sample(line string) (Sample, error) {
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return Sample{}, errors.New("no name with a value")
	}
	s := Sample{Name: line[:end]}
	rest := line[end:]
	if rest[0] == '{' {
		var err error
		if s.Labels, rest, err = labels(rest[1:]); err != nil {
			return Sample{}, err
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return Sample{}, errors.New("no value")
	}
	v, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return Sample{}, fmt.Errorf("no number: %.40q", fields[0])
	}
	s.Value = v
	return s, nil
}

func labels(s string) (map[string]string, string, error) {
	out := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t,")
		if rest, ok := strings.CutPrefix(s, "}"); ok {
			return out, rest, nil
		}
		name, rest, ok := strings.Cut(s, "=")
		rest = strings.TrimLeft(rest, " \t")
		if !ok || rest == "" || rest[0] != '"' || len(out) >= maxLabels {
			return nil, "", errors.New("labels that are none")
		}
		var b strings.Builder
		i := 1
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
				if rest[i] == 'n' {
					b.WriteByte('\n')
					continue
				}
			}
			b.WriteByte(rest[i])
		}
		if i >= len(rest) {
			return nil, "", errors.New("a label without end")
		}
		out[strings.TrimSpace(name)] = b.String()
		s = rest[i+1:]
	}
}

// RuntimeLook is one look at the metrics of a process.
type RuntimeLook struct {
	At      time.Time
	Samples []Sample
	Gaps    []Gap
}

// metrics is a look by name, with the samples of one name added up: the metrics read here are of one process or one container.
type metrics struct {
	sum map[string]float64
	all []Sample
}

func (l RuntimeLook) index() metrics {
	m := metrics{map[string]float64{}, l.Samples}
	for _, s := range l.Samples {
		if !math.IsNaN(s.Value) {
			m.sum[s.Name] += s.Value
		}
	}
	return m
}

// first is the value of the first of these names that is there.
func (m metrics) first(names ...string) (float64, bool) {
	for _, n := range names {
		if v, ok := m.sum[n]; ok {
			return v, true
		}
	}
	return 0, false
}

// RuntimeStats is what a process and its container did between two looks. Shares are 0..1. A pointer that is nil was not told; Gaps says
// by which metric it would be.
type RuntimeStats struct {
	Span       time.Duration `json:"span_ns"`
	Restarted  bool          `json:"restarted,omitempty"` // between the looks
	CPU        *float64      `json:"cpu_cores,omitempty"` // busy cores
	Procs      *float64      `json:"gomaxprocs,omitempty"`
	GC         *float64      `json:"gc_share,omitempty"`           // of the CPU time there was, that went to garbage collection
	GCPause    *float64      `json:"gc_pause_share,omitempty"`     // of the time, in which the world stood still
	GCRuns     *float64      `json:"gc_per_second,omitempty"`      //
	SchedP50   *float64      `json:"sched_p50_seconds,omitempty"`  // how long a ready goroutine waited for a processor
	SchedP99   *float64      `json:"sched_p99_seconds,omitempty"`  //
	MutexWait  *float64      `json:"mutex_wait_share,omitempty"`   // seconds that goroutines waited for mutexes, per second
	Goroutines *float64      `json:"goroutines,omitempty"`         // or threads, of a JVM
	Heap       *float64      `json:"heap_bytes,omitempty"`         //
	Limit      *float64      `json:"memory_limit_bytes,omitempty"` // the tightest of GOMEMLIMIT and the container's
	Memory     *float64      `json:"memory_share,omitempty"`       // resident memory by Limit
	Files      *float64      `json:"open_files_share,omitempty"`   // by the process's limit
	Throttled  *float64      `json:"throttled_share,omitempty"`    // of the container's CPU periods, that were cut short
	CPUWait    *float64      `json:"cpu_pressure,omitempty"`       // PSI: share of the time in which something waited for a CPU
	MemoryWait *float64      `json:"memory_pressure,omitempty"`    //
	IOWait     *float64      `json:"io_pressure,omitempty"`        //
	Load       *float64      `json:"load1,omitempty"`              // of the host
	Gaps       []Gap         `json:"gaps,omitempty"`
}

// RuntimeBetween says what a process did between two looks; the earlier may be the zero value, then what needs two is a Gap.
func RuntimeBetween(before, after RuntimeLook) RuntimeStats {
	a, b := before.index(), after.index()
	s := RuntimeStats{Gaps: append([]Gap(nil), after.Gaps...)}
	if !before.At.IsZero() {
		s.Span = max(0, after.At.Sub(before.At))
	}
	if x, ok := a.first("process_start_time_seconds"); ok {
		y, _ := b.first("process_start_time_seconds")
		s.Restarted = x != y
	}
	if s.Restarted || s.Span == 0 {
		a, s.Span = metrics{}, 0
		s.Gaps = append(s.Gaps, Gap{"rates", "there is no earlier look at this run of the process"})
	}
	d := difference{a, b, s.Span.Seconds()}
	s.CPU, s.GCPause, s.GCRuns = d.rate(cpuNames...), d.rate(pauseNames...), d.rate(collectionNames...)
	s.GC = d.ratio("go_cpu_classes_gc_total_cpu_seconds_total", "go_cpu_classes_total_cpu_seconds_total")
	s.SchedP50, s.SchedP99 = d.quantile("go_sched_latencies_seconds_bucket", 0.5), d.quantile("go_sched_latencies_seconds_bucket", 0.99)
	s.MutexWait = d.rate("go_sync_mutex_wait_total_seconds_total")
	s.Throttled = d.ratio("container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_periods_total")
	s.CPUWait, s.MemoryWait = d.rate("node_pressure_cpu_waiting_seconds_total", "container_pressure_cpu_waiting_seconds_total"), d.rate("node_pressure_memory_waiting_seconds_total", "container_pressure_memory_waiting_seconds_total")
	s.IOWait = d.rate("node_pressure_io_waiting_seconds_total", "container_pressure_io_waiting_seconds_total")
	s.Procs, s.Goroutines, s.Load = b.now("go_sched_gomaxprocs_threads", "go_processor_limit"), b.now("go_goroutines", "go_goroutine_count", "jvm_threads_current", "jvm_thread_count", "jvm_threads_live_threads"), b.now("node_load1")
	s.processors(b)
	s.Heap = b.now("go_memstats_heap_inuse_bytes", "go_memory_classes_heap_objects_bytes")
	s.Files = b.share("process_open_fds", "process_max_fds")
	s.memory(b)
	s.missing()
	return s
}

// The names of the same figure in several runtimes, the process's own before the container's: Go's and OpenTelemetry's client
// libraries, the JVM by OpenTelemetry, Micrometer and client_java.
var (
	cpuNames        = []string{"process_cpu_seconds_total", "process_cpu_time_seconds_total", "jvm_cpu_time_seconds_total", "container_cpu_usage_seconds_total"}
	pauseNames      = []string{"go_gc_duration_seconds_sum", "jvm_gc_pause_seconds_sum", "jvm_gc_duration_seconds_sum", "jvm_gc_collection_seconds_sum"}
	collectionNames = []string{"go_gc_duration_seconds_count", "jvm_gc_pause_seconds_count", "jvm_gc_duration_seconds_count", "jvm_gc_collection_seconds_count"}
)

// processors finds how many the process may use, where its runtime does not say: what its container may, else what its host has.
// Micrometer tells CPU as a share of the host's.
func (s *RuntimeStats) processors(m metrics) {
	hosts := m.now("jvm_cpu_count", "system_cpu_count")
	if s.CPU == nil && hosts != nil {
		if usage, ok := m.first("process_cpu_usage"); ok {
			usage *= *hosts
			s.CPU = &usage
		}
	}
	if s.Procs == nil {
		s.Procs = hosts
	}
	quota, ok := m.first("container_spec_cpu_quota")
	period, also := m.first("container_spec_cpu_period")
	if ok && also && quota > 0 && period >= 1 {
		if cores := quota / period; s.Procs == nil || cores < *s.Procs {
			s.Procs = &cores
		}
	}
}

func (s *RuntimeStats) memory(m metrics) {
	for _, name := range []string{"go_gc_gomemlimit_bytes", "container_spec_memory_limit_bytes"} {
		const none = 1 << 60 // so the runtime and cAdvisor say that there is no limit
		if v, ok := m.first(name); ok && v >= 1 && v < none && (s.Limit == nil || v < *s.Limit) {
			s.Limit = &v
		}
	}
	if used, ok := m.first("container_memory_working_set_bytes", "process_resident_memory_bytes"); ok && s.Limit != nil {
		share := used / *s.Limit
		s.Memory = &share
	}
}

func (s *RuntimeStats) missing() {
	if s.Span == 0 {
		return
	}
	for _, m := range []struct {
		v           *float64
		what, needs string
	}{
		{s.CPU, "CPU", "process_cpu_seconds_total"},
		{s.GC, "share of garbage collection", "go_cpu_classes_gc_total_cpu_seconds_total (collectors.MetricsAll)"},
		{s.SchedP99, "scheduler latency", "go_sched_latencies_seconds (collectors.MetricsScheduler)"},
		{s.Throttled, "throttling", "container_cpu_cfs_throttled_periods_total, or the container has no CPU limit"},
		{s.Files, "open files", "process_open_fds"},
		{s.Memory, "memory limit", "go_gc_gomemlimit_bytes or container_spec_memory_limit_bytes, or there is no limit"},
		{s.CPUWait, "CPU pressure", "node_pressure_cpu_waiting_seconds_total"},
	} {
		if m.v == nil {
			s.Gaps = append(s.Gaps, Gap{m.what, "the page has no " + m.needs})
		}
	}
}

func (m metrics) now(names ...string) *float64 {
	if v, ok := m.first(names...); ok {
		return &v
	}
	return nil
}

func (m metrics) share(part, whole string) *float64 {
	p, ok := m.first(part)
	w, also := m.first(whole)
	if !ok || !also || w < leastWhole {
		return nil
	}
	p /= w
	return &p
}

// leastWhole keeps quotients finite.
const leastWhole = 1e-200

type difference struct {
	a, b    metrics
	seconds float64
}

func (d difference) of(name string) (float64, bool) {
	x, ok := d.a.first(name)
	y, also := d.b.first(name)
	if !ok || !also || y < x {
		return 0, false
	}
	return y - x, true
}

func (d difference) rate(names ...string) *float64 {
	for _, n := range names {
		if v, ok := d.of(n); ok && d.seconds > 0 {
			v /= d.seconds
			return &v
		}
	}
	return nil
}

func (d difference) ratio(part, whole string) *float64 {
	p, ok := d.of(part)
	w, also := d.of(whole)
	if !ok || !also || w < leastWhole {
		return nil
	}
	p /= w
	return &p
}

// quantile of a classic histogram: an upper bound.
func (d difference) quantile(bucket string, q float64) *float64 {
	if _, ok := d.a.first(bucket); !ok {
		return nil
	}
	counts := bucketGrowth(d.a.all, d.b.all, func(s Sample) bool { return s.Name == bucket })
	total := counts[math.Inf(1)]
	if total <= 0 {
		return nil
	}
	upper, _ := bucketQuantile(counts, q, total)
	return &upper
}
