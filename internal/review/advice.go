package review

import (
	"cmp"
	"slices"

	"github.com/longpole/longpole/internal/staging"
)

// Advice is a finding of the present diagnosis that has a cure.
type Advice struct {
	Code     string  `json:"code"`
	Subject  string  `json:"subject"`         // the gateway's route that its change is for, or else the service and operation
	Route    string  `json:"route,omitempty"` // the gateway's, that a change of ours is for; "" = the cure is not ours
	Kind     string  `json:"kind"`            // of the best action
	Summary  string  `json:"summary"`         // of the finding
	ShareP99 float64 `json:"share_p99"`
	Basis    string  `json:"-"` // class, place and verdict: another one is other evidence
}

// Stage is how far an advice has come.
type Stage string

// The stages.
const (
	Active    Stage = "ACTIVE"    // nobody has tried it
	Claimed   Stage = "CLAIMED"   // a rollout of it is under way
	Succeeded Stage = "SUCCEEDED" // it is in force, and the finding is there still
	Failed    Stage = "FAILED"    // it was tried and given up
	SetAside  Stage = "DISMISSED" // somebody said so
)

// Advised is an advice, and how far it has come.
type Advised struct {
	Advice
	Stage     Stage      `json:"stage"`
	Rollout   string     `json:"rollout,omitempty"`   // of Claimed, Succeeded and Failed
	Dismissal *Dismissal `json:"dismissal,omitempty"` // of DISMISSED
}

// Running is a rollout that is under way.
type Running struct {
	ID, Route, Code string
}

// mostAdvised bounds what a review lists.
const mostAdvised = 50

// advised is the present advice, the largest first. An advice that was dismissed and has grown, or stands on other evidence,
// or whose dismissal ran out, is active again; that is LP328.
func (r *Review) advised(in *Input) {
	r.Advice = []Advised{}
	seen := map[[2]string]bool{}
	all := slices.Clone(in.Advice)
	slices.SortStableFunc(all, func(a, b Advice) int { return cmp.Compare(b.ShareP99, a.ShareP99) })
	for _, a := range all {
		key := [2]string{a.Code, a.Subject}
		if seen[key] || len(r.Advice) == mostAdvised {
			continue
		}
		seen[key] = true
		one := Advised{Advice: a, Stage: Active}
		one.Stage, one.Rollout = stageOf(in, a)
		if d := dismissed(in.Dismissals, a.Code, a.Subject); d != nil {
			if why := d.lapse(in.Now, a.ShareP99, a.Basis); why != "" {
				r.lapsed(*d, why)
				r.Findings = append(r.Findings, dismissedBack(a, d, why))
			} else if one.Stage != Claimed {
				one.Stage, one.Rollout, one.Dismissal = SetAside, "", d
			}
		}
		r.Advice = append(r.Advice, one)
	}
}

// stageOf is how far the newest rollout of an advice came.
func stageOf(in *Input, a Advice) (stage Stage, rollout string) {
	if a.Route == "" {
		return Active, ""
	}
	for _, x := range in.Running {
		if x.Code == a.Code && x.Route == a.Route {
			return Claimed, x.ID
		}
	}
	for _, r := range staging.Newest(in.Records, len(in.Records)) {
		if r.Code != a.Code || r.Route != a.Route {
			continue
		}
		if r.Phase == staging.Promoted && r.Undone.IsZero() {
			return Succeeded, r.Rollout
		}
		return Failed, r.Rollout
	}
	return Active, ""
}
