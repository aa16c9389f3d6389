package advise

import (
	"fmt"
	"slices"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/retry"
)

var retriesEntry = entry{
	kind: KindRetries, step: StepTune, answers: []string{"LP112"}, cure: fewerRetries,
	needs: []string{"one place retries: not the client, the gateway and the service each"},
	watch: []string{"attempts for each call: below 1.2", "share of calls that fail in the end", "longpole_retries_total over longpole_calls_total"},
}

// series are the attempts at one call, in order, all but the last of which failed.
func (c *corpus) series(all []ref) (lists map[int][][]int, spans []ref, attempts, calls int) {
	lists = make(map[int][][]int)
	for n, list := range byTrace(all) {
		line := c.traces[n]
		for _, list := range siblings(line, list) {
			one := list[:0:0]
			for _, i := range list {
				one = append(one, i)
				attempts++
				if !line.failed(i) {
					calls++
					lists[n] = append(lists[n], one)
					one = nil
				}
			}
			if len(one) > 0 {
				calls++
				lists[n] = append(lists[n], one)
			}
		}
		for _, one := range lists[n] {
			for _, i := range one {
				spans = append(spans, ref{n, i})
			}
		}
	}
	return lists, spans, attempts, calls
}

// failed reports whether the call of span i failed, on either side.
func (t *timeline) failed(i int) bool { return t.spans[i].Failed || t.spans[t.servedBy(i)].Failed }

// siblings sorts spans of one trace into those of one parent and kind of call, each list in the order they began.
func siblings(t *timeline, spans []int) [][]int {
	type place struct {
		parent int
		kind   string
	}
	at := make(map[place]int)
	var lists [][]int
	for _, i := range inOrder(t, spans) {
		key := place{t.parent[i], t.calledAs(i)}
		k, ok := at[key]
		if !ok {
			k = len(lists)
			at[key] = k
			lists = append(lists, nil)
		}
		lists[k] = append(lists[k], i)
	}
	return lists
}

// inOrder is spans by when they began.
func inOrder(t *timeline, spans []int) []int {
	list := slices.Clone(spans)
	slices.SortFunc(list, func(a, b int) int {
		if t.spans[a].Start != t.spans[b].Start {
			if t.spans[a].Start < t.spans[b].Start {
				return -1
			}
			return 1
		}
		return a - b
	})
	return list
}

// attempted is the plan in which one of the calls is tried at most so many times. lost is the share of the calls that
// then fail though they did not before.
func (c *corpus) attempted(all []ref, most int) (p plan, lost float64) {
	lists, spans, attempts, calls := c.series(all)
	gone, failed := 0, 0
	for n, series := range lists {
		for _, one := range series {
			gone += max(0, len(one)-most)
			if len(one) > most && !c.traces[n].failed(one[len(one)-1]) {
				failed++
			}
		}
	}
	p = plan{spans: spans, doubt: plainDoubt, extra: -share(float64(gone), float64(max(1, attempts))), apply: func(_, n int, e *edit) {
		for _, one := range lists[n] {
			for _, i := range one[min(most, len(one)):] {
				e.set(i, 0)
			}
		}
	}}
	lost = share(float64(failed), float64(calls))
	p.notes = []string{fmt.Sprintf("%.2f%% of the calls succeeded only after %d attempts and would fail", 100*lost, most)}
	return p, lost
}

// fewerRetries cures attempts that make an overload worse: two in all, on a budget.
func fewerRetries(s *situation) (Action, string) {
	const (
		most         = 2
		manyAttempts = 0.1 // of all, from where to be rid of them is worth it even if no answer comes sooner
	)
	all := s.calls()
	p, lost := s.corpus.attempted(all, most)
	route := s.corpus.routeOf(all)
	a := Action{
		Kind: KindRetries, Effects: s.forecast(p), ExtraLoad: p.extra,
		Summary: fmt.Sprintf("try a call of %s %d times at most, with a retry budget of 10%% and growing pauses with jitter", s.callee(route), most),
		Benefit: fmt.Sprintf("%.0f%% fewer attempts", -100*p.extra),
		Cost:    fmt.Sprintf("%.2f%% of the calls would fail that now succeed in the end", 100*lost),
		Risk:    "the forecast leaves out that a callee with less load fails less: it is on the safe side",
		plain:   -p.extra >= manyAttempts, // it is for the callee, not for the time of the route
	}
	how := func(c longpole.Config) longpole.Config {
		part := retry.Config{}
		if c.Retry != nil {
			part = *c.Retry
		}
		part.MaxAttempts, part.BudgetRatio = most, 0.1
		c.Retry = &part
		return c
	}
	if change, ok := s.edit(route, how); ok {
		a.Change = change
	} else {
		a.Snippets = snippets(s.callee(""), longpole.Config{}, how(longpole.Config{}))
	}
	return a, ""
}
