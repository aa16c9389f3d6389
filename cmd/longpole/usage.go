package main

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/ingest"
)

const (
	usageFor      = 2 * time.Minute // a figure older than that says nothing of now
	mostReplicas  = 10_000          // told apart; points of further ones are rejected
	mostUsageSets = 64              // of attributes of one replica's metric
)

// The metrics that say how much of what a replica may use it uses, 0..1: those of the OpenTelemetry Collector and of the
// semantic conventions. Where a metric is split by mode, the parts add up.
var (
	cpuMetrics    = []string{"k8s.pod.cpu_limit_utilization", "k8s.container.cpu_limit_utilization", "container.cpu.utilization", "jvm.cpu.recent_utilization", "process.cpu.utilization"}
	memoryMetrics = []string{"k8s.pod.memory_limit_utilization", "k8s.container.memory_limit_utilization", "container.memory.utilization", "process.memory.utilization"}
)

// usage knows from metrics of OTLP how much CPU and memory the replicas of a service use. It is safe for concurrent use.
type usage struct {
	mu       sync.Mutex
	replicas map[replica]map[string]*figure // by metric
}

// replica is one instance of a service.
type replica struct{ service, host string }

// figure is one metric of one replica.
type figure struct {
	at    time.Time
	parts map[string]float64 // by its attributes
}

func newUsage() *usage { return &usage{replicas: map[replica]map[string]*figure{}} }

// Receive takes points that arrive now, keeps what it understands, and rejects what there is no room for.
func (u *usage) Receive(now time.Time, points []ingest.Point) (rejected int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range points {
		if p := &points[i]; p.Service != "" && (slices.Contains(cpuMetrics, p.Name) || slices.Contains(memoryMetrics, p.Name)) && p.Kind == ingest.Gauge {
			if !u.take(now, p) {
				rejected++
			}
		}
	}
	return rejected
}

func (u *usage) take(now time.Time, p *ingest.Point) bool {
	key := replica{strings.Clone(p.Service), strings.Clone(p.Host)}
	of := u.replicas[key]
	if of == nil {
		if len(u.replicas) >= mostReplicas {
			u.forget(now)
		}
		if len(u.replicas) >= mostReplicas {
			return false
		}
		of = map[string]*figure{}
		u.replicas[key] = of
	}
	f := of[p.Name]
	if f == nil || now.Sub(f.at) > usageFor {
		f = &figure{parts: map[string]float64{}}
		of[strings.Clone(p.Name)] = f
	}
	var set strings.Builder
	for _, a := range p.Attributes {
		if strings.HasSuffix(a.Key, ".mode") || a.Key == "state" || strings.HasPrefix(a.Key, "k8s.container.") {
			set.WriteString(a.Key + "=" + a.Value + ",")
		}
	}
	if _, there := f.parts[set.String()]; !there && len(f.parts) >= mostUsageSets {
		return false
	}
	f.at, f.parts[set.String()] = now, p.Value
	return true
}

// forget drops what is too old to say anything.
func (u *usage) forget(now time.Time) {
	for key, of := range u.replicas {
		for name, f := range of {
			if now.Sub(f.at) > usageFor {
				delete(of, name)
			}
		}
		if len(of) == 0 {
			delete(u.replicas, key)
		}
	}
}

// Of is the mean over the replicas of a service that said something in the last minutes; 0 = not known.
func (u *usage) Of(now time.Time, service string) (cpu, memory float64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var cpus, memories []float64
	for key, of := range u.replicas {
		if key.service != service {
			continue
		}
		if v, ok := first(now, of, cpuMetrics); ok {
			cpus = append(cpus, v)
		}
		if v, ok := first(now, of, memoryMetrics); ok {
			memories = append(memories, v)
		}
	}
	return mean(cpus), mean(memories)
}

// first is the first of the metrics that a replica told lately.
func first(now time.Time, of map[string]*figure, names []string) (v float64, ok bool) {
	for _, name := range names {
		if f := of[name]; f != nil && now.Sub(f.at) <= usageFor {
			for _, part := range f.parts {
				v += part
			}
			return v, true
		}
	}
	return 0, false
}

func mean(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range all {
		sum += v
	}
	return sum / float64(len(all))
}
