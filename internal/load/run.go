package load

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"
)

// RunOptions is how a scenario is run. The zero value is ready to use.
type RunOptions struct {
	Dial     func(network, address string) (net.Conn, error) // nil = the network
	Precise  bool                                            // see Options.Precise
	Progress func(Progress)                                  // called every second on one goroutine; nil = nobody looks
}

// Progress is how far a run is.
type Progress struct {
	Warmup   bool
	Took     time.Duration // of the warm-up, or of what is measured
	Length   time.Duration // 0 = as long as the recording
	InFlight int64
	Second   Result // what ended in the last second, all targets together
	Total    Result // since the beginning of what is measured
}

// The phases of a run.
const (
	phaseWarmup = ""
	phaseRun    = "run"
)

// Run sends the traffic of s until its duration is over, or ctx ends, and reports what came of it. The error says why the
// scenario could not be run at all; a run that measured the generator rather than the system is a Report that is not Valid.
func Run(ctx context.Context, s Scenario, o RunOptions) (Report, error) {
	s = s.WithDefaults()
	if err := s.Validate(); err != nil {
		return Report{}, fmt.Errorf("load: scenario: %w", err)
	}
	p, err := s.plan()
	if err != nil {
		return Report{}, err
	}
	client, err := NewClient(s.transport(&o))
	if err != nil {
		return Report{}, err
	}
	defer client.Close()
	if s.Duration > 0 {
		p.Length = s.Warmup + s.Duration
	}
	g, err := New(p, Options{Transport: client, Precise: o.Precise})
	if err != nil {
		return Report{}, err
	}
	r := &runner{scenario: s, options: o, generator: g, started: time.Now()}
	if err := r.run(ctx); err != nil {
		return Report{}, err
	}
	return r.report(ctx.Err() != nil), nil
}

// runner watches a generator.
type runner struct {
	scenario  Scenario
	options   RunOptions
	generator *Generator
	started   time.Time
	width     int // seconds of a slice
	slices    []Slice
	seen      Snapshot // at the end of the last slice
	shown     Snapshot // at the last progress
	before    usage
	after     usage
}

func (r *runner) run(ctx context.Context) error {
	if r.scenario.Warmup == 0 {
		r.begin()
	}
	done := make(chan error, 1)
	go func() { done <- r.generator.Run(ctx) }()
	if w := r.scenario.Warmup; w > 0 {
		if ended, err := r.watch(w, true, done); ended {
			return err
		}
		r.begin()
	}
	_, err := r.watch(0, false, done)
	return err
}

// begin makes what is due from now on count.
func (r *runner) begin() {
	r.width, r.before, r.started, r.shown = 1, readUsage(), time.Now(), Snapshot{}
	_ = r.generator.Begin(phaseRun) // the second phase of 64
}

// watch looks every second until the generator has ended, or for length when that is not 0.
func (r *runner) watch(length time.Duration, warmup bool, done <-chan error) (ended bool, err error) {
	from := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var over <-chan time.Time
	if length > 0 {
		timer := time.NewTimer(length)
		defer timer.Stop()
		over = timer.C
	}
	for {
		select {
		case err := <-done:
			r.finish()
			return true, err
		case <-over:
			return false, nil
		case <-tick.C:
			if !warmup {
				r.slice()
			}
			r.show(warmup, time.Since(from), length)
		}
	}
}

// slice keeps what ended since the last slice, once its width is over.
func (r *runner) slice() {
	now, _ := r.generator.Phase(phaseRun)
	if now.Took > r.seen.Took { // else it drains
		r.after = readUsage()
	}
	if now.Took.Seconds() < float64((len(r.slices)+1)*r.width)-0.5 {
		return
	}
	r.slices = append(r.slices, sliceOf(now.Sub(r.seen).all()))
	r.seen = now
	if len(r.slices) == maxSlices {
		r.slices = thin(r.slices, maxSlices/2, Slice.join)
		r.width *= 2
	}
}

// finish puts what ended after the last slice, while the generator drained, to that, or makes it one when the run ended
// in the middle of it.
func (r *runner) finish() {
	now, ok := r.generator.Phase(phaseRun)
	if !ok {
		return
	}
	rest := sliceOf(now.Sub(r.seen).all())
	n := len(r.slices)
	if n > 0 && now.Took.Seconds() < (float64(n)+0.5)*float64(r.width) {
		r.slices[n-1] = r.slices[n-1].join(rest)
	} else {
		r.slices = append(r.slices, rest)
	}
	r.seen = now
	if len(r.slices) == 1 {
		r.after = readUsage()
	}
}

func sliceOf(r Result) Slice {
	return Slice{Calls: r.Calls, Failed: r.Failed, Dropped: r.Dropped, Response: binsOf(r.Response)}
}

// all is the results of all targets together.
func (s Snapshot) all() Result {
	all := s.Results[0]
	for _, r := range s.Results[1:] {
		all = all.add(r)
	}
	all.Target = "all"
	return all
}

func (r *runner) show(warmup bool, took, length time.Duration) {
	if r.options.Progress == nil {
		return
	}
	name := phaseRun
	if warmup {
		name = phaseWarmup
	} else {
		length = r.scenario.Duration
	}
	now, _ := r.generator.Phase(name)
	since := now
	if now.Took >= r.shown.Took && len(r.shown.Results) > 0 {
		since = now.Sub(r.shown)
	}
	r.shown = now
	r.options.Progress(Progress{
		Warmup: warmup, Took: took, Length: length, InFlight: r.generator.InFlight(), Second: since.all(), Total: now.all(),
	})
}

// report sums the run up.
func (r *runner) report(interrupted bool) Report {
	end, _ := r.generator.Phase(phaseRun)
	if len(end.Results) == 0 { // interrupted while it warmed up
		end = Snapshot{Results: make([]Result, len(r.generator.streams))}
		for i, s := range r.generator.streams {
			end.Results[i].Target = s.Name
		}
	}
	seconds := end.Took.Seconds()
	all := end.all()
	response, service, lag := binsOf(all.Response), binsOf(all.Service), binsOf(all.Lag)
	out := Report{
		Format: reportFormat, Version: reportVersion, Started: r.started.UTC(), TookSeconds: round(seconds), Interrupted: interrupted,
		Workload: workload(r.scenario), Doubts: []string{}, Notes: []string{}, Total: figures(all, seconds),
		SliceSeconds: float64(max(r.width, 1)), Slices: r.slices, Response: &response, Service: &service, Lag: &lag, Thresholds: []Check{},
	}
	for _, t := range end.Results {
		out.Targets = append(out.Targets, figures(t, seconds))
	}
	out.CPU.Generator, out.CPU.Machine = r.after.since(r.before)
	for _, text := range r.scenario.Thresholds {
		t, err := ParseThreshold(text)
		if err != nil {
			continue // Validate has refused it
		}
		of := all
		if t.Target != "" {
			of, _ = end.Target(t.Target)
		}
		out.Thresholds = append(out.Thresholds, t.judge(of, seconds))
	}
	out.Doubts = append(out.Doubts, r.doubts(all, out.CPU)...)
	out.Valid = len(out.Doubts) == 0
	out.Notes = append(out.Notes, r.notes(all, seconds)...)
	return out
}

// doubts are the reasons why the figures say more of the generator than of the system.
func (r *runner) doubts(all Result, cpu CPU) (doubts []string) {
	add := func(format string, a ...any) { doubts = append(doubts, fmt.Sprintf(format, a...)) }
	if all.Calls+all.Dropped == 0 {
		add("no call ended")
		return doubts
	}
	limit := r.scenario.MaxLag
	if limit == 0 {
		limit = max(time.Millisecond, time.Duration(lagRatio*float64(all.Response.Quantile(0.5))))
	}
	if lag := all.Lag.Quantile(0.99); lag > limit {
		add("the generator sent late: lag p99 %s, at most %s allowed", rounded(lag), rounded(limit))
	}
	if most := r.scenario.MaxCPU; most < 1 {
		if cpu.Machine > most {
			add("the processors of this machine were %.0f %% busy, at most %.0f %% allowed", 100*cpu.Machine, 100*most)
		}
		if cpu.Generator > most {
			add("the generator used %.0f %% of the processors, at most %.0f %% allowed", 100*cpu.Generator, 100*most)
		}
	}
	if all.Dropped > 0 {
		add("%d of %d calls were not sent, because %d were in flight; they would have been the slowest", all.Dropped, all.Calls+all.Dropped, r.scenario.MaxInFlight)
	}
	if all.Faults[faultNames[faultFiles]] > 0 {
		add("%d calls found no free file descriptor", all.Faults[faultNames[faultFiles]])
	}
	return doubts
}

func (r *runner) notes(all Result, seconds float64) (notes []string) {
	add := func(format string, a ...any) { notes = append(notes, fmt.Sprintf(format, a...)) }
	if n := all.Faults[faultNames[faultTimeout]]; n > 0 {
		add("%d calls timed out; they count as if answered after the timeout of %s, so true latencies are longer", n, r.scenario.Timeout)
	}
	if all.Abandoned > 0 {
		add("%d calls were cut off when the run was interrupted; their latencies are not known", all.Abandoned)
	}
	if all.Skipped > 0 {
		add("%d calls of the recording were not sent, because they are unsafe, or not whole", all.Skipped)
	}
	gap := all.Response.Quantile(0.99) - all.Service.Quantile(0.99)
	if gap > max(time.Millisecond, all.Service.Quantile(0.99)/10, 2*all.Lag.Quantile(0.99)) {
		add("response time is service time plus what a call waited for a connection; where the two differ, the system was too slow, or the connections too few, for the rate")
	}
	if n := float64(all.Calls); n > 0 && n < 1000 && seconds > 0 {
		add("%.0f calls tell little about the p99: %.0f of them are above it", n, math.Floor(n/100))
	}
	return notes
}

// rounded has about four digits.
func rounded(d time.Duration) time.Duration {
	return d.Round(max(d/1000, time.Microsecond).Round(time.Microsecond))
}

func round(v float64) float64 { return math.Round(v*1e3) / 1e3 }
