package gateway

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/longpole/longpole/call"
)

// overload is how close the gateway is to the bounds of its own resources. Policies protect upstreams; this protects
// the process, in the manner of Envoy's overload manager, but by priority.
type overload struct {
	pressure atomic.Uint64 // bits of a float64: 0 = at ease, 1 = at a bound
	last     atomic.Pointer[OverloadStatus]
	shed     [tiers]atomic.Uint64
}

// tiers and cohorts are those of call.Info.
const (
	tiers   = int(call.Critical-call.Speculative) + 1
	cohorts = 128
)

// ease is the share of a bound that costs nobody anything.
const ease = 0.8

// OverloadStatus is what the gateway itself uses. It is a copy.
type OverloadStatus struct {
	Pressure    float64           `json:"pressure"` // 0 below 80% of every bound, 1 at one
	Memory      int64             `json:"memory_bytes"`
	MemoryBound int64             `json:"memory_bound_bytes"` // 0 = none
	Descriptors int               `json:"descriptors"`
	Goroutines  int               `json:"goroutines"`
	Shed        map[string]uint64 `json:"shed"` // calls refused for it, by priority
}

// usage is one look at what the process uses.
type usage struct {
	memory, descriptors, goroutines          int64
	memoryLimit, descriptorLimit, routineMax int64 // bounds; 0 = none
}

// pressure is that of the scarcest resource.
func (u usage) pressure() float64 {
	return max(scarce(u.memory, u.memoryLimit), scarce(u.descriptors, u.descriptorLimit), scarce(u.goroutines, u.routineMax))
}

func scarce(used, bound int64) float64 {
	if bound <= 0 {
		return 0
	}
	return min(1, max(0, (float64(used)/float64(bound)-ease)/(1-ease)))
}

// admitted reports whether a call is taken under a pressure. Its rank is that of Cinnamon: six tiers of 128 cohorts;
// health checks, which lie above them, always are.
func admitted(pressure float64, info call.Info) bool {
	if pressure <= 0 || info.Priority > call.Critical {
		return true
	}
	tier := min(max(int(info.Priority-call.Speculative), 0), tiers-1)
	rank := tier*cohorts + cohorts - 1 - int(min(info.Cohort, cohorts-1))
	return float64(rank) >= pressure*float64(tiers*cohorts)
}

// admit decides about a call and counts it if it is refused.
func (o *overload) admit(info call.Info) bool {
	bits := o.pressure.Load()
	if bits == 0 || admitted(math.Float64frombits(bits), info) {
		return true
	}
	o.shed[min(max(int(info.Priority-call.Speculative), 0), tiers-1)].Add(1)
	return false
}

// watch looks again and again until ctx is done; c is what the configuration says now.
func (o *overload) watch(ctx context.Context, c func() Overload) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	r := newReader(c)
	for n := 0; ; n++ {
		o.look(r.read(n%10 == 0), c().Off)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (o *overload) look(u usage, off bool) {
	p := u.pressure()
	if off {
		p = 0
	}
	o.pressure.Store(math.Float64bits(p))
	o.last.Store(&OverloadStatus{
		Pressure: p, Memory: u.memory, MemoryBound: u.memoryLimit, Descriptors: int(u.descriptors), Goroutines: int(u.goroutines),
	})
}

// Overload is how close the gateway is to its own bounds, as it was found at most 100ms ago; zero before Run.
func (g *Gateway) Overload() OverloadStatus {
	var s OverloadStatus
	if last := g.overload.last.Load(); last != nil {
		s = *last
	}
	s.Shed = make(map[string]uint64, tiers)
	for i := range g.overload.shed {
		s.Shed[(call.Speculative + call.Priority(i)).String()] = g.overload.shed[i].Load()
	}
	return s
}

// reader looks at the process.
type reader struct {
	config  func() Overload
	samples []metrics.Sample
	group   int64 // memory limit of the control group; 0 = none
	files   int64 // limit on open files; 0 = none
	open    int64 // descriptors at the last count
}

// What counts as used memory: objects that were alive at the last collection, and stacks. Garbage does not count: the
// collector takes it away before it hurts.
var memoryMetrics = []string{"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes"}

const routineMetric = "/sched/goroutines:goroutines"

func newReader(config func() Overload) *reader {
	r := &reader{config: config, group: groupLimit()}
	for _, name := range append([]string{routineMetric}, memoryMetrics...) {
		r.samples = append(r.samples, metrics.Sample{Name: name})
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur < math.MaxInt32 {
		r.files = int64(limit.Cur)
	}
	return r
}

// read looks; to count the descriptors costs more and is done on request.
func (r *reader) read(count bool) usage {
	c := r.config().WithDefaults()
	if count {
		r.open = descriptors()
	}
	metrics.Read(r.samples)
	u := usage{
		descriptors: r.open, descriptorLimit: int64(c.Descriptors * float64(r.files)),
		goroutines: value(r.samples[0]), routineMax: int64(c.Goroutines), memoryLimit: c.Memory,
	}
	for _, s := range r.samples[1:] {
		u.memory += value(s)
	}
	if u.memoryLimit == 0 {
		limit := debug.SetMemoryLimit(-1) // a negative one is only asked for
		if r.group > 0 {
			limit = min(limit, r.group)
		}
		if limit < math.MaxInt64 {
			u.memoryLimit = limit / 10 * 9
		}
	}
	return u
}

func value(s metrics.Sample) int64 {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0 // this runtime does not know it
	}
	return int64(min(s.Value.Uint64(), math.MaxInt64))
}

// descriptors counts the open files of the process; 0 where the system does not tell.
func descriptors() int64 {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return 0
	}
	return int64(len(names)) - 1 // less the one that reads
}

// groupLimit is the memory limit of the control group, version 2 or 1; 0 = none.
func groupLimit() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && n < 1<<60 {
			return n
		}
	}
	return 0
}
