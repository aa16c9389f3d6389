package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Phase is where a rollout stands. The last four are final.
type Phase string

// The phases.
const (
	Pending         Phase = "pending"      // asked for; the candidate gets no traffic yet
	Warmup          Phase = "warmup"       // on the first step, not judged yet
	Step            Phase = "step"         // judged
	Promoted        Phase = "promoted"     // the candidate is the policy now
	RolledBack      Phase = "rolled_back"  // the candidate was worse; the old policy stays
	Aborted         Phase = "aborted"      // ended by a person, by the end of the program or by a Target that errs; the old policy stays
	InconclusiveEnd Phase = "inconclusive" // could not be judged; the old policy stays
)

const (
	leastStepSlices  = 3           // judged before a step is left
	mostBlindSlices  = 6           // in a row without an answer from the Target
	mostTries        = 60          // to drop a candidate
	minReferenceSpan = time.Second // shorter warm-ups say nothing of the rate
)

// Final reports whether the rollout has ended.
func (p Phase) Final() bool {
	return p == Promoted || p == RolledBack || p == Aborted || p == InconclusiveEnd
}

// sample is one look at the cohorts: cumulative since the candidate was staged.
type sample struct {
	baseline, candidate stats.Tally
	err                 error // the Target could not answer
}

func (s sample) since(o sample) sample {
	return sample{baseline: s.baseline.Sub(o.baseline), candidate: s.candidate.Sub(o.candidate)}
}

// command is what the machine wants done to the Target.
type command struct {
	do     order
	weight float64
}

type order string

const (
	stage   order = "stage"
	weigh   order = "weigh"
	promote order = "promote"
	discard order = "discard"
)

// state is a rollout between two slices. It is a value: step and its siblings
// return a new one and leave the old as it was.
type state struct {
	phase    Phase
	at       int // index of Spec.Steps
	weight   float64
	began    time.Time
	judge    Judge
	warm     sample // when the warm-up ended
	judged   sample // when the last judged slice ended
	last     sample // the newest
	entered  sample // when the step began
	slices   int    // judged in this step
	referred uint64 // calls of the baseline that the judge's thresholds stand on
	blind    int    // looks in a row that failed
	plan     string
	// ending is the phase that follows once the Target has carried out the last command; "" = not ending.
	ending Phase
	tries  int // of that command
	reason string
	notes  []string // what happened in this transition, for the journal
}

// pending is a rollout that was asked for.
func pending(spec Spec) state {
	return state{phase: Pending, judge: NewJudge(spec.Target, spec.AttemptsFactor)}
}

// begin starts a pending rollout.
func begin(spec Spec, st state, now time.Time) (state, []command) {
	st.phase, st.began, st.weight = Warmup, now, spec.Steps[0]
	st = st.note("candidate staged; it gets %s of the calls and warms up for %s", percent(st.weight), spec.Warmup)
	return st, []command{{do: stage}, {do: weigh, weight: st.weight}}
}

// step takes one look at the cohorts.
func step(spec Spec, st state, now time.Time, s sample) (state, []command) {
	switch {
	case st.phase == Pending || st.phase.Final():
		return st, nil
	case st.ending != "":
		return st, []command{{do: discard}}
	}
	overdue := now.Sub(st.began) >= spec.MaxDuration
	if s.err != nil {
		return missed(spec, st, s.err, overdue)
	}
	st.blind, st.last = 0, s
	if st.phase == Warmup {
		return warmUp(spec, st, now, overdue)
	}
	slice := s.since(st.judged)
	if st.judge.Add(slice.baseline, slice.candidate) {
		st.judged = s
		st.slices++
		st = st.refer()
	}
	return decide(spec, st, overdue)
}

// missed is a look that the Target did not answer. One is nothing, several in
// a row leave nobody watching the candidate.
func missed(spec Spec, st state, err error, overdue bool) (state, []command) {
	st.blind++
	if st.blind == 1 {
		st = st.note("no figures from the cohorts: %v", err)
	}
	if st.blind >= mostBlindSlices {
		return end(st, Aborted, fmt.Sprintf("no figures from the cohorts in %d slices: %v", st.blind, err))
	}
	if overdue {
		return expire(spec, st)
	}
	return st, nil
}

func warmUp(spec Spec, st state, now time.Time, overdue bool) (state, []command) {
	elapsed := now.Sub(st.began)
	switch {
	case overdue:
		return expire(spec, st)
	case elapsed < spec.Warmup:
		return st, nil
	}
	if st = st.refer(); st.referred == 0 {
		return st, nil
	}
	rate := float64(st.last.baseline.Calls) / max(elapsed, minReferenceSpan).Seconds()
	widest := spec.Steps[len(spec.Steps)-1]
	st.plan = Plan(rate*widest/spec.Steps[0], spec.MaxDuration-elapsed)
	st.phase = Step
	st.warm, st.judged, st.entered = st.last, st.last, st.last
	st = st.note("warmed up after %s: %s", elapsed.Round(time.Millisecond), st.plan)
	return st, nil
}

// refer fixes the thresholds anew each time that the baseline's calls have doubled: a p99 of the first hundred calls
// may lie where hardly any call of thousands does, and nothing could be told from those.
func (st state) refer() state {
	if calls := st.last.baseline.Latency.Count(); calls >= 2*st.referred && st.judge.Freeze(st.last.baseline.Latency) {
		st.referred = calls
	}
	return st
}

// decide ends the rollout, moves it to the next step, or lets it go on.
func decide(spec Spec, st state, overdue bool) (state, []command) {
	verdict := st.judge.Verdict()
	reached := verdict == Improved || verdict == NoWorse && spec.Goal == GoalNoWorse
	settled := st.slices >= leastStepSlices && enoughCalls(st.last.since(st.entered))
	lastStep := st.at == len(spec.Steps)-1
	switch {
	case verdict == Worse:
		return end(st, RolledBack, st.sentence())
	case verdict == Invalid:
		return end(st, InconclusiveEnd, st.sentence())
	case lastStep && reached && settled:
		return end(st, Promoted, st.sentence())
	case overdue:
		return expire(spec, st)
	case !lastStep && settled && !st.judge.leansWorse():
		return climb(spec, st)
	}
	return st, nil
}

func enoughCalls(s sample) bool {
	return s.baseline.Calls >= minCalls && s.candidate.Calls >= minCalls
}

func climb(spec Spec, st state) (state, []command) {
	st.at++
	st.slices = 0
	st.weight = spec.Steps[st.at]
	st.entered = st.last
	st = st.note("step %d of %d: the candidate gets %s of the calls; %s", st.at+1, len(spec.Steps), percent(st.weight), st.sentence())
	return st, []command{{do: weigh, weight: st.weight}}
}

// expire is the end of MaxDuration.
func expire(spec Spec, st state) (state, []command) {
	why := fmt.Sprintf("not decided in %s. %s", spec.MaxDuration, st.sentence())
	if spec.OnInconclusive == Promote && st.judge.enough() && st.blind == 0 {
		return end(st, Promoted, why+" Promoted all the same, as asked.")
	}
	return end(st, InconclusiveEnd, why)
}

// end asks for the last command. The phase changes once it is carried out.
func end(st state, phase Phase, reason string) (state, []command) {
	st.ending, st.reason = phase, reason
	if phase == Promoted {
		return st, []command{{do: promote}}
	}
	return st, []command{{do: discard}}
}

// abort drops the candidate for a reason of its own.
func abort(st state, reason string) (state, []command) {
	switch {
	case st.phase == Pending: // nothing was staged
		st.phase, st.reason = Aborted, reason
		return st.note("aborted: %s", reason), nil
	case st.ending != "":
		return st, []command{{do: discard}}
	}
	return end(st, Aborted, reason)
}

// done is a command that the Target carried out.
func done(st state, c command) state {
	if c.do != promote && c.do != discard {
		return st
	}
	st.phase, st.ending, st.weight = st.ending, "", 0
	if st.tries > 0 {
		return st.note("%s, after %d refusals: %s", st.phase, st.tries, st.reason)
	}
	return st.note("%s: %s", st.phase, st.reason)
}

// failed is a command that the Target refused. Whatever it was, the old policy stays; dropping the candidate is tried
// again at every slice, with its share of the calls at 0 meanwhile if the Target can do that much. After a good many
// refusals the Target is taken to have no candidate any more; if it has, it will refuse the next one.
func failed(st state, c command, err error) (state, []command) {
	switch {
	case c.do == stage: // so there is nothing to drop
		st.phase, st.weight = Aborted, 0
		st.reason = fmt.Sprintf("the candidate could not be staged: %v", err)
		return st.note("%s: %s", st.phase, st.reason), nil
	case c.do == promote:
		return end(st, Aborted, fmt.Sprintf("the candidate could not be promoted: %v", err))
	case c.do == weigh && st.ending != "":
		return st, nil
	case c.do == weigh:
		return end(st, Aborted, fmt.Sprintf("its share of the calls could not be set to %s: %v", percent(c.weight), err))
	}
	st.tries++
	if st.tries == mostTries {
		st.reason = fmt.Sprintf("gave up after %d refusals to drop the candidate (%v), which was to be dropped because: %s", st.tries, err, st.reason)
		st.phase, st.ending = Aborted, ""
		return st.note("%s: %s", st.phase, st.reason), nil
	}
	if st.tries == 1 {
		st = st.note("the candidate could not be dropped, trying again each slice: %v", err)
		return st, []command{{do: weigh, weight: 0}}
	}
	return st, nil
}

func (st state) sentence() string {
	seen := st.last.since(st.warm)
	return st.judge.Judgement(seen.baseline.Latency, seen.candidate.Latency).Sentence
}

// note adds a line for the journal. It never writes into a slice that another state holds.
func (st state) note(format string, args ...any) state {
	st.notes = append(slices.Clip(st.notes), fmt.Sprintf(format, args...))
	return st
}

func percent(ratio float64) string { return fmt.Sprintf("%.3g %%", 100*ratio) }
