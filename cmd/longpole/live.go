package main

import (
	"iter"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

const (
	ownService    = "longpole-gateway" // the gateway's name in spans
	mostLive      = 2000               // series of live traces that are told apart: their names come from clients
	mostGateways  = 4                  // spans of gateways in one trace that are looked at
	rememberTrace = 2 * time.Minute    // for so long a trace is known to have been counted
)

// recorder turns live traces into what the store keeps of them: for each route how long its calls waited for each segment,
// and each endpoint, on the critical path; and a sample of the traces themselves. It is not safe for concurrent use.
type recorder struct {
	window func(now time.Time, since time.Duration) []trace.Trace
	quiet  time.Duration // of the assembler: a trace is whole when it was quiet for so long
	last   time.Time     // of the last step
	seen   map[string]time.Time
	known  map[store.Series]bool
	lumped uint64 // series beyond mostLive, once for each trace
}

func newRecorder(window func(time.Time, time.Duration) []trace.Trace, quiet time.Duration, now time.Time) *recorder {
	return &recorder{window: window, quiet: quiet, last: now, seen: map[string]time.Time{}, known: map[store.Series]bool{}}
}

// entrance is a span that calls of a route come in by.
type entrance struct {
	route string
	span  int
	own   bool // the gateway counts the route itself
}

// entrances are those of a trace: its root, and the spans of gateways.
func entrances(t *diagnose.Tree) (all []entrance) {
	own := func(s *trace.Span) bool { return s.Service == ownService && s.Kind == trace.Server }
	if len(t.Roots) == 0 {
		return nil
	}
	if top := &t.Spans[t.Roots[0]]; !t.Synthetic && !own(top) {
		all = append(all, entrance{route: top.Service + " " + top.Name, span: t.Roots[0]})
	}
	for i := range t.Spans {
		s := &t.Spans[i]
		if own(s) && len(all) < mostGateways && !slices.ContainsFunc(all, func(e entrance) bool { return e.route == s.Name }) {
			all = append(all, entrance{route: s.Name, span: i, own: true})
		}
	}
	return all
}

// sums collects durations, each as often as its trace stands for others.
type sums struct {
	calls, failed float64
	lengths       map[time.Duration]float64
}

func (s *sums) add(d time.Duration, weight float64, failed bool) {
	s.calls += weight
	s.lengths[d] += weight
	if failed {
		s.failed += weight
	}
}

func (s *sums) each() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for d, n := range s.lengths {
			if !yield(d, uint64(math.Round(n))) {
				return
			}
		}
	}
}

// step is what came since the last one: traces that are whole and were not counted yet. rest is called between traces.
func (r *recorder) step(now time.Time, rest func()) (rollups []store.Rollup, kept []store.Kept) {
	traces := r.window(now, now.Sub(r.last)+r.quiet)
	from := r.last
	r.last = now
	for id, at := range r.seen {
		if now.Sub(at) > rememberTrace {
			delete(r.seen, id)
		}
	}
	found := map[store.Series]*sums{}
	for i := range traces {
		if _, again := r.seen[traces[i].ID]; again {
			continue // a span came late
		}
		r.seen[traces[i].ID] = now
		if route, failed, ok := r.count(found, traces[i]); ok {
			kept = append(kept, store.Kept{Route: route, Failed: failed, Trace: traces[i]})
		}
		rest()
	}
	for s, of := range found {
		latency := stats.FromBuckets(of.each())
		rollups = append(rollups, store.Rollup{Series: s, From: from, Calls: latency.Count(), Failed: uint64(math.Round(of.failed)), Latency: latency})
	}
	return rollups, kept
}

// count adds one trace. ok is false for one without a span that can be used.
func (r *recorder) count(found map[store.Series]*sums, t trace.Trace) (route string, failed, ok bool) {
	tree := diagnose.Build(t, diagnose.ClockOptions{})
	all := entrances(tree)
	if len(all) == 0 {
		return "", false, false
	}
	for _, e := range all {
		if e.own {
			route = e.route // rather than the name of who called the gateway
		}
		failed = failed || tree.Spans[e.span].Failed
		r.entrance(found, tree, e)
	}
	if route == "" {
		route = all[0].route
	}
	return route, failed, true
}

func (r *recorder) entrance(found map[store.Series]*sums, t *diagnose.Tree, e entrance) {
	top := &t.Spans[e.span]
	if !e.own {
		r.at(found, store.Series{Route: e.route}).add(top.Duration(), t.Weight, top.Failed)
	}
	segments := map[trace.Segment]time.Duration{}
	for _, c := range t.Critical(e.span) {
		segments[c.Segment] += c.Time
		endpoint := c.Service
		if c.Endpoint != "" {
			endpoint += " " + c.Endpoint
		}
		r.at(found, store.Series{Route: e.route, Segment: string(c.Segment), Endpoint: endpoint}).add(c.Time, t.Weight, top.Failed)
	}
	for segment, took := range segments {
		r.at(found, store.Series{Route: e.route, Segment: string(segment)}).add(took, t.Weight, top.Failed)
	}
}

// at is the place of a series; those beyond the bound share one for each segment.
func (r *recorder) at(found map[store.Series]*sums, s store.Series) *sums {
	if !r.known[s] {
		if len(r.known) >= mostLive {
			r.lumped++
			s = store.Series{Route: store.Lumped, Segment: s.Segment}
		} else {
			r.known[s] = true
		}
	}
	if found[s] == nil {
		found[s] = &sums{lengths: map[time.Duration]float64{}}
	}
	return found[s]
}
