package evidence

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SeriesNaming says by which labels the series of a Prometheus server tell the services and processes that traces name. The zero
// value means the usual labels.
type SeriesNaming struct {
	Service  []string          // of these labels the first that a series has counts
	Instance []string          // the same, for the host, pod or instance ID
	Rename   map[string]string // what the label says, to the service's name in the traces, where the two differ
}

// The usual labels: resource attributes of OpenTelemetry that were promoted, what a Collector exports, what a scrape names.
var (
	usualService  = []string{"service_name", "exported_job", "job", "service", "app"}
	usualInstance = []string{"service_instance_id", "pod", "exported_instance", "instance"}
)

// WithDefaults fills what is empty.
func (n SeriesNaming) WithDefaults() SeriesNaming {
	if len(n.Service) == 0 {
		n.Service = usualService
	}
	if len(n.Instance) == 0 {
		n.Instance = usualInstance
	}
	return n
}

// service is the name in the traces, and the label that tells it. Of a job that is "namespace/name", as OTLP makes it, the name.
func (n SeriesNaming) service(labels map[string]string) (name, label string) {
	for _, l := range n.Service {
		v := labels[l]
		if v == "" {
			continue
		}
		if other, ok := n.Rename[v]; ok {
			return other, l
		}
		if strings.HasSuffix(l, "job") {
			v = v[strings.LastIndexByte(v, '/')+1:]
		}
		return v, l
	}
	return "", ""
}

func (n SeriesNaming) instance(labels map[string]string) (name, label string) {
	for _, l := range n.Instance {
		if v := labels[l]; v != "" {
			return v, l
		}
	}
	return "", ""
}

// ProcessMetrics are the names of the metrics that [Processes] reads of a process itself, ContainerMetrics those of what surrounds it.
func ProcessMetrics() []string {
	names := slices.Clone(runtimeNames)
	for _, f := range poolFamilies {
		names = append(names, f.max, f.used, f.idle, f.pending, f.timeouts, f.waitSum, f.waitCount, f.waitBucket)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// ContainerMetrics are those of the kubelet and of kube-state-metrics, which name a pod.
func ContainerMetrics() []string { return slices.Clone(containerNames) }

// runtimeNames are what [RuntimeBetween] reads of a process.
var runtimeNames = []string{
	"process_start_time_seconds", "process_cpu_seconds_total", "process_cpu_time_seconds_total", "process_cpu_usage", "system_cpu_count",
	"process_open_fds", "process_max_fds", "process_resident_memory_bytes",
	"go_gc_duration_seconds_sum", "go_gc_duration_seconds_count", "go_cpu_classes_gc_total_cpu_seconds_total", "go_cpu_classes_total_cpu_seconds_total",
	"go_sched_latencies_seconds_bucket", "go_sync_mutex_wait_total_seconds_total", "go_sched_gomaxprocs_threads", "go_processor_limit",
	"go_goroutines", "go_goroutine_count", "go_memstats_heap_inuse_bytes", "go_memory_classes_heap_objects_bytes", "go_gc_gomemlimit_bytes",
	"jvm_cpu_time_seconds_total", "jvm_cpu_count", "jvm_gc_duration_seconds_sum", "jvm_gc_duration_seconds_count", "jvm_gc_pause_seconds_sum",
	"jvm_gc_pause_seconds_count", "jvm_gc_collection_seconds_sum", "jvm_gc_collection_seconds_count", "jvm_threads_current", "jvm_thread_count",
	"jvm_threads_live_threads",
}

var containerNames = []string{
	"container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_periods_total", "container_cpu_usage_seconds_total", "container_spec_cpu_quota",
	"container_spec_cpu_period", "container_spec_memory_limit_bytes", "container_memory_working_set_bytes",
	"container_pressure_cpu_waiting_seconds_total", "container_pressure_memory_waiting_seconds_total", "container_pressure_io_waiting_seconds_total",
}

// processSeries is what was read of one process.
type processSeries struct {
	service, instance string
	source            string
	at                map[int64][]Sample
}

// Processes says what each process did, from the series of [ProcessMetrics] and [ContainerMetrics] over a window: as if its page had
// been read at each of their times. Containers are those of the process of their pod, or of the service that the container
// is called as. Sorted by service and instance.
func Processes(list []Series, n SeriesNaming) []ServiceFacts {
	n = n.WithDefaults()
	found := map[[2]string]*processSeries{}
	pods := map[string]*processSeries{}
	for _, s := range list {
		if containers[s.Name()] {
			continue
		}
		service, label := n.service(s.Labels)
		instance, also := n.instance(s.Labels)
		if service == "" {
			continue
		}
		p := processOf(found, service, instance, s.Labels, label, also)
		p.add(s)
		if pod := s.Labels["pod"]; pod != "" {
			pods[pod] = p
		}
	}
	for _, s := range list {
		container, pod := s.Labels["container"], s.Labels["pod"]
		if !containers[s.Name()] || container == "" || container == "POD" {
			continue
		}
		p := pods[pod]
		if p == nil {
			service := cmp.Or(n.Rename[container], container)
			p = processOf(found, service, pod, s.Labels, "container", "pod")
		}
		p.add(s)
	}
	var out []ServiceFacts
	for _, p := range found {
		out = append(out, p.facts())
	}
	slices.SortFunc(out, func(a, b ServiceFacts) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Instance, b.Instance))
	})
	return out
}

var containers = set(containerNames)

func set(names []string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func processOf(found map[[2]string]*processSeries, service, instance string, labels map[string]string, by ...string) *processSeries {
	key := [2]string{service, instance}
	p := found[key]
	if p == nil {
		p = &processSeries{service: service, instance: instance, source: selector(labels, by...), at: map[int64][]Sample{}}
		found[key] = p
	}
	return p
}

// selector is how PromQL asks for what those labels tell.
func selector(labels map[string]string, by ...string) string {
	var parts []string
	for _, l := range by {
		if l != "" {
			parts = append(parts, l+"="+strconv.Quote(labels[l]))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (p *processSeries) add(s Series) {
	for _, x := range s.Points {
		at := x.At.UnixMilli()
		p.at[at] = append(p.at[at], Sample{s.Name(), s.Labels, x.Value})
	}
}

func (p *processSeries) facts() ServiceFacts {
	var looks []RuntimeLook
	for _, at := range slices.Sorted(maps.Keys(p.at)) {
		looks = append(looks, RuntimeLook{At: time.UnixMilli(at).UTC(), Samples: p.at[at]})
	}
	run, restarted := sinceRestart(looks)
	before := RuntimeLook{}
	if len(run) > 1 {
		before = run[0]
	}
	stats := RuntimeBetween(before, run[len(run)-1])
	stats.Restarted = restarted
	stats.Gaps = nil // what a server has of no process is told once
	return ServiceFacts{Service: p.service, Instance: p.instance, Source: p.source, Runtime: &stats, Pools: PoolsOver(run)}
}

// sinceRestart is the looks at the last run of a process: those that tell when it began, and what lies between them. Where only its
// container was seen nobody knows; that is no restart.
func sinceRestart(looks []RuntimeLook) (run []RuntimeLook, restarted bool) {
	first, last, began := -1, -1, 0.0
	for i, l := range slices.Backward(looks) {
		at, told := l.index().first("process_start_time_seconds")
		switch {
		case !told:
			continue
		case last < 0:
			last, began = i, at
		case at != began:
			return looks[first : last+1], true
		}
		first = i
	}
	if last < 0 {
		return looks, false
	}
	return looks[first : last+1], false
}

// Add takes in what another source read over the same window. Of a process that both know, the first to tell of its runtime counts.
func (f *Facts) Add(g Facts) {
	if f.To.IsZero() || !g.From.IsZero() && g.From.Before(f.From) {
		f.From = g.From
	}
	if g.To.After(f.To) {
		f.To = g.To
	}
	for _, s := range g.Services {
		i := slices.IndexFunc(f.Services, func(o ServiceFacts) bool { return o.Service == s.Service && o.Instance == s.Instance })
		if i < 0 {
			f.Services = append(f.Services, s)
			continue
		}
		one := &f.Services[i]
		if one.Runtime == nil {
			one.Runtime, one.Source = s.Runtime, s.Source
		}
		for _, p := range s.Pools {
			if !slices.ContainsFunc(one.Pools, func(o PoolStats) bool { return o.Name == p.Name }) {
				one.Pools = append(one.Pools, p)
			}
		}
		one.Profiles = append(one.Profiles, s.Profiles...)
	}
	f.Postgres = append(f.Postgres, g.Postgres...)
	f.Redis = append(f.Redis, g.Redis...)
	f.Queues = append(f.Queues, g.Queues...)
	f.Routes = append(f.Routes, g.Routes...)
	f.Gaps = append(f.Gaps, g.Gaps...)
	f.Dropped += g.Dropped
	f.Bound()
}
