package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

// The live analysis looks at the last minutes, often enough for a person who watches and seldom enough to cost little. It
// shares its cores with the calls: what it looks at is a bounded sample, and it works in slices between which it rests.
const (
	analysisWindow = 5 * time.Minute
	analysisEvery  = 15 * time.Second
	analysisSlice  = 300 * time.Microsecond // of work, as far as the work can be interrupted
	sliceRest      = 9                      // times as long as a slice took it rests then
	analysisRest   = 200                    // times as long as all slices took pass before the next analysis
	queuedBatches  = 4096                   // batches of the gateway's own spans waiting for the assembler
	quietPeriod    = 5 * time.Second        // after its last span a trace is taken as whole
)

// analysis turns live spans into findings: it owns the assembler and the newest report.
type analysis struct {
	log       *slog.Logger
	assembler *ingest.Assembler
	policies  func() map[string]longpole.Config
	facts     func() evidence.Facts    // from the systems behind; nil = nothing is read
	stretches func() staging.Stretches // of the forecasts' intervals; nil = none
	quiet     time.Duration            // of the assembler
	own       chan []trace.Span

	comparing sync.Mutex // held by the one comparison of two times that is under way

	mu      sync.Mutex
	newest  web.Findings
	refused uint64 // batches of our own spans for which the queue had no room
}

func newAnalysis(log *slog.Logger, policies func() map[string]longpole.Config, held gateway.Tracing) *analysis {
	return &analysis{
		log: log, policies: policies, quiet: quietPeriod,
		assembler: ingest.NewAssembler(ingest.AssemblerConfig{Keep: analysisWindow + time.Minute, MaxSpans: held.HeldSpans, MaxBytes: held.HeldBytes, QuietPeriod: quietPeriod}),
		own:       make(chan []trace.Span, queuedBatches),
	}
}

// Offer takes the gateway's own spans and never blocks: a full queue loses them and counts that.
func (a *analysis) Offer(spans []trace.Span) {
	select {
	case a.own <- spans:
	default:
		a.mu.Lock()
		a.refused++
		a.mu.Unlock()
	}
}

// Receive takes spans of others.
func (a *analysis) Receive(spans []trace.Span) (rejected int) {
	a.assembler.Add(time.Now(), spans...)
	return 0
}

// ReceiveLogs takes log records of others; each stays beside its trace.
func (a *analysis) ReceiveLogs(logs []trace.Log) (rejected int) {
	a.assembler.AddLogs(time.Now(), logs...)
	return 0
}

// Window is the traces that became whole within since.
func (a *analysis) Window(now time.Time, since time.Duration) []trace.Trace {
	return a.assembler.Window(now, since)
}

// Run assembles our own spans and, when every is not zero, refreshes the findings; it returns when ctx ends.
func (a *analysis) Run(ctx context.Context, every time.Duration) error {
	var timer *time.Ticker
	var tick <-chan time.Time
	if every > 0 {
		timer = time.NewTicker(every)
		defer timer.Stop()
		tick = timer.C
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case spans := <-a.own:
				a.assembler.Add(time.Now(), spans...)
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { <-done }()
	for {
		select {
		case <-tick:
			p := &pace{ctx: ctx, began: time.Now()}
			a.refresh(analysisWindow, p.rest)
			timer.Reset(max(every, analysisRest*p.work()))
		case <-ctx.Done():
			return nil
		}
	}
}

// pace is that of one analysis: slices of work with rests between them.
type pace struct {
	ctx   context.Context // whoever waits for the end wants it soon
	began time.Time       // the present one
	done  time.Duration   // the ones before, without the rests
}

// work is how long all slices took.
func (p *pace) work() time.Duration { return p.done + time.Since(p.began) }

// rest waits after a slice of work; within one it does nothing.
func (p *pace) rest() {
	worked := time.Since(p.began)
	if worked < analysisSlice || p.ctx.Err() != nil {
		return
	}
	p.done += worked
	time.Sleep(min(sliceRest*worked, time.Second))
	p.began = time.Now()
}

// Refresh diagnoses the traces of the last window, at once, and keeps the report.
func (a *analysis) Refresh(window time.Duration) (report advise.Report, traces []trace.Trace) {
	return a.refresh(window, nil)
}

// refresh is Refresh with rests; nil = none. A fault in the analysis must not take the data path with it, so that a panic
// ends as an error in the report's notes.
func (a *analysis) refresh(window time.Duration, rest func()) (report advise.Report, traces []trace.Trace) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("the analysis failed; the next one starts afresh", "panic", fmt.Sprint(p))
			report.Notes = append(report.Notes, fmt.Sprintf("the analysis failed: %v", p))
			a.keep(report, began, window)
		}
	}()
	traces = a.assembler.Window(began, window)
	o := diagnose.Options{Clock: diagnose.ClockOptions{Yield: rest}}
	if a.facts != nil {
		o.Facts = a.facts()
	}
	report = a.advise(traces, o)
	a.keep(report, began, window)
	a.log.Debug("analysed", "traces", len(traces), "took", time.Since(began))
	return report, traces
}

// advise is the report of traces, its intervals widened by what earlier forecasts missed.
func (a *analysis) advise(traces []trace.Trace, o diagnose.Options) advise.Report {
	report := advise.Run(traces, o, a.policies())
	if a.stretches != nil {
		report.Widen(a.stretches())
	}
	return report
}

// Compare diagnoses traces beside those of an earlier time, as slowly as everything that shares its cores with the calls. ok is false
// while another comparison is under way.
func (a *analysis) Compare(now, before []trace.Trace) (report advise.Report, ok bool) {
	if !a.comparing.TryLock() {
		return report, false
	}
	defer a.comparing.Unlock()
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("the comparison of two times failed", "panic", fmt.Sprint(p))
			report.Notes, ok = append(report.Notes, fmt.Sprintf("the comparison failed: %v", p)), true
		}
	}()
	p := &pace{ctx: context.Background(), began: time.Now()}
	o := diagnose.Options{Clock: diagnose.ClockOptions{Yield: p.rest}, Baseline: before}
	return a.advise(now, o), true
}

func (a *analysis) keep(r advise.Report, at time.Time, window time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newest = web.Findings{At: at, Window: window, Report: r}
}

// Newest is the last report; its At is zero before the first.
func (a *analysis) Newest() web.Findings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newest
}

// Dropped is what was lost on the way to the analysis, by reason.
func (a *analysis) Dropped() map[string]uint64 {
	d := a.assembler.Dropped()
	a.mu.Lock()
	defer a.mu.Unlock()
	return map[string]uint64{
		"queue_full": a.refused, "room": d.Spans, "late": d.LateSpans, "trace_too_long": d.TraceSpans, "logs": d.Logs,
	}
}
