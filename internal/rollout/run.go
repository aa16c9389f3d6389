package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drive looks at the cohorts once a second, or once a slice when that is shorter, until the rollout or ctx ends.
func (r *run) drive(ctx context.Context) {
	ticker := time.NewTicker(tick(r.spec))
	defer ticker.Stop()
	trust := r.c.Calibration(r.spec.Judged())
	_ = r.apply(func(st state) (state, []command) {
		if st.phase != Pending {
			return st, nil
		}
		return begin(r.spec, st, time.Now(), trust)
	})
	for {
		select {
		case <-r.ended:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.look()
		}
	}
}

func (r *run) look() {
	_ = r.apply(func(st state) (state, []command) {
		var s sample
		if st.ending == "" {
			s.baseline, s.candidate, s.err = r.target().Tallies(r.spec.Change.Route)
			if r.spec.Observe != "" && s.err == nil {
				s.own[0], s.own[1], s.err = r.c.o.Target.Tallies(r.spec.Change.Route)
			}
			s.gate = r.c.gate(r.spec.Change.Route)
		}
		return step(r.spec, st, time.Now(), s)
	})
}

// control is transit for a person: ErrEnded when there is nothing to control.
func (r *run) control(transition func(state) (state, []command)) error {
	alive := false
	err := r.transit(func(st state) (state, []command) {
		alive = true
		return transition(st)
	})
	if !alive {
		return fmt.Errorf("%w: %s", ErrEnded, r.id)
	}
	return err
}

// apply is transit, written down. A promotion is shown once the holdbacks of its route are right.
func (r *run) apply(transition func(state) (state, []command)) error {
	defer r.c.some()
	err := r.transit(transition)
	r.holdBackIfPromoted()
	return err
}

func (r *run) holdBackIfPromoted() {
	r.mu.Lock()
	promoted := r.st.phase == Promoted
	r.mu.Unlock()
	if promoted {
		r.c.holdBack(r.spec.Change.Route)
	}
}

// transit makes one transition and carries out its commands, and those that follow from their failure. It returns the
// first error of the Target. What the journal is to know waits for Controller.flush.
func (r *run) transit(transition func(state) (state, []command)) (first error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.phase.Final() {
		return nil
	}
	before := r.st.phase
	var commands []command
	r.st, commands = transition(r.st)
	for len(commands) > 0 {
		c := commands[0]
		commands = commands[1:]
		if err := r.carryOut(c); err != nil {
			r.c.o.Log.Warn("rollout command refused", "rollout", r.id, "route", r.spec.Change.Route, "command", string(c.do), "error", err)
			if first == nil {
				first = fmt.Errorf("rollout: %s: %w", c.do, err)
			}
			r.st, commands = failed(r.st, c, err)
			continue
		}
		r.st = done(r.st, c)
	}
	r.settle(before)
	return first
}

func (r *run) carryOut(c command) error {
	route, target := r.spec.Change.Route, r.target()
	switch c.do {
	case stage:
		return r.stage()
	case weigh:
		return target.Weight(route, c.weight)
	case turn:
		return target.Turn(route, c.turn.Candidate, c.turn.Judged)
	case promote:
		if r.spec.Version != "" {
			weights, err := target.Weights(route)
			if err != nil {
				return err
			}
			r.weights = weights
		}
		return target.Promote(route)
	default:
		return target.Discard(route)
	}
}

// stage stages the candidate. What it is to be compared with, and what a holdback and an undo would bring back, may have
// changed since it was asked for. Later changes drop the candidate by themselves.
func (r *run) stage() (err error) {
	route, target := r.spec.Change.Route, r.target()
	if err := r.c.yield(r.spec.routes()...); err != nil {
		return err
	}
	if r.spec.Version != "" {
		err = target.StageVersion(route, r.spec.Version)
	} else {
		err = target.Stage(route, r.spec.Change.To)
	}
	if err != nil {
		return err
	}
	if _, err = r.c.from(r.spec.Change); err != nil {
		err = errors.Join(err, target.Discard(route))
	}
	return err
}

// settle moves the notes of a transition from a phase to the journal and the log, and lets go of the figures once the rollout
// ended. It is shown as ended only when that is written down: what somebody has seen, a restart must know.
func (r *run) settle(before Phase) {
	for _, text := range r.st.notes {
		r.note(text)
		r.c.o.Log.Info("rollout", "rollout", r.id, "route", r.spec.Change.Route, "phase", string(r.st.phase), "text", text)
	}
	r.st.notes = nil
	if r.st.phase.Final() {
		r.over = time.Now()
		s := r.build()
		r.final, r.unsaved = &s, before
		r.c.ended(r, s)
		r.st = state{phase: r.st.phase}
		close(r.ended)
	}
}

// note adds a line to the journal.
func (r *run) note(text string) {
	e := Event{At: time.Now(), Phase: r.st.phase, Weight: r.st.weight, Text: text}
	if !r.st.halted.IsZero() && !e.Phase.Final() {
		e.Phase = Paused // which a restart keeps
	}
	r.remember(e)
	if r.written++; r.written <= mostWritten || e.Phase != r.told {
		r.told = e.Phase
		r.c.noted(r.id, e)
	}
}

func (r *run) isFinal() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.phase.Final()
}

func (r *run) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.final != nil {
		s := *r.final
		s.Journal = append([]Event(nil), s.Journal...)
		if r.unsaved != "" {
			s.Phase, s.Ending, s.Ended = r.unsaved, s.Phase, time.Time{}
		}
		return s
	}
	return r.build()
}

func (r *run) build() Status {
	st := &r.st
	var seen sample
	if st.phase != Pending && st.phase != Warmup {
		seen = st.last.since(st.warm)
	}
	s := Status{
		ID: r.id, Route: r.spec.Change.Route, Phase: st.phase, Steps: len(r.spec.Steps), Weight: st.weight,
		Goal: r.spec.Goal, Target: r.spec.Target, Reason: r.spec.Reason, Outcome: st.reason, Ending: st.ending,
		SliceMS: milliseconds(r.spec.Slice), WarmupMS: milliseconds(r.spec.Warmup), MaxDurationMS: milliseconds(r.spec.MaxDuration),
		Started: r.started, Ended: r.over, Plan: st.plan, Change: r.change, Version: r.spec.Version, Blocked: st.gate, Restarts: r.restarts, Weights: r.weights,
		Judgement: st.judge.Judgement(seen.baseline, seen.candidate),
		Measured:  QuantilesOf(seen.candidate.Latency), Baseline: QuantilesOf(seen.baseline.Latency),
		Journal: append([]Event(nil), r.journal...), Dropped: r.dropped,
	}
	s.Hash, s.Override, s.Weak, s.AttemptsFactor = r.hash, r.spec.Override, r.spec.Weak, r.spec.AttemptsFactor
	s.CostFactor, s.Shed, s.Observe = r.spec.costFactor(), r.spec.Shed, r.spec.Observe
	s.SwitchbackMS, s.WashoutMS = milliseconds(r.spec.Switchback), milliseconds(r.spec.Washout)
	if r.spec.Hypothesis != (Hypothesis{}) {
		h := r.spec.Hypothesis
		s.Hypothesis = &h
	}
	s.Holdback = r.spec.heldBack()
	if !st.began.IsZero() {
		s.Step = st.at + 1
	}
	if st.trust.Join > 0 {
		trust := st.trust
		s.Calibration = &trust
	}
	if !st.halted.IsZero() && !st.phase.Final() {
		s.Phase = Paused
	}
	if r.spec.Predicted != (Quantiles{}) {
		p := r.spec.Predicted
		s.Predicted = &p
	}
	return s
}
