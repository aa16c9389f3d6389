package diagnose

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

const (
	stormRatio = 0.15 // tries beyond the first by calls, from where retries are a load of their own; budgets allow 0.1
	stormCalls = 5    // calls that are tried again
)

// retried is the calls of one target by one operation, and how often each was tried.
type retried struct {
	to                  place
	who                 string  // is called, behind a gateway
	calls, tries, again float64 // weighted; again = calls tried more than once
	seen                int     // calls tried more than once, as they are
	most                int
	wasted              int64 // ns of the slow band from the first try to the start of the last
	lost                float64
	nested              int // chains within a try of another chain
}

// retryStorm finds LP112: calls that are tried again so often that the tries are a load of their own.
func retryStorm(v *view) []Finding {
	at := make(map[spot]map[place]*retried)
	for _, f := range v.look().families {
		if v.look().hurt[f.where] {
			v.countTries(at, f)
		}
	}
	return findingsBySpot(at, v.stormFinding)
}

// chains splits the calls of a family into tries of the same thing: a try follows one that failed, or says that it is no first one.
// Each call is compared with the latest ones only.
func chains(t *Tree, calls []attempt) (list [][]attempt) {
	for _, a := range calls {
		again := t.resent(int(a.span))
		found := false
		for k := len(list) - 1; k >= max(0, len(list)-nearby) && !found; k-- {
			last := list[k][len(list[k])-1]
			if found = (last.failed || again) && a.start >= last.end-(last.end-last.start)/10 && sameCall(t, last, a); found {
				list[k] = append(list[k], a)
			}
		}
		if !found {
			list = append(list, []attempt{a})
		}
	}
	return list
}

// resent reports whether a span says that it is no first try.
func (t *Tree) resent(i int) bool {
	if has, known := t.knows(i, markResent); known {
		return has
	}
	if list := t.all(i, kindResent); len(list) > 0 {
		n, _ := strconv.Atoi(t.Spans[i].At(int(list[0])).Value)
		return n >= 1
	}
	return false
}

func (v *view) countTries(at map[spot]map[place]*retried, f family) {
	s := &v.samples[f.sample]
	weight := s.stands()
	where := v.look().spots[f.where]
	for _, chain := range chains(s.tree, f.calls) {
		last := chain[len(chain)-1]
		to := v.target(answering(chain))
		if at[where] == nil {
			at[where] = make(map[place]*retried)
		}
		r := at[where][to]
		if r == nil {
			r = &retried{to: to, who: to.service}
			if a := answering(chain); a.served >= 0 {
				r.who = behind(s.tree, int(a.served))
			}
			at[where][to] = r
		}
		r.calls += weight
		r.tries += weight * float64(len(chain))
		if last.failed {
			r.lost += weight
		}
		if len(chain) == 1 {
			continue
		}
		r.again += weight
		r.seen++
		r.most = max(r.most, len(chain))
		if v.isSlow(int(f.sample)) && !s.tree.NonBlocking(int(last.span)) {
			r.wasted += last.start - chain[0].start
		}
		if v.retriedAbove(s.tree, int(f.parent)) {
			r.nested++
		}
	}
}

// answering is the try that tells best what was called.
func answering(chain []attempt) attempt {
	if i := slices.IndexFunc(chain, func(a attempt) bool { return a.served >= 0 }); i >= 0 {
		return chain[i]
	}
	return chain[len(chain)-1]
}

// retriedAbove reports whether span i works for a try that failed and has a sibling of its name.
func (v *view) retriedAbove(t *Tree, i int) bool {
	for up, p := 0, t.Parent[i]; p >= 0 && up < nearby; up, i, p = up+1, int(p), t.Parent[p] {
		if s := &t.Spans[i]; s.Kind == trace.Client || entry(t, i) {
			same := 0
			siblings := t.Children(int(p))
			for _, c := range siblings[:min(len(siblings), nearby)] {
				if t.Spans[c].Name == s.Name && (t.failed(int(c)) || t.resent(int(c))) {
					same++
				}
			}
			if same >= 2 || same == 1 && !t.failed(i) && !t.resent(i) {
				return true
			}
		}
	}
	return false
}

func (v *view) stormFinding(key spot, targets map[place]*retried) (Finding, bool) {
	var worst *retried
	for _, r := range targets {
		if r.seen < stormCalls || r.tries-r.calls < stormRatio*r.calls {
			continue
		}
		if worst == nil || r.tries-r.calls > worst.tries-worst.calls || r.tries-r.calls == worst.tries-worst.calls && byPlace(r.to, worst.to) < 0 {
			worst = r
		}
	}
	if worst == nil {
		return Finding{}, false
	}
	r := worst
	extra := (r.tries - r.calls) / r.calls
	f := Finding{
		Code: "LP112", Class: "retry_storm", Segment: r.to.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.75,
		ShareP99: v.share(r.wasted),
		Summary:  fmt.Sprintf("%s %s tries calls of %s %s again and again: %.2f tries a call", key.service, key.operation, r.who, r.to.operation, r.tries/r.calls),
		Evidence: []string{
			fmt.Sprintf("%s of the calls are tried more than once, the most %d times: %s more load for %s", percent(r.again/r.calls), r.most, percent(extra), r.who),
		},
		Detail: Detail{
			Callees: []string{r.who}, Attempts: (r.again + r.tries - r.calls) / r.again, Calls: r.tries / v.weight(),
			Failed: r.lost / r.calls, Saved: v.perSlow(r.wasted),
		},
	}
	f.harm = (r.tries - r.calls) / r.tries
	f.Detail.storm = r.tries >= stormLarge*r.calls || r.nested >= stormCalls && r.tries >= stormNested*r.calls
	if f.ShareP99 >= leastShare {
		f.Summary += "; failed tries and pauses take " + percent(f.ShareP99) + " of the slow traces"
	}
	if r.nested > 0 {
		f.Confidence += 0.1
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d of them lie within a try of another call: the tries of both multiply", r.nested))
	}
	if r.lost > 0.5*r.again {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s of the calls fail in the end: the tries did not help", percent(r.lost/r.calls)))
	}
	f.doubt(0, "the tries are a symptom, too: "+r.who+" fails, and why is another question")
	return f, true
}

// weight is how many traces the samples stand for.
func (v *view) weight() (sum float64) {
	for i := range v.samples {
		sum += v.samples[i].stands()
	}
	return max(sum, 1)
}
