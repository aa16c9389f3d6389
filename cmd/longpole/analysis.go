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
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
	"github.com/longpole/longpole/internal/web"
)

// The live analysis looks at the last minutes, often enough for a person who watches and seldom enough to cost little.
const (
	analysisWindow = 5 * time.Minute
	analysisEvery  = 15 * time.Second
	analysisRest   = 50   // times as long as the last one took passes before the next: it shares its cores with the calls
	queuedBatches  = 4096 // batches of the gateway's own spans waiting for the assembler
)

// analysis turns live spans into findings: it owns the assembler and the newest report.
type analysis struct {
	log       *slog.Logger
	assembler *ingest.Assembler
	policies  func() map[string]longpole.Config
	own       chan []trace.Span

	mu      sync.Mutex
	newest  web.Findings
	refused uint64 // batches of our own spans for which the queue had no room
}

func newAnalysis(log *slog.Logger, policies func() map[string]longpole.Config) *analysis {
	return &analysis{
		log: log, policies: policies,
		assembler: ingest.NewAssembler(ingest.AssemblerConfig{Keep: analysisWindow + time.Minute}),
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

// Receive takes spans from an OTLP receiver.
func (a *analysis) Receive(spans []trace.Span) (rejected int) {
	a.assembler.Add(time.Now(), spans...)
	return 0
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
			began := time.Now()
			a.Refresh(analysisWindow)
			timer.Reset(max(every, analysisRest*time.Since(began)))
		case <-ctx.Done():
			return nil
		}
	}
}

// Refresh diagnoses the traces of the last window and keeps the report. A fault in the analysis must not take the data
// path with it, so that a panic ends as an error in the report's notes.
func (a *analysis) Refresh(window time.Duration) (report advise.Report, traces []trace.Trace) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("the analysis failed; the next one starts afresh", "panic", fmt.Sprint(p))
			report.Notes = append(report.Notes, fmt.Sprintf("the analysis failed: %v", p))
			a.keep(report, began, window)
		}
	}()
	traces = a.assembler.Window(began, window)
	report = advise.Run(traces, diagnose.Options{}, a.policies())
	a.keep(report, began, window)
	a.log.Debug("analysed", "traces", len(traces), "took", time.Since(began))
	return report, traces
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
		"queue_full": a.refused, "room": d.Spans, "late": d.LateSpans, "trace_too_long": d.TraceSpans,
	}
}
