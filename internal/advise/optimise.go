package advise

import (
	"fmt"
	"strings"
)

var optimiseEntry = entry{
	kind: KindOptimise, step: StepTune, answers: []string{"LP106"}, cure: optimise,
	needs: []string{"a CPU profile of the service while it is slow"},
	watch: []string{"CPU for each call", "p99 of the service", "the same profile afterwards"},
}

// optimise cures a service that computes for too long. What halving its own time would bring is told, as a goal.
func optimise(s *situation) (Action, string) {
	t, d := targetOf(s.finding), s.finding.Detail
	p := s.corpus.faster(t, 2, 0)
	if len(p.spans) < minCalls {
		return Action{}, ""
	}
	a := Action{
		Kind: KindOptimise, Effects: s.forecast(p),
		Summary: fmt.Sprintf("make %s use less CPU; the forecast is for half of its own time", t),
		Benefit: strings.Join(p.notes, "; "),
		Cost:    "work on the code, with a profile in hand",
		Risk:    "half is a goal and no promise: the profile says how much the functions at its top take",
	}
	if len(d.Functions) > 0 {
		a.Text = "at the top of the profile:\n  " + strings.Join(d.Functions[:min(len(d.Functions), 10)], "\n  ")
		a.Summary = fmt.Sprintf("make %s use less CPU, %s first; the forecast is for half of its own time", t, d.Functions[0])
	}
	return a, ""
}
