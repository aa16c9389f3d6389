package rca_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/rca"
)

// said is the culprits of an answer, "service" or "service/class".
func said(names ...string) (list []diagnose.Culprit) {
	for _, n := range names {
		list = append(list, diagnose.Culprit{Service: n, Class: "cpu"})
	}
	return list
}

func TestScore(t *testing.T) {
	label := func(class string, services ...string) rca.Case {
		return rca.Case{Name: "x", System: "s", Fault: "f", Class: class, Services: services}
	}
	for _, c := range []struct {
		name           string
		label          rca.Case
		said           []diagnose.Culprit
		rank           int
		top            [3]float64
		judged, right  bool
		quiet, missing bool
	}{
		{"first", label("cpu", "a"), said("a", "b"), 1, [3]float64{1, 1, 1}, true, true, false, false},
		{"first, wrong class", label("network", "a"), said("a"), 1, [3]float64{1, 1, 1}, true, false, false, false},
		{"class not labelled", label("", "a"), said("a"), 1, [3]float64{1, 1, 1}, false, false, false, false},
		{"third", label("cpu", "a"), said("b", "c", "a"), 3, [3]float64{0, 1, 1}, true, true, false, true},
		{"fifth", label("cpu", "a"), said("b", "c", "d", "e", "a"), 5, [3]float64{0, 0, 1}, true, true, false, true},
		{"sixth", label("cpu", "a"), said("b", "c", "d", "e", "f", "a"), 6, [3]float64{0, 0, 0}, false, false, false, true},
		{"an innocent", label("cpu", "a"), said("b"), 0, [3]float64{0, 0, 0}, false, false, false, true},
		{"nobody", label("cpu", "a"), nil, 0, [3]float64{0, 0, 0}, false, false, true, true},
		{"two culprits, both first", label("cpu", "a", "b"), said("b", "a"), 1, [3]float64{1, 1, 1}, true, true, false, false},
		{"two culprits, one found", label("cpu", "a", "b"), said("b", "c", "d", "e"), 1, [3]float64{1, 0.5, 0.5}, true, true, false, false},
		{"healthy, quiet", label(""), nil, 0, [3]float64{0, 0, 0}, false, false, true, false},
		{"healthy, named", label(""), said("b"), 0, [3]float64{0, 0, 0}, false, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rca.Score([]rca.Answer{{Case: c.label, Culprits: c.said, Took: 1500 * time.Microsecond}})
			x := r.Results[0]
			if x.Rank != c.rank || [3]float64{x.Top1, x.Top3, x.Top5} != c.top || x.Quiet != c.quiet || x.TookMS != 1.5 {
				t.Errorf("%+v", x)
			}
			if (x.ClassRight != nil) != c.judged || c.judged && *x.ClassRight != c.right {
				t.Errorf("class right: %v", x.ClassRight)
			}
			if (len(r.Misses()) == 1) != c.missing {
				t.Errorf("misses: %v", r.Misses())
			}
		})
	}
}

func TestScoreGroupsByFaultAndSystem(t *testing.T) {
	answer := func(system, fault string, found bool, services ...string) rca.Answer {
		a := rca.Answer{Case: rca.Case{System: system, Fault: fault, Class: "cpu", Services: services}, Took: time.Millisecond}
		if found {
			a.Culprits = said("a")
		}
		return a
	}
	r := rca.Score([]rca.Answer{
		answer("shop", "cpu", true, "a"), answer("shop", "cpu", true, "b"), answer("bank", "cpu", true, "a"),
		answer("bank", "loss", false, "a"), answer("bank", "none", false), answer("bank", "none", true),
	})
	want := rca.Report{
		Total: rca.Tally{Group: "all", Cases: 4, Top1: 0.5, Top3: 0.5, Top5: 0.5, Innocent: 1, Silent: 1, ClassJudged: 2, ClassRight: 2, Healthy: 2, Quiet: 1},
		Faults: []rca.Tally{
			{Group: "cpu", Cases: 3, Top1: 2. / 3, Top3: 2. / 3, Top5: 2. / 3, Innocent: 1, ClassJudged: 2, ClassRight: 2},
			{Group: "loss", Cases: 1, Silent: 1},
			{Group: "none", Healthy: 2, Quiet: 1},
		},
		Systems: []rca.Tally{
			{Group: "bank", Cases: 2, Top1: 0.5, Top3: 0.5, Top5: 0.5, Silent: 1, ClassJudged: 1, ClassRight: 1, Healthy: 2, Quiet: 1},
			{Group: "shop", Cases: 2, Top1: 0.5, Top3: 0.5, Top5: 0.5, Innocent: 1, ClassJudged: 1, ClassRight: 1},
		},
		TookMS: 6,
	}
	r.Results = nil
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	if r.Total.ClassRatio() != 1 || r.Total.QuietRatio() != 0.5 || (rca.Tally{}).ClassRatio() != 0 {
		t.Errorf("class %v, quiet %v", r.Total.ClassRatio(), r.Total.QuietRatio())
	}
	if got := rca.Score(nil); got.Results == nil || got.Faults == nil || got.Total.Cases != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}
