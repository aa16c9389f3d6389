package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/stats"
)

// Phase is where a rollout stands. The last four are final.
type Phase string

// The phases.
const (
	Pending         Phase = "pending"      // asked for; the candidate gets no traffic yet
	Warmup          Phase = "warmup"       // on the first step, not judged yet
	Step            Phase = "step"         // judged
	Paused          Phase = "paused"       // by a person: no calls for the candidate until it is resumed
	Promoted        Phase = "promoted"     // the candidate is the policy now
	RolledBack      Phase = "rolled_back"  // the candidate was worse; the old policy stays
	Aborted         Phase = "aborted"      // ended by a person, by the end of the program or by a Target that errs; the old policy stays
	InconclusiveEnd Phase = "inconclusive" // could not be judged; the old policy stays
)

const (
	leastStepSlices  = 3           // judged before a step is left
	leastStepCalls   = 100         // of each cohort, likewise
	mostBlindSlices  = 6           // in a row without an answer from the Target
	mostTries        = 60          // to drop a candidate
	minReferenceSpan = time.Second // shorter warm-ups say nothing of the rate
	glance           = time.Second // between two looks of the judge's fast tier
	looksPerTurn     = 8           // of a switchback, at least
)

// Final reports whether the rollout has ended.
func (p Phase) Final() bool {
	return p == Promoted || p == RolledBack || p == Aborted || p == InconclusiveEnd
}

// sample is one look at the cohorts: cumulative since the candidate was staged.
type sample struct {
	baseline, candidate stats.Tally
	own                 [2]stats.Tally // of both on the change's route, when another one is observed
	err                 error          // the Target could not answer
	gate                string         // why nothing may get more calls now; "" = it may
}

func (s sample) since(o sample) sample {
	return sample{baseline: s.baseline.Sub(o.baseline), candidate: s.candidate.Sub(o.candidate)}
}

// command is what the machine wants done to the Target.
type command struct {
	do     order
	weight float64
	turn   judge.Turn
}

type order string

const (
	stage   order = "stage"
	weigh   order = "weigh"
	turn    order = "turn"
	promote order = "promote"
	discard order = "discard"
)

// state is a rollout between two slices. It is a value: step and its siblings
// return a new one and leave the old as it was.
type state struct {
	phase   Phase
	at      int // index of Spec.Steps
	weight  float64
	began   time.Time
	due     time.Time // when the slice ends
	judge   judge.Judge
	warm    sample // when the warm-up ended
	judged  sample // when the last slice ended
	last    sample // the newest
	entered sample // when the step began
	slices  int    // judged in this step
	blind   int    // slices in a row that failed
	paused  bool   // both cohorts suffer
	gate    string // why nothing may get more calls now; "" = it may
	plan    string
	trust   judge.CalibrationStatus // how often the judge was wrong on this route when it began

	halted  time.Time // by a person; zero = not
	rebase  bool      // what the cohorts did until the next look is not judged
	back    judge.Switchback
	blocks  judge.Blocks
	current judge.Turn
	// ending is the phase that follows once the Target has carried out the last command; "" = not ending.
	ending Phase
	tries  int // of that command
	reason string
	notes  []string // what happened in this transition, for the journal
}

// pending is a rollout that was asked for.
func pending(spec Spec) state {
	c := judge.Config{Target: spec.Target, AttemptsFactor: spec.AttemptsFactor, Blocks: spec.Switchback > 0}
	c.CostFactor, c.Shed = spec.costFactor(), spec.shedJudged()
	return state{phase: Pending, judge: judge.New(c)}
}

// begin starts a pending rollout, which is judged as carefully as the route's calibration asks for.
func begin(spec Spec, st state, now time.Time, trust judge.CalibrationStatus) (state, []command) {
	st.phase, st.began, st.due = Warmup, now, now.Add(spec.Slice)
	st = st.heed(spec, trust)
	if !st.halted.IsZero() {
		st.halted = now
		return st.note("candidate staged; it is paused as it was before"), []command{{do: stage}, {do: weigh}}
	}
	if spec.Switchback > 0 {
		st.current = judge.Turn{Judged: true}
		return st.note("candidate staged; the baseline warms up for %s%s", spec.Warmup, priced(spec)), []command{{do: stage}, {do: turn, turn: st.current}}
	}
	st.weight = spec.Steps[0]
	st = st.note("candidate staged; it gets %s of the calls and warms up for %s%s", percent(st.weight), spec.Warmup, priced(spec))
	return st, []command{{do: stage}, {do: weigh, weight: st.weight}}
}

// priced says what the candidate may cost, where that was stated.
func priced(spec Spec) string {
	if spec.Shed == 0 {
		return ""
	}
	return fmt.Sprintf("; it may refuse %s of the calls beyond what the baseline refuses", percent(spec.Shed))
}

// heed takes in how often the judge was wrong on the route. The pairs of a switchback are longer than any slice.
func (st state) heed(spec Spec, trust judge.CalibrationStatus) state {
	st.trust = trust
	if spec.Switchback > 0 {
		trust.Join = 1
	}
	st.judge.Heed(trust, spec.Slice)
	switch alarms := fmt.Sprintf("the judge called %s of the last %d comparisons of this policy with itself worse", percent(trust.FalseAlarmRatio), trust.Runs); {
	case trust.Noisy:
		return st.note("%s, more than it promises, with slices of a minute too: nothing will be promoted on its evidence until that is over", alarms)
	case trust.Join > 1 && spec.Switchback == 0:
		return st.note("slices are joined to %d s, because equal halves of the calls differed in shorter ones; since then %s", 10*trust.Join, alarms)
	}
	return st
}

// tick is the time between two looks at the cohorts. Turns are begun and ended by looks, so that short ones take several.
func tick(spec Spec) time.Duration {
	if spec.Switchback > 0 {
		return min(spec.Slice, glance, spec.Switchback/looksPerTurn)
	}
	return min(spec.Slice, glance)
}

// step takes one look at the cohorts: a glance by the judge's fast tier or, when a slice is over, all of it.
func step(spec Spec, st state, now time.Time, s sample) (state, []command) {
	over := now.Add(tick(spec) / 2).After(st.due) // a look that comes a little early is the slice's last
	switch {
	case st.phase == Pending || st.phase.Final() || !over && (st.ending != "" || s.err != nil && spec.Switchback == 0):
		return st, nil
	case !st.halted.IsZero() && st.ending == "":
		return st, nil
	case over:
		st.due = now.Add(spec.Slice)
	}
	if st.ending != "" {
		return st, []command{{do: discard}}
	}
	overdue := now.Sub(st.began) >= spec.MaxDuration
	if s.err != nil {
		return missed(spec, st, s.err, overdue)
	}
	st = st.gated(s.gate)
	if st.rebase {
		st.rebase, st.last, st.judged, st.entered = false, s, s, s
		return st, nil
	}
	if spec.Switchback > 0 && st.phase == Step {
		return takeTurns(spec, st, now, s, overdue)
	}
	second := s.since(st.last)
	st.judge.Watch(second.baseline, second.candidate)
	st.blind, st.last = 0, s
	switch {
	case st.judge.Verdict() == Worse:
		return end(st, RolledBack, st.sentence())
	case !over:
		return st, nil
	case st.phase == Warmup:
		return warmUp(spec, st, now, overdue)
	}
	slice := s.since(st.judged)
	if st.judge.Add(slice.baseline, slice.candidate) {
		st.slices++
		st.judge.Freeze(s.baseline)
	}
	st.judged = s
	return decide(spec, st, overdue)
}

// missed is a look that the Target did not answer. One is nothing, several in
// a row leave nobody watching the candidate. In a switchback that may have all calls, and until the next look.
func missed(spec Spec, st state, err error, overdue bool) (state, []command) {
	st.blind++
	if st.blind == 1 {
		st = st.note("no figures from the cohorts: %v", err)
	}
	if spec.Switchback > 0 {
		return end(st, Aborted, fmt.Sprintf("no figures from the cohorts, of which one at a time has all calls: %v", err))
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
	if !st.judge.Freeze(st.last.baseline) {
		return st, nil
	}
	rate := float64(st.last.baseline.Calls) / max(elapsed, minReferenceSpan).Seconds()
	if spec.Switchback == 0 {
		rate /= spec.Steps[0] // of all calls
	}
	st.plan = spec.Plan(rate, spec.MaxDuration-elapsed, st.trust)
	st.phase = Step
	st.warm, st.judged, st.entered = st.last, st.last, st.last
	st = st.note("warmed up after %s: %s", elapsed.Round(time.Millisecond), st.plan)
	if spec.Switchback > 0 {
		st.back = judge.Switchback{Seed: spec.Seed, Start: now, Block: spec.Switchback, Washout: spec.Washout}
		return takeTurns(spec, st, now, st.last, overdue)
	}
	return st, nil
}

// decide ends the rollout, moves it to the next step, or lets it go on.
func decide(spec Spec, st state, overdue bool) (state, []command) {
	verdict := st.judge.Verdict()
	reached := verdict == Improved || verdict == NoWorse && spec.Goal == GoalNoWorse
	settled := st.slices >= spec.evidence()*leastStepSlices && enoughCalls(spec, st.last.since(st.entered))
	lastStep := st.at == len(spec.Steps)-1
	if st.paused != (verdict == Environment) {
		st.paused = !st.paused
		st = st.note("%s", st.sentence())
	}
	switch {
	case verdict == Worse:
		return end(st, RolledBack, st.sentence())
	case verdict == Invalid:
		return end(st, InconclusiveEnd, st.sentence())
	case lastStep && reached && settled && st.gate == "" && !st.judge.LeansWorse():
		return end(st, Promoted, st.sentence())
	case overdue:
		return expire(spec, st)
	case !lastStep && settled && !st.paused && st.gate == "" && !st.judge.LeansWorse() && st.bearable(spec):
		return climb(spec, st)
	}
	return st, nil
}

// bearable reports whether the next step may be taken: what is not known yet of the candidate, times the calls that it
// would get in addition, is a share of the calls that the owner is ready to risk. So the ramp goes by evidence: a busy
// route climbs fast, a quiet one waits until it knows more.
func (st state) bearable(spec Spec) bool {
	seen := st.last.since(st.warm)
	worst := 0.0
	for _, m := range st.judge.Judgement(seen.baseline, seen.candidate).Metrics {
		if m.Downstream == "" && (m.Metric == "errors" || m.Metric == "timeouts" || m.Metric == "p99") {
			worst = max(worst, m.High)
		}
	}
	return worst*(spec.Steps[st.at+1]-spec.Steps[st.at]) <= spec.Risk
}

// gated takes note of why nothing may get more calls, or that it may again.
func (st state) gated(gate string) state {
	if (gate == "") == (st.gate == "") {
		st.gate = gate
		return st
	}
	st.gate = gate
	if gate != "" {
		return st.note("held where it is: %s", gate)
	}
	return st.note("goes on: nothing holds it any more")
}

// takeTurns is a look at a switchback: it gives the calls to whose turn it is, and judges pairs of turns.
func takeTurns(spec Spec, st state, now time.Time, s sample, overdue bool) (state, []command) {
	var commands []command
	st.blind, st.last = 0, s
	base, cand, ok := st.blocks.Look(st.back, now, s.baseline, s.candidate)
	if t := st.back.At(now); t.Candidate != st.current.Candidate || t.Judged != st.current.Judged {
		commands = append(commands, command{do: turn, turn: t})
		st.current = t
	}
	st.weight = 0
	if st.current.Candidate {
		st.weight = 1
	}
	if ok && st.judge.Add(base, cand) {
		st.slices++
		st.judge.Freeze(s.baseline)
	}
	verdict := st.judge.Verdict()
	switch {
	case verdict == Worse:
		return end(st, RolledBack, st.sentence())
	case st.blown(spec):
		return end(st, RolledBack, "the candidate failed or refused more than a tenth of the calls of its turns, far more than the baseline"+beyondPrice(spec))
	case st.overpriced(spec):
		return end(st, RolledBack, fmt.Sprintf("on route %q the candidate failed or refused %s of the calls of its turns and the baseline %s, more than its price of %s apart",
			spec.Change.Route, percent(lost(st.last.own[1])), percent(lost(st.last.own[0])), percent(spec.Shed)))
	case verdict == Invalid:
		return end(st, InconclusiveEnd, st.sentence())
	case st.slices >= spec.evidence()*leastStepSlices && st.gate == "" && (verdict == Improved || verdict == NoWorse && spec.Goal == GoalNoWorse):
		return end(st, Promoted, st.sentence())
	case overdue:
		return expire(spec, st)
	}
	return st, commands
}

// blown is the fuse of a switchback: no test, but what nobody would watch for a whole pair of turns while all calls are on the
// candidate.
func (st state) blown(spec Spec) bool {
	seen := st.last.since(st.warm)
	bad := func(t stats.Tally, price float64) float64 {
		n := float64(max(t.Calls, 1))
		return (float64(t.Failed) + max(0, float64(t.Shed)-price*n)) / n
	}
	return seen.candidate.Calls >= leastStepCalls && bad(seen.candidate, spec.shedJudged()) > 0.1+5*bad(st.last.baseline, 0)
}

// overSlack is the share of the calls beyond the price that a candidate may fail or refuse on its own route while another one is
// observed: the judge does not see these, and a fuse must not go by chance.
const overSlack = 0.05

// overpriced is the fuse on the change's own route while another one is observed.
func (st state) overpriced(spec Spec) bool {
	own := st.last.own
	return spec.Observe != "" && own[1].Calls >= leastStepCalls && lost(own[1]) > lost(own[0])+spec.Shed+overSlack
}

// lost is the share of the calls that failed or were refused.
func lost(t stats.Tally) float64 {
	return (float64(t.Failed) + float64(t.Shed)) / float64(max(t.Calls, 1))
}

// beyondPrice names the price that was stated for calls that are refused.
func beyondPrice(spec Spec) string {
	if spec.shedJudged() == 0 {
		return ""
	}
	return fmt.Sprintf(" and beyond the %s that it may refuse", percent(spec.Shed))
}

// pause takes the calls from the candidate until resume.
func pause(st state, now time.Time, reason string) (state, []command) {
	st.halted = now
	st.weight = 0
	return st.note("paused: %s", reason), []command{{do: weigh}}
}

// resume gives them back. The time in between does not count, and what the cohorts did then is not judged.
func resume(spec Spec, st state, now time.Time, reason string) (state, []command) {
	if st.phase == Pending { // it was paused when the process before ended
		st.halted = time.Time{}
		return st.note("resumed: %s", reason), nil
	}
	gone := now.Sub(st.halted)
	st.began, st.due, st.halted, st.rebase = st.began.Add(gone), now.Add(spec.Slice), time.Time{}, true
	st = st.note("resumed after %s: %s", gone.Round(time.Second), reason)
	if spec.Switchback > 0 {
		st.back.Start, st.blocks = now, judge.Blocks{}
		if st.phase == Warmup {
			st.current = judge.Turn{Judged: true}
		} else {
			st.current = judge.Turn{} // the washout after nothing
		}
		return st, []command{{do: turn, turn: st.current}}
	}
	st.weight = spec.Steps[st.at]
	return st, []command{{do: weigh, weight: st.weight}}
}

func enoughCalls(spec Spec, s sample) bool {
	return min(s.baseline.Calls, s.candidate.Calls) >= uint64(spec.evidence())*leastStepCalls
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
	if spec.OnInconclusive == Promote && st.judge.Enough() && st.blind == 0 {
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
	case c.do == turn:
		return end(st, Aborted, fmt.Sprintf("the next turn could not begin: %v", err))
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

// surrender ends a rollout whose candidate could not be dropped at the end of the program.
func surrender(st state) state {
	if st.ending == "" || st.phase.Final() {
		return st
	}
	st.phase, st.ending, st.weight = st.ending, "", 0
	return st.note("%s; the candidate could not be dropped and goes with the program: %s", st.phase, st.reason)
}

func (st state) sentence() string {
	seen := st.last.since(st.warm)
	return st.judge.Judgement(seen.baseline, seen.candidate).Sentence
}

// note adds a line for the journal. It never writes into a slice that another state holds.
func (st state) note(format string, args ...any) state {
	st.notes = append(slices.Clip(st.notes), fmt.Sprintf(format, args...))
	return st
}

func percent(ratio float64) string { return fmt.Sprintf("%.3g %%", 100*ratio) }
