package rollout

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/setting"
)

// The goals of a rollout: what the evidence must show before the candidate is promoted.
const (
	GoalImprove = "improve"  // better on the target, and no worse on any metric
	GoalNoWorse = "no_worse" // no worse on any metric
)

// What becomes of a candidate that could not be judged in MaxDuration, or whose judgement was interrupted.
const (
	Rollback = "rollback"
	Promote  = "promote"
	Resume   = "resume"
)

// Spec is a rollout as it is asked for. Zero fields mean the defaults given at each.
type Spec struct {
	Change         longpole.Change `yaml:"change"`          // From may be left out; when given it must be the policy in force
	Goal           string          `yaml:"goal"`            // improve or no_worse; default improve
	Target         string          `yaml:"target"`          // the metric to improve, one of judge.Metrics; default p99
	Version        string          `yaml:"version"`         // upstream of the route's split that is tried, with weight 0 until then, in place of another policy; change.to is empty then
	Steps          []float64       `yaml:"steps"`           // shares of the calls that the candidate gets, ascending, above 0 up to 50%; default 1%, 5%, 25%, 50%; promotion is the step to 100%
	Risk           float64         `yaml:"risk"`            // a step is left once it is sure (95%) that the next one adds slow or failed calls to no more than this share of all; above 0, up to 100%; default 2%
	Switchback     time.Duration   `yaml:"switchback"`      // instead of side by side, the arms get all calls in turns of this length, for a change that both would feel, as of a limit; steps do not apply; 2s..10m, and longer than the slowest calls; default 0 = side by side
	Washout        time.Duration   `yaml:"washout"`         // beginning of a turn that is not judged, in which what the other arm queued drains; up to half of switchback; default 5s or that half
	Observe        string          `yaml:"observe"`         // judge by the calls of this route in place of the change's own, for a change that shows elsewhere: a limit on exports that leaves room for views, a cache behind a cache; takes a switchback; default the change's route
	Shed           float64         `yaml:"shed"`            // share of the calls that the candidate may refuse beyond what the baseline refuses: the price of a limit; 0..95%; default 0 = a refused call is an error
	Slice          time.Duration   `yaml:"slice"`           // between two looks; 100ms..10m; default 10s; a verdict takes 12 slices at least
	Warmup         time.Duration   `yaml:"warmup"`          // not judged; default 30s; longer until the baseline made 100 calls
	MaxDuration    time.Duration   `yaml:"max_duration"`    // of the whole, warm-up included; up to 7 days; default 30m, or 40 turns of a switchback
	OnInconclusive string          `yaml:"on_inconclusive"` // rollback or promote; default rollback
	AttemptsFactor float64         `yaml:"attempts_factor"` // attempts per call that the candidate may make, over the baseline's; 1..10; default 1.05 + its retry budget
	Holdback       *float64        `yaml:"holdback"`        // share of the calls that keeps the old policy after a promotion, so that reviews can tell what the change is worth; 0..10%; with a switchback, whose arms feel each other, the share of the time in which all calls do; default none
	Restart        string          `yaml:"restart"`         // what becomes of it when the program ends in the middle and begins anew: resume (the evidence begins anew) or rollback; default resume
	Seed           uint64          `yaml:"seed"`            // of the order of turns; default one by chance
	Predicted      Quantiles       `yaml:"predicted"`       // of the candidate's latency; zero = no prediction
	Reason         string          `yaml:"reason"`          // free text for the journal
	Hypothesis     Hypothesis      `yaml:"hypothesis"`      // what it was asked for because of; zero = not said
	Override       bool            `yaml:"override"`        // true = begin without the record of the environment that must have verified it; takes a reason, and stands in the journal
	Weak           bool            `yaml:"weak"`            // set by Start when that record proves little: the first step is at most 1 %, and each takes twice the evidence
}

// Hypothesis is what a rollout is expected to do, and why, so that reviews can tell whether it did.
type Hypothesis struct {
	Code    string    `yaml:"code" json:"code,omitempty"`       // of the finding, as LP103
	Kind    string    `yaml:"kind" json:"kind,omitempty"`       // of its action, as hedge
	Segment string    `yaml:"segment" json:"segment,omitempty"` // that it is to cut, as downstream
	Summary string    `yaml:"summary" json:"summary,omitempty"` // of the finding
	Cost    string    `yaml:"cost" json:"cost,omitempty"`       // that was accepted
	Share   float64   `yaml:"share" json:"share_p99,omitempty"` // of the p99 critical path that the finding had
	Low     Quantiles `yaml:"low" json:"low_ms,omitzero"`       // of the predicted latency's 90 % interval; zero = none
	High    Quantiles `yaml:"high" json:"high_ms,omitzero"`
	Widened float64   `yaml:"widened" json:"widened,omitempty"` // the factor by which that interval was widened after earlier forecasts; 0 = it was not
}

const (
	shortestTurn  = 2 * time.Second // of a switchback: with a washout of half of it a second of each is judged
	weakFirstStep = 0.01            // at most, for a change whose record proves little
	weakEvidence  = 2               // times as much of it is taken at each step
)

// weakened is s for a change whose record proves little.
func (s Spec) weakened() Spec {
	s.Weak = true
	if s.Steps[0] > weakFirstStep {
		s.Steps = append([]float64{weakFirstStep}, s.Steps...)
	}
	return s
}

// costFactor is the cost per call that the candidate may make, over the baseline's; 0 = the judge's default. More attempts
// are what a hedge buys its latency with.
func (s Spec) costFactor() float64 {
	if r := s.Change.To.Retry; r != nil && !r.Off && r.Hedge != nil {
		return s.AttemptsFactor
	}
	return 0
}

// heldBack is the share of the calls that keeps the old policy after a promotion.
func (s Spec) heldBack() float64 {
	if s.Holdback == nil || s.Version != "" {
		return 0
	}
	return *s.Holdback
}

// Plan says in one line what the rollout will be able to see in the time that is left, on a route that gets so many calls a second.
func (s Spec) Plan(callsPerSecond float64, left time.Duration, trust Calibration) string {
	if s.Switchback == 0 {
		return judge.Plan(callsPerSecond*s.Steps[len(s.Steps)-1], left, trust.Slice(s.Slice))
	}
	pair := 2 * s.Switchback
	judged := float64(s.Switchback-s.Washout) / float64(pair)
	return judge.Plan(callsPerSecond*judged, left, pair)
}

// evidence is how many times the least evidence a step takes.
func (s Spec) evidence() int {
	if s.Weak {
		return weakEvidence
	}
	return 1
}

// WithDefaults spells out the defaults. It shares Steps with s when they are set.
func (s Spec) WithDefaults() Spec {
	if s.Goal == "" {
		s.Goal = GoalImprove
	}
	if s.Target == "" {
		s.Target = "p99"
	}
	if len(s.Steps) == 0 {
		s.Steps = []float64{0.01, 0.05, 0.25, 0.50}
	}
	if s.Risk == 0 {
		s.Risk = 0.02
	}
	if s.Switchback > 0 && s.Washout == 0 {
		s.Washout = min(5*time.Second, s.Switchback/2)
	}
	if s.Restart == "" {
		s.Restart = Resume
	}
	if s.Slice == 0 {
		s.Slice = 10 * time.Second
	}
	if s.Warmup == 0 {
		s.Warmup = 30 * time.Second
	}
	if s.MaxDuration == 0 {
		s.MaxDuration = max(30*time.Minute, 40*s.Switchback+s.Warmup)
	}
	if s.OnInconclusive == "" {
		s.OnInconclusive = Rollback
	}
	if s.AttemptsFactor == 0 {
		s.AttemptsFactor = 1.25
		if r := s.Change.To.Retry; r != nil && !r.Off {
			s.AttemptsFactor = 1.05 + r.WithDefaults().BudgetRatio
		}
	}
	return s
}

// Validate returns every fault of s, joined; each is a *setting.Error. Zero fields are fine.
func (s Spec) Validate() error {
	s = s.WithDefaults()
	var f setting.Faults
	f.Check(s.Change.Route != "", "change.route", s.Change.Route, "the name of a route")
	f.Within("change.to", s.Change.To.Validate())
	f.Check(s.Goal == GoalImprove || s.Goal == GoalNoWorse, "goal", s.Goal, "improve or no_worse")
	f.Check(slices.Contains(judge.Metrics(), s.Target), "target", s.Target, "one of "+strings.Join(judge.Metrics(), ", "))
	f.Check(s.Version == "" || reflect.DeepEqual(s.Change.To, longpole.Config{}), "version", s.Version, "either a version or another policy, change.to")
	f.Check(s.Risk > 0 && s.Risk <= 1, "risk", s.Risk, "above 0%, up to 100%")
	f.Check(s.Switchback == 0 || s.Switchback >= shortestTurn && s.Switchback <= 10*time.Minute, "switchback", s.Switchback, "2s..10m")
	f.Check(s.Washout >= 0 && s.Washout <= s.Switchback/2, "washout", s.Washout, "up to half of switchback")
	f.Check(s.Observe == "" || s.Switchback > 0 && s.Version == "", "observe", s.Observe, "a switchback of a policy with it: arms side by side are not told apart elsewhere")
	f.Check(s.Observe == "" || s.Observe != s.Change.Route, "observe", s.Observe, "another route than the change's")
	f.Check(s.Shed >= 0 && s.Shed <= 0.95, "shed", s.Shed, "0%..95%")
	f.Check(s.Holdback == nil || *s.Holdback >= 0 && *s.Holdback <= 0.1, "holdback", s.Holdback, "0%..10%")
	f.Check(s.Restart == Resume || s.Restart == Rollback, "restart", s.Restart, "resume or rollback")
	f.Check(ascending(s.Steps), "steps", s.Steps, "at most 20 shares in ascending order, above 0% and up to 50%")
	f.Check(s.Slice >= 100*time.Millisecond && s.Slice <= 10*time.Minute, "slice", s.Slice, "100ms..10m")
	f.Check(s.Warmup >= 0, "warmup", s.Warmup, "a duration that is not negative")
	f.Check(s.MaxDuration > s.Warmup && s.MaxDuration <= 7*24*time.Hour, "max_duration", s.MaxDuration, "longer than warmup, at most 168h")
	f.Check(s.OnInconclusive == Rollback || s.OnInconclusive == Promote, "on_inconclusive", s.OnInconclusive, "rollback or promote")
	f.Check(s.AttemptsFactor >= 1 && s.AttemptsFactor <= 10, "attempts_factor", s.AttemptsFactor, "1..10")
	f.Check(!s.Override || s.Reason != "", "override", s.Override, "a reason with it")
	p := s.Predicted
	f.Check(p.P50 >= 0 && p.P95 >= p.P50 && p.P99 >= p.P95 || p.P95 == 0 || p.P99 == 0, "predicted", p, "percentiles that do not fall")
	return f.Err()
}

// maxSteps bounds a ramp; a weak record adds one more.
const maxSteps = 20

func ascending(steps []float64) bool {
	last := 0.0
	for _, s := range steps {
		if !(s > last && s <= 0.5) {
			return false
		}
		last = s
	}
	return len(steps) <= maxSteps
}
