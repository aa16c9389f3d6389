package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/review"
)

// dismissalStream is the journal of what was dismissed and taken back.
const dismissalStream = "dismissals"

// What a line of that journal says.
const (
	dismissed = "dismissed"
	reopened  = "reopened"
	lapsed    = "lapsed"
)

// dismissalEntry is one line.
type dismissalEntry struct {
	Kind      string           `json:"kind"`
	At        time.Time        `json:"at"`
	Dismissal review.Dismissal `json:"dismissal"`
	By        string           `json:"by,omitempty"`     // who took it back
	Reason    string           `json:"reason,omitempty"` // why it was taken back, or holds no longer
}

// apply is the list of dismissals in force after an entry, the newest where a journal has more than there may be.
func (e *dismissalEntry) apply(all []review.Dismissal) []review.Dismissal {
	all = e.applied(all)
	return all[max(0, len(all)-review.MostDismissals):]
}

func (e *dismissalEntry) applied(all []review.Dismissal) []review.Dismissal {
	all = slices.DeleteFunc(all, func(d review.Dismissal) bool { return d.Code == e.Dismissal.Code && d.Subject == e.Dismissal.Subject })
	if e.Kind == dismissed {
		all = append(all, e.Dismissal)
	}
	return all
}

// Dismissals implements web.Reviews.
func (v *reviewer) Dismissals() []review.Dismissal {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]review.Dismissal{}, v.dismissals...)
}

// Dismiss implements web.Reviews.
func (v *reviewer) Dismiss(ctx context.Context, o review.Order) ([]review.Dismissal, error) {
	v.reviewing.Lock()
	defer v.reviewing.Unlock()
	now := time.Now()
	var findings []review.Finding
	if last, ok := v.Newest(); ok {
		findings = slices.Clone(last.Findings)
		for _, s := range last.Dismissed {
			findings = append(findings, s.Finding)
		}
	}
	list, err := review.Dismiss(o, now, findings, adviceOf(v.findings()))
	if err != nil {
		return nil, err
	}
	all := v.Dismissals()
	for _, d := range list {
		all = (&dismissalEntry{Kind: dismissed, Dismissal: d}).applied(all)
	}
	if len(all) > review.MostDismissals {
		return nil, fmt.Errorf("%w: %d would be in force then, of at most %d; reopen some", review.ErrDismissal, len(all), review.MostDismissals)
	}
	for _, d := range list {
		if err := v.dismissal(ctx, dismissalEntry{Kind: dismissed, At: now, Dismissal: d}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Reopen implements web.Reviews.
func (v *reviewer) Reopen(ctx context.Context, o review.Order) ([]review.Dismissal, error) {
	v.reviewing.Lock()
	defer v.reviewing.Unlock()
	list, err := review.Reopen(o, v.Dismissals())
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		if err := v.dismissal(ctx, dismissalEntry{Kind: reopened, At: time.Now(), Dismissal: d, By: o.By, Reason: o.Reason}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// lapse ends the dismissals that hold no longer by a review. One that the journal refuses lapses again at the next.
func (v *reviewer) lapse(ctx context.Context, r *review.Review) {
	for _, l := range r.Lapsed {
		if err := v.dismissal(ctx, dismissalEntry{Kind: lapsed, At: r.At, Dismissal: l.Dismissal, Reason: l.Why}); err != nil {
			v.log.Error("a dismissal that lapsed was not taken back", "code", l.Code, "about", l.Subject, "error", err)
		}
	}
}

// dismissal writes an entry to the journal, and puts it in force once it is there.
func (v *reviewer) dismissal(ctx context.Context, e dismissalEntry) error {
	if v.store != nil {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, journalWait)
		defer cancel()
		if _, err := v.store.Append(ctx, e.At, dismissalStream, data); err != nil {
			return fmt.Errorf("the state folder refuses: %w", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dismissals = e.apply(v.dismissals)
	v.log.Info("finding "+e.Kind, "code", e.Dismissal.Code, "about", e.Dismissal.Subject, "by", e.Dismissal.By, "until", e.Dismissal.Until, "reason", e.Dismissal.Reason, "why", e.Reason)
	return nil
}
