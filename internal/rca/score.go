package rca

import (
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
)

// Answer is what the comparison said about a case.
type Answer struct {
	Case
	Traces   int                // suspect ones
	Spans    int                // suspect ones
	Culprits []diagnose.Culprit // most likely first; empty = no difference was found
	Notes    []string
	Took     time.Duration // of the comparison alone, without reading; told by the caller
}

// Result is a scored answer.
type Result struct {
	Case
	Rank       int                `json:"rank"` // where the first culprit of the label stands, from 1; 0 = nowhere
	Top1       float64            `json:"top1"` // see [Tally]
	Top3       float64            `json:"top3"`
	Top5       float64            `json:"top5"`
	ClassSaid  string             `json:"class_said"`  // of the culprit at Rank; "" without one
	ClassRight *bool              `json:"class_right"` // nil = not judged: the label has no class, or the culprit is not among the first five
	Quiet      bool               `json:"quiet"`       // nothing was said to differ
	Culprits   []diagnose.Culprit `json:"culprits"`    // at most ten; never nil
	Notes      []string           `json:"notes"`
	Traces     int                `json:"traces"`
	Spans      int                `json:"spans"`
	TookMS     float64            `json:"took_ms"`
}

// Tally is the accuracy over the cases of a group that have a culprit.
//
// With one culprit, top-k is the share of cases in which it stands among the first k. With several it is the share of
// them that do, of the k or fewer that can, averaged over the cases.
type Tally struct {
	Group       string  `json:"group"`
	Cases       int     `json:"cases"` // with a culprit
	Top1        float64 `json:"top1"`  // 0..1, like the others; 0 without cases
	Top3        float64 `json:"top3"`
	Top5        float64 `json:"top5"`
	Innocent    int     `json:"innocent"`     // cases in which the first that was named is no culprit
	Silent      int     `json:"silent"`       // cases in which no difference was found
	ClassJudged int     `json:"class_judged"` // cases whose class is labelled, with a culprit among the first five
	ClassRight  int     `json:"class_right"`
	Healthy     int     `json:"healthy"` // cases without a culprit
	Quiet       int     `json:"quiet"`   // of those, in which nothing was said to differ
}

// ClassRatio is the share of right classes among those judged, 0..1; 0 when none was.
func (t Tally) ClassRatio() float64 { return ratio(t.ClassRight, t.ClassJudged) }

// QuietRatio is the share of healthy cases in which nothing was said to differ, 0..1; 0 without such cases.
func (t Tally) QuietRatio() float64 { return ratio(t.Quiet, t.Healthy) }

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Report is the score of a corpus.
type Report struct {
	Total   Tally    `json:"total"`
	Faults  []Tally  `json:"faults"`  // by fault type, sorted by name
	Systems []Tally  `json:"systems"` // by system, sorted by name
	Results []Result `json:"results"` // of every case, in the order of the labels
	TookMS  float64  `json:"took_ms"` // of all comparisons
}

// Misses are the results in which the first named is no culprit, or nobody is, or somebody is in a healthy case.
func (r Report) Misses() []Result {
	var missed []Result
	for _, x := range r.Results {
		if len(x.Services) == 0 && !x.Quiet || len(x.Services) > 0 && x.Rank != 1 {
			missed = append(missed, x)
		}
	}
	return missed
}

// Score compares answers with their labels.
func Score(answers []Answer) Report {
	r := Report{Total: Tally{Group: "all"}, Results: []Result{}}
	faults, systems := map[string]*Tally{}, map[string]*Tally{}
	for _, a := range answers {
		x := score(a)
		r.Results = append(r.Results, x)
		r.TookMS += x.TookMS
		r.Total.add(x)
		group(faults, a.Fault).add(x)
		group(systems, a.System).add(x)
	}
	r.Total.finish()
	r.Faults, r.Systems = sorted(faults), sorted(systems)
	return r
}

// maxCulprits is how many of those named a result keeps.
const maxCulprits = 10

func score(a Answer) Result {
	x := Result{
		Case: a.Case, Quiet: len(a.Culprits) == 0, Notes: append([]string{}, a.Notes...), Traces: a.Traces, Spans: a.Spans,
		Culprits: append([]diagnose.Culprit{}, a.Culprits[:min(maxCulprits, len(a.Culprits))]...),
		TookMS:   float64(a.Took) / float64(time.Millisecond),
	}
	for i, c := range a.Culprits {
		if slices.Contains(a.Services, c.Service) {
			x.Rank, x.ClassSaid = i+1, c.Class
			break
		}
	}
	x.Top1, x.Top3, x.Top5 = top(a, 1), top(a, 3), top(a, 5)
	if a.Class != "" && x.Rank > 0 && x.Rank <= 5 {
		right := x.ClassSaid == a.Class
		x.ClassRight = &right
	}
	return x
}

// top is the share of the culprits that stand among the first k, of those that can.
func top(a Answer, k int) float64 {
	found := 0
	for _, c := range a.Culprits[:min(k, len(a.Culprits))] {
		if slices.Contains(a.Services, c.Service) {
			found++
		}
	}
	return ratio(found, min(k, len(a.Services)))
}

// add counts a result; the top-k are sums until finish.
func (t *Tally) add(x Result) {
	if len(x.Services) == 0 {
		t.Healthy++
		if x.Quiet {
			t.Quiet++
		}
		return
	}
	t.Cases++
	t.Top1 += x.Top1
	t.Top3 += x.Top3
	t.Top5 += x.Top5
	switch {
	case x.Quiet:
		t.Silent++
	case x.Rank != 1:
		t.Innocent++
	}
	if x.ClassRight != nil {
		t.ClassJudged++
		if *x.ClassRight {
			t.ClassRight++
		}
	}
}

func (t *Tally) finish() {
	if t.Cases > 0 {
		n := float64(t.Cases)
		t.Top1, t.Top3, t.Top5 = t.Top1/n, t.Top3/n, t.Top5/n
	}
}

func group(all map[string]*Tally, name string) *Tally {
	if all[name] == nil {
		all[name] = &Tally{Group: name}
	}
	return all[name]
}

func sorted(all map[string]*Tally) []Tally {
	list := []Tally{}
	for _, t := range all {
		t.finish()
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b Tally) int { return strings.Compare(a.Group, b.Group) })
	return list
}
