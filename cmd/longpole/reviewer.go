package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/fleet"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/web"
)

const (
	reviewTick    = 10 * time.Second // between two looks at the holdbacks
	recordStream  = "records"
	reviewState   = "review"
	lastReview    = "review-last"
	daysState     = "review-days"
	daysEvery     = 360 // ticks, between two writes of daysState
	mostWorkloads = 20  // records that keep the workload under which they were made; an older one is weak evidence anyway
	mostExercises = 1000
)

// reviewer keeps the records of rollouts, judges holdbacks, and reviews on schedule. What it knows survives a restart where
// there is a store.
type reviewer struct {
	gateway    *gateway.Gateway
	rollouts   *rollout.Controller
	store      *store.Store // nil = nothing outlives the process
	findings   func() web.Findings
	objectives func() []slo.Status
	replicas   func() []scale.Recommendation
	facts      func() evidence.Facts // of the systems behind; nil = nothing is read
	log        *slog.Logger

	reviewing sync.Mutex // one review at a time
	recording sync.Mutex // one reconciliation at a time

	mu         sync.Mutex // guards what follows
	watch      *review.Watch
	window     time.Duration // of watch
	clock      staging.Clock
	records    []staging.Record // oldest first
	exercised  []review.Exercise
	meters     *review.Meters
	survey     *review.Survey
	calendar   *review.Calendar
	last       *review.Review
	turned     time.Time          // when the period began
	dismissals []review.Dismissal // in force
	notifier   *fleet.Notifier    // nil = nobody is told
	webhook    string             // of notifier
}

// kept is what survives a restart, beside the records.
type kept struct {
	Standings []review.Standing `json:"standings"`
	Exercised []review.Exercise `json:"exercised"`
}

// newReviewer takes part in a server that is complete but for it.
func newReviewer(ctx context.Context, s *server) *reviewer {
	v := &reviewer{
		gateway: s.gateway, rollouts: s.rollouts, findings: s.analysis.Newest, log: s.log,
		objectives: func() []slo.Status { return byBudget(s.signals.book.Status(time.Now())) }, replicas: s.signals.board.All,
		facts: s.gatherer.Facts, watch: review.NewWatch(0), meters: review.NewMeters(), survey: review.NewSurvey(), calendar: review.NewCalendar(),
	}
	if s.store != nil {
		v.restore(ctx, s.store)
	}
	s.analysis.stretches = v.Stretches
	return v
}

// restore reads what the store has. What cannot be read is left out and logged: a review is no reason not to serve.
func (v *reviewer) restore(ctx context.Context, s *store.Store) {
	v.store = s
	err := each(ctx, s, recordStream, func(data []byte) error {
		r, err := staging.ParseRecord(data)
		if err == nil {
			v.remember(r)
		}
		return err
	})
	if err != nil {
		v.log.Error("records of changes were not restored", "error", err)
	}
	var k kept
	if v.load(ctx, reviewState, &k) {
		v.watch.Restore(k.Standings)
		v.exercised = k.Exercised
	}
	if err := each(ctx, s, dismissalStream, func(data []byte) error {
		var e dismissalEntry
		err := json.Unmarshal(data, &e)
		if err == nil {
			v.dismissals = e.apply(v.dismissals)
		}
		return err
	}); err != nil {
		v.log.Error("dismissals were not restored", "error", err)
	}
	var days map[string][]review.Day
	if v.load(ctx, daysState, &days) {
		v.calendar.Restore(days)
	}
	var last review.Review
	if v.load(ctx, lastReview, &last) {
		v.last = &last
	}
}

// load reads one state; false when there is none that can be read.
func (v *reviewer) load(ctx context.Context, name string, into any) bool {
	data, err := v.store.Get(ctx, name)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil && !errors.Is(err, store.ErrAbsent) {
		v.log.Error("reviews were not restored", "state", name, "error", err)
	}
	return err == nil
}

// Run looks until ctx ends.
func (v *reviewer) Run(ctx context.Context) error {
	tick := time.NewTicker(reviewTick)
	defer tick.Stop()
	var beside sync.WaitGroup
	defer beside.Wait()
	stop := v.connect(ctx, &beside, func() {})
	v.look(time.Now())
	for n := 1; ; n++ {
		select {
		case now := <-tick.C:
			stop = v.connect(ctx, &beside, stop)
			v.look(now)
			if v.isDue(now) {
				if _, err := v.Review(ctx); err != nil {
					v.log.Error("review", "error", err)
				}
				v.turn(now)
			} else if n%6 == 0 {
				v.keep(ctx, now)
			}
			if n%daysEvery == 0 {
				v.keepDays(ctx, now)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalWait)
			defer cancel()
			v.look(time.Now())
			v.keep(last, time.Now())
			v.keepDays(last, time.Now())
			return nil
		}
	}
}

// connect follows the webhook of the configuration; stop ends the delivery to the one before.
func (v *reviewer) connect(ctx context.Context, beside *sync.WaitGroup, stop func()) func() {
	url := v.gateway.Effective().Review.Webhook
	v.mu.Lock()
	defer v.mu.Unlock()
	if url == v.webhook {
		return stop
	}
	stop()
	v.notifier, v.webhook = nil, url
	if url == "" {
		return func() {}
	}
	n := fleet.NewNotifier(fleet.WebhookConfig{URL: url}, nil, v.log)
	v.notifier = n
	ctx, stop = context.WithCancel(ctx)
	beside.Go(func() { n.Run(ctx) })
	return stop
}

// turn begins the next period, after the review that the schedule asked for.
func (v *reviewer) turn(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.meters.Turn()
	v.survey.Turn()
	v.turned = now
}

func (v *reviewer) isDue(now time.Time) bool {
	every := v.gateway.Effective().Review.Every
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.turned.IsZero() {
		v.turned = now
		if v.last != nil {
			v.turned = v.last.At
		}
	}
	return now.Sub(v.turned) >= every
}

// look takes one look at routes, faults and holdbacks.
func (v *reviewer) look(now time.Time) {
	whole := v.gateway.Effective()
	cfg := whole.Review
	looks, faults := v.looks(), v.gateway.Faults()
	var read evidence.Facts
	if v.facts != nil {
		read = v.facts()
	}
	v.mu.Lock()
	if v.window != cfg.Window {
		standings := v.watch.Standings()
		v.watch, v.window = review.NewWatch(cfg.Window), cfg.Window
		v.watch.Restore(standings)
	}
	calls := map[string]uint64{}
	all := uint64(0)
	for _, look := range looks {
		calls[look.Route] = look.Did.Calls
		all += look.Did.Calls
		v.meters.Observe(now, look)
		v.calendar.Observe(now, look.Route, look.Did.Calls)
	}
	v.clock.Observe(now, all)
	for _, w := range whole.Scale {
		sum, of := uint64(0), []string{}
		for _, route := range w.WithDefaults().Routes {
			if n, there := calls[route]; there {
				sum, of = sum+n, append(of, route)
			}
		}
		v.calendar.Observe(now, review.WorkloadDays(w.Name), sum, of...)
	}
	v.survey.Observe(read)
	for _, f := range faults {
		for _, class := range review.ClassesOf(f.Config) {
			v.exercise(review.Exercise{Class: class, Route: f.Route, At: f.Began, Hits: f.Hits, Verdict: review.VerdictOf(f), Point: string(f.Config.At), Hypothesis: f.Hypothesis})
		}
	}
	v.mu.Unlock()
	v.reconcile(now)
	for _, s := range v.judgeHeld(now, v.rollouts.List()) {
		v.harmful(s, cfg.AutoRollback)
	}
}

// exercise notes a fault, in place of what was known of the same one while it ran.
func (v *reviewer) exercise(e review.Exercise) {
	for i, old := range v.exercised {
		if old.Class == e.Class && old.Route == e.Route && old.At.Equal(e.At) {
			v.exercised[i] = e
			return
		}
	}
	v.exercised = append(v.exercised, e)
	v.exercised = v.exercised[max(0, len(v.exercised)-mostExercises):]
}

// harm is a change that is worse than the policy before.
type harm struct {
	review.Standing
	fresh bool // it became so now
}

// judgeHeld judges the holdbacks, and returns those that are harmful.
func (v *reviewer) judgeHeld(now time.Time, all []rollout.Status) (harmful []harm) {
	v.mu.Lock()
	defer v.mu.Unlock()
	off := v.gateway.Killed() // both cohorts do without it
	held := map[string]bool{}
	for _, s := range slices.Backward(all) {
		if s.Held != rollout.Held {
			continue
		}
		held[s.ID] = true
		promoted, heldBack, err := v.held(s)
		if err != nil {
			continue // a reload has ended it, and it is about to begin anew
		}
		if len(off[""]) > 0 || len(off[s.Route]) > 0 {
			v.watch.Suspend(now, promiseOf(s), promoted, heldBack)
			continue
		}
		standing, changed := v.watch.Add(now, promiseOf(s), promoted, heldBack)
		if standing.Verdict == review.NowHarmful {
			harmful = append(harmful, harm{standing, changed})
		}
	}
	v.watch.Forget(held)
	return harmful
}

// held is what the calls with a promoted change and those without it did so far.
func (v *reviewer) held(s rollout.Status) (promoted, heldBack stats.Tally, err error) {
	if s.SwitchbackMS > 0 {
		return v.rollouts.HeldInTurns(s.ID)
	}
	return v.gateway.Held(s.Route, s.ID)
}

// promiseOf is what a promoted change was promoted for.
func promiseOf(s rollout.Status) review.Promise {
	p := review.Promise{
		ID: s.ID, Route: s.Route, Target: s.Target, NoWorse: s.Goal == rollout.GoalNoWorse,
		Attempts: s.AttemptsFactor, Cost: s.CostFactor, Shed: s.Shed, Turns: s.SwitchbackMS > 0, Then: review.TargetEffect(s.Judgement, s.Target),
	}
	if s.Observe != "" {
		p.Shed = 0 // it is paid on the change's own route
	}
	return p
}

// harmful tells of a change that is worse than the policy before, and takes it back where that is wanted.
func (v *reviewer) harmful(h harm, undo bool) {
	s := h.Standing
	if h.fresh {
		v.log.Error("a promoted change is now harmful", "rollout", s.ID, "route", s.Route, "why", s.Sentence)
		v.notify(notice{Text: fmt.Sprintf("NOW HARMFUL: %s of route %s. %s", s.ID, s.Route, s.Sentence), Event: "harmful", Standing: &s})
	}
	if !undo {
		return
	}
	if err := v.rollouts.Undo(s.ID, "review: "+s.Sentence); err != nil {
		v.log.Warn("a harmful change could not be undone; trying again", "rollout", s.ID, "error", err)
		return
	}
	v.notify(notice{Text: fmt.Sprintf("%s of route %s was undone: the policy before is in force", s.ID, s.Route), Event: "undone", Standing: &s})
	v.reconcile(time.Now())
}

// notice is the body of a webhook. Chat systems show its text.
type notice struct {
	Text     string           `json:"text"`
	Event    string           `json:"event"` // harmful, undone or review
	Standing *review.Standing `json:"standing,omitempty"`
	Findings []review.Finding `json:"findings,omitempty"`
}

func (v *reviewer) notify(n notice) {
	v.mu.Lock()
	to := v.notifier
	v.mu.Unlock()
	if to == nil {
		return
	}
	if err := to.Notify(n); err != nil {
		v.log.Error("review", "error", err)
	}
}

// reconcile writes a record for each rollout that has ended since, or was undone.
func (v *reviewer) reconcile(now time.Time) {
	v.recording.Lock()
	defer v.recording.Unlock()
	name := v.gateway.Effective().Environment.Name
	for _, s := range v.rollouts.List() {
		if !s.Phase.Final() {
			continue
		}
		v.mu.Lock()
		old, known := v.recordOf(s)
		v.mu.Unlock()
		if known && old.Undone.Equal(s.Undone) {
			continue
		}
		r := recordFrom(s, name)
		if known {
			r.Workload = old.Workload
		} else if s.Phase == rollout.Promoted {
			w := v.Workload()
			r.Workload = &w
		}
		if err := v.write(now, r); err != nil {
			v.log.Error("the record of a change was not kept; trying again", "rollout", s.ID, "error", err)
			continue
		}
		v.mu.Lock()
		v.remember(r)
		v.mu.Unlock()
	}
}

// recordOf finds the record of a rollout. Without a store identifiers begin anew with each process; so do the records.
func (v *reviewer) recordOf(s rollout.Status) (staging.Record, bool) {
	for _, r := range v.records {
		if r.Rollout == s.ID && r.At.Equal(s.Ended) {
			return r, true
		}
	}
	return staging.Record{}, false
}

// remember puts r in the place of what was known of its rollout.
func (v *reviewer) remember(r staging.Record) {
	for i, old := range v.records {
		if old.Rollout == r.Rollout && old.At.Equal(r.At) {
			v.records[i] = r
			return
		}
	}
	v.records = append(v.records, r)
	v.records = v.records[max(0, len(v.records)-mostRecords):]
	with := 0
	for i := len(v.records) - 1; i >= 0; i-- {
		if v.records[i].Workload == nil {
			continue
		}
		if with++; with > mostWorkloads {
			v.records[i].Workload = nil
		}
	}
}

func (v *reviewer) write(now time.Time, r staging.Record) error {
	if v.store == nil {
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), journalWait)
	defer cancel()
	_, err = v.store.Append(ctx, now, recordStream, data)
	return err
}

// standsAlone is the name of an environment that has none.
const standsAlone = "default"

// recordFrom is the record of a rollout that has ended.
func recordFrom(s rollout.Status, environment string) staging.Record {
	if environment == "" {
		environment = standsAlone
	}
	r := staging.Record{
		Hash: s.Hash, Environment: environment, Rollout: s.ID, Route: s.Route, Version: s.Version, Phase: string(s.Phase), Outcome: s.Outcome,
		Change: s.Change, Goal: s.Goal, Target: s.Target, Verdict: s.Judgement.Verdict, Judgement: s.Judgement,
		Before: latencyOf(s.Baseline), After: latencyOf(s.Measured), Holdback: s.Holdback, Attempts: s.AttemptsFactor,
		Override: s.Override, Weak: s.Weak, At: s.Ended, Reason: s.Reason, Undone: s.Undone, UndoReason: s.UndoReason,
	}
	if s.Predicted != nil {
		p := latencyOf(*s.Predicted)
		r.Predicted = &p
	}
	if h := s.Hypothesis; h != nil {
		r.Code, r.Kind, r.Class, r.Summary, r.Cost, r.ShareP99 = h.Code, h.Kind, h.Segment, h.Summary, h.Cost, h.Share
		if h.High.P50 > 0 {
			low, high := latencyOf(h.Low), latencyOf(h.High)
			r.Low, r.High, r.Widened = &low, &high, h.Widened
		}
	}
	return r
}

func latencyOf(q rollout.Quantiles) staging.Latency {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return staging.Latency{P50: ms(q.P50), P95: ms(q.P95), P99: ms(q.P99)}
}

// Records implements web.Reviews.
func (v *reviewer) Records() []staging.Record {
	v.reconcile(time.Now())
	v.mu.Lock()
	defer v.mu.Unlock()
	list := []staging.Record{}
	for _, r := range v.records {
		if r.Phase == staging.Promoted && r.Undone.IsZero() {
			list = append(list, r)
		}
	}
	return staging.Newest(list, mostRecords)
}

// Workload implements web.Reviews.
func (v *reviewer) Workload() staging.Workload {
	v.mu.Lock()
	arrivals := v.clock.Arrivals()
	v.mu.Unlock()
	return workloadOf(time.Now(), v.gateway.Effective(), v.gateway.Routes(), v.findings(), arrivals)
}

// Stretches implements web.Reviews.
func (v *reviewer) Stretches() staging.Stretches {
	v.mu.Lock()
	records := slices.Clone(v.records)
	v.mu.Unlock()
	return staging.LearnStretches(records)
}

// Exercised implements web.Reviews.
func (v *reviewer) Exercised() []review.Exercise {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]review.Exercise{}, v.exercised...)
}

// Newest implements web.Reviews.
func (v *reviewer) Newest() (review.Review, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last == nil {
		return review.Review{}, false
	}
	return *v.last, true
}

// Review implements web.Reviews: it makes a review, keeps it, writes it to the folder and tells the webhook.
func (v *reviewer) Review(ctx context.Context) (review.Review, error) {
	v.reviewing.Lock()
	defer v.reviewing.Unlock()
	now := time.Now()
	v.look(now)
	in := v.input(ctx, now)
	made := review.Run(in)
	v.mu.Lock()
	v.last = &made
	v.mu.Unlock()
	v.lapse(ctx, &made)
	v.keep(ctx, now)
	v.save(ctx, now, lastReview, made)
	v.notify(notice{Text: "Longpole review: " + made.Headline(), Event: "review", Findings: made.Findings})
	v.log.Info("reviewed", "what", made.Headline())
	if dir := in.Config.Folder; dir != "" {
		if err := writeReview(dir, &made); err != nil {
			return made, fmt.Errorf("the review could not be written: %w", err)
		}
	}
	return made, nil
}

// keep writes what must survive a restart and changes all the time.
func (v *reviewer) keep(ctx context.Context, now time.Time) {
	v.mu.Lock()
	k := kept{Standings: v.watch.Standings(), Exercised: slices.Clone(v.exercised)}
	v.mu.Unlock()
	v.save(ctx, now, reviewState, k)
}

// keepDays writes the days, which change slowly.
func (v *reviewer) keepDays(ctx context.Context, now time.Time) {
	v.mu.Lock()
	days := v.calendar.Days()
	v.mu.Unlock()
	v.save(ctx, now, daysState, days)
}

func (v *reviewer) save(ctx context.Context, now time.Time, name string, value any) {
	if v.store == nil {
		return
	}
	data, err := json.Marshal(value)
	if err == nil {
		err = v.store.Put(ctx, now, name, data)
	}
	if err != nil {
		v.log.Error("what is known for reviews was not kept", "state", name, "error", err)
	}
}

// writeReview writes a review in its three forms, each named by its time.
func writeReview(dir string, r *review.Review) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	name := filepath.Join(dir, "review-"+r.At.UTC().Format("20060102T150405Z"))
	var errs []error
	for _, output := range []string{"markdown", "html", "json"} {
		extension := map[string]string{"markdown": ".md", "html": ".html", "json": ".json"}[output]
		f, err := os.OpenFile(name+extension, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
		if err == nil {
			err = errors.Join(renderReview(f, r, output), f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
