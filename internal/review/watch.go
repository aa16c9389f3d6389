package review

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/stats"
)

// Verdict is what became of a promoted change.
type Verdict string

// The verdicts.
const (
	StillHelps Verdict = "STILL HELPS"
	Decayed    Verdict = "DECAYED"
	NoEffect   Verdict = "NO EFFECT"
	NowHarmful Verdict = "NOW HARMFUL"
	NotJudged  Verdict = "NOT JUDGED"  // too little evidence yet, or none: Standing.Sentence says why
	NoHoldback Verdict = "NO HOLDBACK" // nothing is held back, so that nobody can tell
)

// Promise is what a change was promoted for.
type Promise struct {
	ID       string // of the rollout
	Route    string
	Target   string  // one of judge.Metrics
	NoWorse  bool    // it was promoted for being no worse, not for an improvement
	Attempts float64 // attempts per call that it may make, over those of the policy before; 0 = the judge's default
	Cost     float64 // the same of cost per call
	Shed     float64 // share of the calls that it may refuse beyond what the policy before does
	Turns    bool    // it is held back in turns: what is added is of whole pairs, and how many calls each turn got says nothing
	Then     float64 // its effect on Target then: logarithm of after over before; below 0 = better
}

// Standing is what the holdback of a change shows.
type Standing struct {
	ID            string    `json:"id"`
	Route         string    `json:"route"`
	Verdict       Verdict   `json:"verdict"`
	Sentence      string    `json:"sentence"`
	Target        string    `json:"target"`
	Then          float64   `json:"then"` // effect when it was promoted: logarithm of after over before
	Now           float64   `json:"now"`  // effect in the window that the verdict stands on
	Promoted      float64   `json:"promoted"`
	HeldBack      float64   `json:"held_back"` // the target's value under the policy before, in Unit, as Promoted
	Unit          string    `json:"unit"`
	PromotedCalls uint64    `json:"promoted_calls"`
	HeldBackCalls uint64    `json:"held_back_calls"`
	Since         time.Time `json:"since"` // beginning of that window
	At            time.Time `json:"at"`    // when the verdict was last looked at
}

const (
	warmUp        = 30 * time.Second // caches of the two cohorts fill
	longestWindow = 7                // windows that may pass without a verdict before the evidence begins anew
	maxWatched    = 1000             // changes
	decayedBelow  = 0.5              // of the effect then
)

// Watch judges the holdbacks of promoted changes. A judgement begins anew with each window, so that an effect that faded is
// not hidden by how well it began; until a window has its verdict, that of the one before stands. Worse is said at once.
//
// Make one with NewWatch. Not for concurrent use; told the time.
type Watch struct {
	window time.Duration
	tracks map[string]*track
}

// track is one change.
type track struct {
	judge    judge.Judge
	began    time.Time
	base     [2]stats.Tally // at the beginning of the window; promoted, held back
	last     [2]stats.Tally
	warm     bool
	standing Standing
}

// NewWatch draws each standing from a window of evidence, longer while it is inconclusive.
func NewWatch(window time.Duration) *Watch {
	return &Watch{window: window, tracks: map[string]*track{}}
}

// Add is told what the two cohorts of a change did so far, every 10 s, and says where it stands. changed reports that the
// verdict is another one than before. A thousand changes are watched; of others nothing is said.
func (w *Watch) Add(now time.Time, p Promise, promoted, heldBack stats.Tally) (s Standing, changed bool) {
	t := w.tracks[p.ID]
	if t == nil {
		if len(w.tracks) == maxWatched {
			return Standing{ID: p.ID, Route: p.Route, Target: p.Target, Verdict: NotJudged, Sentence: "too many changes are watched", At: now}, false
		}
		t = &track{standing: Standing{Verdict: NotJudged}}
		w.tracks[p.ID] = t
	}
	before := t.standing.Verdict
	seen := [2]stats.Tally{promoted, heldBack}
	if t.began.IsZero() || promoted.Calls < t.last[0].Calls || heldBack.Calls < t.last[1].Calls {
		t.begin(now, p, seen)
	} else {
		t.look(now, p, seen, w.window)
	}
	return t.standing, t.standing.Verdict != before
}

func (t *track) begin(now time.Time, p Promise, seen [2]stats.Tally) {
	t.judge = judge.New(judge.Config{Target: p.Target, AttemptsFactor: p.Attempts, CostFactor: p.Cost, Shed: p.Shed, Blocks: p.Turns})
	t.began, t.base, t.last, t.warm = now, seen, seen, false
	s := &t.standing
	s.ID, s.Route, s.Target, s.Then, s.At = p.ID, p.Route, p.Target, p.Then, now
	if s.Verdict == NotJudged {
		s.Since, s.Sentence = now, "The evidence of this window has just begun."
	}
}

// look takes a slice. What comes during the warm-up is not judged.
func (t *track) look(now time.Time, p Promise, seen [2]stats.Tally, window time.Duration) {
	promoted, heldBack := seen[0].Sub(t.last[0]), seen[1].Sub(t.last[1])
	t.last = seen
	if !t.warm {
		if now.Sub(t.began) >= warmUp && t.judge.Freeze(seen[1].Sub(t.base[1])) {
			t.warm, t.base = true, seen
		}
	} else {
		if !p.Turns { // the fast tier is of seconds that both were there in
			t.judge.Watch(heldBack, promoted)
		}
		if t.judge.Add(heldBack, promoted) {
			t.judge.Freeze(seen[1].Sub(t.base[1]))
		}
	}
	over := now.Sub(t.began) >= window
	switch settled := t.settle(now, p, over); {
	case settled && over:
		t.begin(now, p, seen)
	case now.Sub(t.began) >= longestWindow*window:
		t.standing.Verdict = NotJudged
		t.begin(now, p, seen)
	}
}

// settle draws the standing, and reports whether the evidence allowed one. A window that is not over may only say that the
// change is harmful, or that it still helps.
func (t *track) settle(now time.Time, p Promise, over bool) bool {
	s := &t.standing
	s.At = now
	g := t.judge.Judgement(t.last[1].Sub(t.base[1]), t.last[0].Sub(t.base[0]))
	target := targetOf(g, p.Target)
	effect := logRatio(target.Baseline, target.Candidate)
	verdict, text := classify(g, target, p, effect, over)
	if verdict == NotJudged && s.Verdict != NotJudged {
		return false // that of the window before stands
	}
	s.Verdict, s.Sentence, s.Now = verdict, text, effect
	s.Promoted, s.HeldBack, s.Unit = target.Candidate, target.Baseline, target.Unit
	s.PromotedCalls, s.HeldBackCalls, s.Since = g.CandidateCalls, g.BaselineCalls, t.began
	return verdict != NotJudged
}

func classify(g judge.Judgement, target judge.MetricResult, p Promise, effect float64, over bool) (Verdict, string) {
	compared := fmt.Sprintf("%s is %s with it and %s without, after %d and %d calls", target.Metric, value(target.Unit, target.Candidate), value(target.Unit, target.Baseline), g.CandidateCalls, g.BaselineCalls)
	fit := target.Verdict == judge.NoWorse || target.Verdict == judge.Improved
	switch {
	case g.Verdict == judge.Worse:
		return NowHarmful, "Worse than the policy before. " + g.Sentence
	case g.Verdict == judge.Invalid:
		return NotJudged, g.Sentence
	case p.NoWorse && fit && (over || target.Verdict == judge.Improved):
		return StillHelps, "No worse than the policy before, which is what it was promoted for: " + compared + "."
	case p.NoWorse || !fit:
		return NotJudged, "Not enough evidence yet: " + compared + "."
	case target.Verdict == judge.Improved && p.Then < 0 && effect > decayedBelow*p.Then && over:
		return Decayed, fmt.Sprintf("Better still, but by %s where it was %s: %s.", percentOf(effect), percentOf(p.Then), compared)
	case target.Verdict == judge.Improved && (over || effect <= decayedBelow*p.Then):
		return StillHelps, fmt.Sprintf("%s, %s when it was promoted: %s.", percentOf(effect), percentOf(p.Then), compared)
	case over:
		return NoEffect, fmt.Sprintf("No difference is left, %s when it was promoted: %s. Propose to remove it.", percentOf(p.Then), compared)
	}
	return NotJudged, "Not enough evidence yet: " + compared + "."
}

// Suspend lets the evidence of a change begin anew, as while what it does is switched off for both cohorts. Its verdict stands.
func (w *Watch) Suspend(now time.Time, p Promise, promoted, heldBack stats.Tally) {
	if t := w.tracks[p.ID]; t != nil {
		t.begin(now, p, [2]stats.Tally{promoted, heldBack})
	}
}

func targetOf(g judge.Judgement, name string) judge.MetricResult {
	for _, m := range g.Metrics {
		if m.Metric == name && m.Downstream == "" {
			return m
		}
	}
	return judge.MetricResult{Metric: name, Verdict: judge.Inconclusive}
}

// TargetEffect is the effect of a rollout on its target, as Promise.Then wants it.
func TargetEffect(g judge.Judgement, target string) float64 {
	m := targetOf(g, target)
	return logRatio(m.Baseline, m.Candidate)
}

func logRatio(before, after float64) float64 {
	if !(before > 0) || !(after > 0) {
		return 0
	}
	return math.Log(after / before)
}

func percentOf(effect float64) string { return fmt.Sprintf("%+.0f %%", staging.Percent(effect)) }

func value(unit string, v float64) string {
	switch unit {
	case "ms":
		return fmt.Sprintf("%.3g ms", v)
	case "ratio":
		return fmt.Sprintf("%.3g %%", 100*v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Forget drops the changes that are not among those still in force, by id.
func (w *Watch) Forget(inForce map[string]bool) {
	for id := range w.tracks {
		if !inForce[id] {
			delete(w.tracks, id)
		}
	}
}

// Standings are all, by route and id.
func (w *Watch) Standings() []Standing {
	all := make([]Standing, 0, len(w.tracks))
	for _, t := range w.tracks {
		all = append(all, t.standing)
	}
	slices.SortFunc(all, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Route, b.Route), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Restore brings back the standings of an earlier process. The evidence of their windows begins anew.
func (w *Watch) Restore(all []Standing) {
	for _, s := range all[:min(len(all), maxWatched)] {
		w.tracks[s.ID] = &track{standing: s}
	}
}
