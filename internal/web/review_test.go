package web_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/web"
)

// shelf is a web.Reviews of its own making.
type shelf struct {
	last *review.Review
	err  error
}

func (s *shelf) Records() []staging.Record  { return []staging.Record{{Rollout: "r7"}} }
func (s *shelf) Workload() staging.Workload { return staging.Workload{Environment: "staging"} }

func (s *shelf) Newest() (review.Review, bool) {
	if s.last == nil {
		return review.Review{}, false
	}
	return *s.last, true
}

func (s *shelf) Review(context.Context) (review.Review, error) {
	if s.err != nil {
		return review.Review{}, s.err
	}
	s.last = &review.Review{Program: "v9", Findings: []review.Finding{
		{Code: "LP301", Severity: review.Info}, {Code: "LP301", Severity: review.Info}, {Code: "LP320", Severity: review.Critical},
	}}
	return *s.last, nil
}

func (s *shelf) Dismissals() []review.Dismissal { return []review.Dismissal{{Code: "LP301"}} }

func (s *shelf) Stretches() staging.Stretches {
	return staging.Stretches{{Kind: "hedge", Factor: 1.4}}
}

func (s *shelf) Exercised() []review.Exercise {
	return []review.Exercise{{Class: "abort", Route: "orders"}}
}

func (s *shelf) Dismiss(_ context.Context, o review.Order) ([]review.Dismissal, error) {
	return []review.Dismissal{{Code: o.Code, Reason: o.Reason}}, s.err
}

func (s *shelf) Reopen(_ context.Context, o review.Order) ([]review.Dismissal, error) {
	return []review.Dismissal{{Code: o.Code, By: o.By}}, s.err
}

func TestDismissalsAreAskedForAndRefused(t *testing.T) {
	s := &shelf{}
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{})
	f.handler = web.New(web.Options{
		Gateway: f.gateway, Rollouts: f.rollouts, Findings: func() web.Findings { return web.Findings{} }, Dropped: func() map[string]uint64 { return nil }, Reviews: s,
	})
	f.do("GET", "/api/v1/dismissals", "").want(http.StatusOK, `"code":"LP301"`)
	f.do("GET", "/api/v1/predictions", "").want(http.StatusOK, `"kind":"hedge"`, `"factor":1.4`)
	f.do("GET", "/api/v1/exercised", "").want(http.StatusOK, `"class":"abort"`)
	f.do("POST", "/api/v1/dismissals", `{"code": "LP302", "reason": "as it is meant", "by": "ann", "until": "2026-12-31"}`).want(http.StatusOK, `"code":"LP302"`, `"reason":"as it is meant"`)
	f.do("POST", "/api/v1/dismissals/reopen", `{"code": "LP302", "reason": "no more", "by": "bob"}`).want(http.StatusOK, `"by":"bob"`)
	f.do("POST", "/api/v1/dismissals", `{"cod": "LP302"}`).want(http.StatusBadRequest, "cod")
	for _, c := range []struct {
		err    error
		status int
	}{{review.ErrDismissal, http.StatusBadRequest}, {review.ErrNothing, http.StatusNotFound}, {review.ErrHarmful, http.StatusConflict}, {errors.New("disk"), http.StatusInternalServerError}} {
		s.err = c.err
		f.do("POST", "/api/v1/dismissals", `{"code": "LP302"}`).want(c.status, c.err.Error())
	}
}

func TestReviewsAreMadeAndKept(t *testing.T) {
	s := &shelf{}
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{})
	f.handler = web.New(web.Options{
		Gateway: f.gateway, Rollouts: f.rollouts, Findings: func() web.Findings { return web.Findings{} }, Dropped: func() map[string]uint64 { return nil }, Reviews: s,
	})
	f.do("GET", "/api/v1/review", "").want(http.StatusNotFound, "no review yet")
	if a := f.do("GET", "/metrics", ""); strings.Contains(a.body, "longpole_review_findings{") {
		t.Error("findings are told before the first review")
	}
	f.do("POST", "/api/v1/review", "").want(http.StatusOK, `"version":"v9"`)
	f.do("GET", "/api/v1/review", "").want(http.StatusOK, `"version":"v9"`)
	f.do("GET", "/metrics", "").want(http.StatusOK, `longpole_review_findings{code="LP301",severity="info"} 2`, `longpole_review_findings{code="LP320",severity="critical"} 1`)
	f.do("GET", "/api/v1/records", "").want(http.StatusOK, `"rollout":"r7"`)
	f.do("GET", "/api/v1/workload", "").want(http.StatusOK, `"environment":"staging"`)
	s.err = errors.New("the disk is full")
	f.do("POST", "/api/v1/review", "").want(http.StatusInternalServerError, "the disk is full")
}

func TestAnUnverifiedChangeIsAConflictWithAHint(t *testing.T) {
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{}, func(f *fixture) {
		f.rollouts = rollout.NewController(rollout.Options{Target: f.gateway, Verified: func(rollout.Spec, string) (rollout.Verification, error) {
			return rollout.Verification{}, rollout.ErrUnverified
		}})
	})
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "to": {"timeout": "9s"}}`).want(http.StatusConflict, "was not verified", `"hint":"run the same rollout there`)
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "to": {"timeout": "9s"}, "override": true}`).want(http.StatusBadRequest, "override")
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "to": {"timeout": "9s"}, "override": true, "reason": "outage"}`).want(http.StatusCreated, `"override":true`, `"weak":true`)
}

func TestAnAdvisedRolloutRemembersItsHypothesis(t *testing.T) {
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{}, func(f *fixture) { f.findings = sample("orders") })
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "advice": "LP103"}`).
		want(http.StatusCreated, `"code":"LP103","kind":"hedge","segment":"downstream"`, `"cost":"5.2 % more upstream calls"`, `"share_p99":0.72`, `"high_ms":{"p50":8.3,"p95":15,"p99":24.4}`)
}

// TestAnAdvisedLimitTakesTurnsAndItsPrice has the hedge of the finding be one whose arms would feel each other.
func TestAnAdvisedLimitTakesTurnsAndItsPrice(t *testing.T) {
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{}, func(f *fixture) {
		f.findings = sample("orders")
		a := &f.findings.Report.Routes[0].Findings[0].Actions[1]
		a.Turns, a.Shed = true, 0.7
	})
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "advice": "LP103"}`).want(http.StatusCreated, `"shed":0.7`, `"switchback_ms":30000,"washout_ms":5000`)
	f.do("POST", "/api/v1/rollouts/r1/release", `{}`).want(http.StatusConflict, "holds no calls back")
	f.do("POST", "/api/v1/rollouts/r1/abort", `{}`).want(http.StatusOK)
	if s, _ := f.rollouts.Get("r1"); s.Holdback != 0 {
		t.Errorf("%v of the time is held back, which nobody asked for", s.Holdback)
	}
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "advice": "LP103", "shed": 0.2, "switchback": "4s", "washout": "1s", "holdback": 0.01}`).
		want(http.StatusCreated, `"holdback":0.01`, `"shed":0.2`, `"switchback_ms":4000,"washout_ms":1000`)
}

// brokenDisk is a journal that refuses what it is told once it is full.
type brokenDisk struct{ full bool }

func (d *brokenDisk) Append(rollout.Entry) error {
	if d.full {
		return errors.New("no space left")
	}
	return nil
}

func TestDecisionsThatWereNotWrittenDownAreShown(t *testing.T) {
	disk := &brokenDisk{}
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{}, func(f *fixture) {
		f.rollouts = rollout.NewController(rollout.Options{Target: f.gateway, Journal: disk})
	})
	f.do("GET", "/metrics", "").want(http.StatusOK, "\nlongpole_rollout_unwritten_total 0\n")
	f.do("POST", "/api/v1/rollouts", `{"route": "orders", "to": {"timeout": "9s"}}`).want(http.StatusCreated)
	disk.full = true
	f.do("POST", "/api/v1/rollouts/r1/abort", `{}`).want(http.StatusOK)
	f.do("GET", "/readyz?verbose", "").want(http.StatusOK, "[+] rollouts: degraded: the journal refused 2 entries")
	f.do("GET", "/metrics", "").want(http.StatusOK, "\nlongpole_rollout_unwritten_total 2\n")
}
