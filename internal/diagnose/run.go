package diagnose

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// other names what is counted together because there is too much of it.
const other = "other"

// Run says where the time of traces goes, route by route, why, and, with a baseline, who made them slower.
//
// The answer depends on the spans alone, not on their order. It takes O(n log n) for n spans.
func Run(traces []trace.Trace, o Options) Report {
	o = o.withDefaults()
	trees := build(traces, o.Clock)
	names := newNamer()
	r := Report{Input: Input{Files: o.Files, Traces: len(traces)}, Routes: []Route{}}
	for _, t := range trees {
		r.Input.count(t)
		for i := range t.Spans {
			names.count(t.Spans[i].Service, t.Spans[i].Name)
		}
	}
	for _, v := range views(trees, names, o.MaxRoutes) {
		r.Routes = append(r.Routes, v.report())
	}
	if r.Input.IncompleteTraces > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of %d traces are incomplete: time under a missing span is counted as its parent's", r.Input.IncompleteTraces, len(traces)))
	}
	if o.Baseline != nil {
		c := compareTrees(trees, build(o.Baseline, o.Clock))
		r.Culprits = c.Culprits
		r.Notes = append(r.Notes, c.Notes...)
	}
	return r
}

func (in *Input) count(t *Tree) {
	in.Spans += len(t.Spans)
	in.DuplicateSpans += t.Duplicates
	in.InvalidSpans += t.Invalid
	in.SkewCorrectedSpans += t.SkewCorrected
	if t.Incomplete {
		in.IncompleteTraces++
	}
}

// view is a route with all that the rules look at.
type view struct {
	service, operation string
	samples            []sample // by duration, shortest first
	typical, slow      []sample // parts of samples; see bandsOf
	segments           []Segment
	slowTotal          int64 // ns, of the slow band
	total              int64 // ns, of all samples
	errors             int
	names              *namer
}

// views sorts the traces by route, those with the most time in total first. Routes beyond most are joined as "other".
func views(trees []*Tree, names *namer, most int) []*view {
	p := newPlaces(names)
	by := make(map[[2]string]*view)
	var list []*view
	for _, t := range trees {
		if len(t.Roots) == 0 {
			continue // no usable span
		}
		root := t.Roots[0]
		s := &t.Spans[root]
		key := [2]string{s.Service, names.name(s.Service, s.Name)}
		v := by[key]
		if v == nil {
			v = &view{service: key[0], operation: key[1], names: names}
			by[key] = v
			list = append(list, v)
		}
		v.add(take(t, root, p))
	}
	slices.SortFunc(list, func(a, b *view) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation))
	})
	if len(list) > most {
		rest := &view{service: other, operation: other, names: names}
		for _, v := range list[most:] {
			for _, s := range v.samples {
				rest.add(s)
			}
		}
		list = append(list[:most:most], rest)
	}
	for _, v := range list {
		v.finish(p)
	}
	return list
}

func (v *view) add(s sample) {
	v.samples = append(v.samples, s)
	v.total += s.duration
	if s.tree.Spans[s.root].Failed {
		v.errors++
	}
}

func (v *view) finish(p *places) {
	slices.SortFunc(v.samples, func(a, b sample) int {
		return cmp.Or(cmp.Compare(a.duration, b.duration), cmp.Compare(a.tree.ID, b.tree.ID))
	})
	v.typical, v.slow = bandsOf(v.samples)
	for i := range v.slow {
		v.slowTotal += v.slow[i].duration
	}
	v.segments = segments(v.typical, v.slow, p)
}

// rules are asked in this order; the last one is told what the others found.
var rules = []func(*view) []Finding{serialCalls, nPlusOne, slowEndpoint, repeatedReads}

func (v *view) report() Route {
	r := Route{
		Service: v.service, Operation: v.operation, Traces: len(v.samples), Errors: v.errors,
		Latency: latency(v.samples), Segments: v.segments, Findings: []Finding{},
	}
	for _, rule := range rules {
		r.Findings = append(r.Findings, rule(v)...)
	}
	r.Findings = append(r.Findings, dominant(v, r.Findings)...)
	for i := range r.Findings {
		r.Findings[i].fill()
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.ShareP99, a.ShareP99), cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
	})
	return r
}

// fill keeps the lists of f from being null in JSON and its shares within 0..1.
func (f *Finding) fill() {
	if f.Evidence == nil {
		f.Evidence = []string{}
	}
	if f.CounterEvidence == nil {
		f.CounterEvidence = []string{}
	}
	f.ShareP99 = min(max(f.ShareP99, 0), 1)
	f.Confidence = min(max(f.Confidence, 0), 1)
}
