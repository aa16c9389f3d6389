package lab

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// Facts is what the probes of a real system would read of the parts of this one since the last Begin. healthy is the
// profiles of a phase without faults, by instance and kind; nil = there are none to compare with.
func (s *System) Facts(ctx context.Context, healthy map[string]evidence.Profile) evidence.Facts {
	f := evidence.Facts{From: time.Unix(0, s.measured.Load()), To: time.Now()}
	for _, x := range s.spec.Services {
		if x.External {
			continue
		}
		for _, n := range s.nodesOf(x.Name) {
			f.Services = append(f.Services, n.facts(f.From, f.To, healthy))
		}
	}
	elsewhere, gaps := s.look(ctx, f.From, healthy)
	f.Gaps = gaps
	for _, a := range elsewhere {
		f.Services = append(f.Services, a.Facts)
	}
	for _, x := range s.spec.Stores {
		got, err := s.stores[x.Name].facts(ctx)
		f.Postgres = keep(&f, f.Postgres, x.Name, got, err)
	}
	for _, x := range s.spec.Caches {
		got, err := s.caches[x.Name].facts(ctx)
		f.Redis = keep(&f, f.Redis, x.Name, got, err)
	}
	for _, x := range s.spec.Queues {
		got, err := s.queues[x.Name].facts(ctx)
		f.Queues = keep(&f, f.Queues, x.Name, got, err)
	}
	f.Bound()
	return f
}

// keep adds what a server told to list, or says in f that it told nothing.
func keep[T any](f *evidence.Facts, list []T, name string, got T, err error) []T {
	if err != nil {
		f.Gaps = append(f.Gaps, evidence.Gap{What: name, Why: err.Error()})
		return list
	}
	return append(list, got)
}

// Profiles are those of all processes since the last Begin, by instance and kind.
func (s *System) Profiles() map[string]evidence.Profile {
	all := map[string]evidence.Profile{}
	from, to := time.Unix(0, s.measured.Load()), time.Now()
	for n := range s.allNodes() {
		for _, p := range n.profiles(from, to) {
			all[n.instance+" "+p.Kind] = p
		}
	}
	elsewhere, _ := s.look(context.Background(), from, nil)
	for _, a := range elsewhere {
		for _, p := range a.Profiles {
			all[a.Facts.Instance+" "+p.Profile.Kind] = p.received()
		}
	}
	return all
}

// profiles are the CPU, mutex and heap profiles of one process, as simulated. A CPU profile has 100 samples a second.
func (n *node) profiles(from, to time.Time) []evidence.Profile {
	n.meter.mu.Lock()
	defer n.meter.mu.Unlock()
	took := to.Sub(from)
	profile := func(kind, unit string) evidence.Profile {
		return evidence.Profile{Service: n.spec.Name, Kind: kind, Unit: unit, From: from, To: to, Since: took}
	}
	cpu, mutex, heap := profile("cpu", "nanoseconds"), profile("mutex", "nanoseconds"), profile("heap", "bytes")
	for _, name := range slices.Sorted(maps.Keys(n.meter.functions)) {
		d := n.meter.functions[name]
		cpu.Stacks = append(cpu.Stacks, evidence.Stack{Frames: []string{"main.serve", name}, Value: float64(d), Count: d.Seconds() * 100})
	}
	for _, name := range slices.Sorted(maps.Keys(n.meter.locks)) {
		d := n.meter.locks[name]
		mutex.Stacks = append(mutex.Stacks, evidence.Stack{Frames: []string{"main.serve", n.spec.Name + "." + name, "sync.(*Mutex).Lock"}, Value: float64(d), Count: d.Seconds() * 100})
	}
	for _, name := range slices.Sorted(maps.Keys(n.meter.garbage)) {
		b := n.meter.garbage[name]
		heap.Stacks = append(heap.Stacks, evidence.Stack{Frames: []string{"main.serve", name}, Value: float64(b), Count: float64(b) / (512 << 10)})
	}
	return []evidence.Profile{cpu, mutex, heap}
}

// smallPath is the share of a profile below which paths are folded.
const smallPath = 0.01

func (n *node) facts(from, to time.Time, healthy map[string]evidence.Profile) evidence.ServiceFacts {
	f := evidence.ServiceFacts{Service: n.spec.Name, Instance: n.instance}
	for _, p := range n.profiles(from, to) {
		if len(p.Stacks) == 0 {
			continue
		}
		var other *evidence.Profile
		if h, ok := healthy[n.instance+" "+p.Kind]; ok && p.Kind == "cpu" {
			other = &h
		}
		f.Profiles = append(f.Profiles, evidence.Summarise(p, other, smallPath))
	}
	for _, name := range slices.Sorted(maps.Keys(n.pools)) {
		if p := n.pools[name].facts(); p.Known && p.Used > 0 {
			f.Pools = append(f.Pools, p)
		}
	}
	if n.workers != nil {
		f.Pools = append(f.Pools, n.workers.facts())
	}
	f.Runtime = n.meter.runtime(to.Sub(from), n.spec)
	return f
}

// runtime is what the metrics of the process's runtime tell.
func (m *meter) runtime(took time.Duration, x *scenario.Service) *evidence.RuntimeStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds, cores := took.Seconds(), float64(x.Cores)
	pauses := m.paused.Seconds()
	return &evidence.RuntimeStats{
		Span: took, Restarted: m.restarted,
		CPU: new((m.busy.Seconds() + pauses*cores) / seconds), Procs: new(cores),
		GC: new(pauses / seconds), GCPause: new(pauses / seconds), GCRuns: new(float64(m.runs) / seconds),
		SchedP50: new(m.waits.quantile(0.5).Seconds()), SchedP99: new(m.waits.quantile(0.99).Seconds()), MutexWait: new(m.locked.Seconds() / seconds),
	}
}

func (p *pool) facts() evidence.PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return evidence.PoolStats{
		Name: p.name, Max: float64(cap(p.gate)), Used: float64(p.most), Idle: float64(p.idle), Pending: float64(p.waiters),
		WaitMean: p.waits.mean(), WaitP99: p.waits.quantile(0.99), Known: p.waits.n > 0,
	}
}
