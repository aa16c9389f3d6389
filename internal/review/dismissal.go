package review

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Why something cannot be dismissed.
var (
	ErrNothing   = errors.New("review: there is nothing of that name to dismiss")
	ErrHarmful   = errors.New("review: what harms now cannot be dismissed")
	ErrDismissal = errors.New("review: not a dismissal")
)

// Dismissal says that a finding, of a review or of the diagnosis, is known and left as it is, by whom, why and until when. What it
// remembers of the finding brings that back when it is no longer the same.
type Dismissal struct {
	Code    string    `json:"code"`    // as LP301
	Subject string    `json:"subject"` // what it is about
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Until   time.Time `json:"until"`
	Size    float64   `json:"size,omitempty"`  // of the finding then; 0 = it has none
	Basis   string    `json:"basis,omitempty"` // of the finding then
}

// The bounds of a dismissal.
const (
	MostDismissals = 1000
	longestText    = 1000 // bytes of a reason
	longestName    = 200  // bytes of By
	longestDismiss = 366 * 24 * time.Hour
	grownBy        = 1.2 // times as large it is another matter
)

// Order asks for dismissals, or to take them back.
type Order struct {
	Code    string `yaml:"code" json:"code"`
	Subject string `yaml:"subject" json:"subject,omitempty"` // as the review names it; a route for findings about routes; "" = all that have the code now
	Reason  string `yaml:"reason" json:"reason"`
	By      string `yaml:"by" json:"by"`
	Until   string `yaml:"until" json:"until,omitempty"` // 2026-12-31, its end in UTC, or a time as of RFC 3339; at most a year ahead
}

// ParseUntil reads the end of a dismissal; errors.Is ErrDismissal.
func ParseUntil(text string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		if at, err = time.Parse(time.DateOnly, text); err != nil {
			return at, fmt.Errorf("%w: until %q; want a date as 2026-12-31, or 2026-12-31T18:00:00Z", ErrDismissal, text)
		}
		at = at.Add(24 * time.Hour)
	}
	if !at.After(now) || at.Sub(now) > longestDismiss {
		return at, fmt.Errorf("%w: until %s; want a time after now, and at most a year ahead", ErrDismissal, text)
	}
	return at, nil
}

func (o *Order) check() error {
	switch {
	case !codeForm(o.Code):
		return fmt.Errorf("%w: code %q; want one as LP301", ErrDismissal, o.Code)
	case strings.TrimSpace(o.Reason) == "" || len(o.Reason) > longestText:
		return fmt.Errorf("%w: a reason is needed, of at most %d bytes", ErrDismissal, longestText)
	case strings.TrimSpace(o.By) == "" || len(o.By) > longestName:
		return fmt.Errorf("%w: by whom is needed, of at most %d bytes", ErrDismissal, longestName)
	}
	return nil
}

func codeForm(code string) bool {
	digits, ok := strings.CutPrefix(code, "LP")
	return ok && len(digits) == 3 && strings.Trim(digits, "0123456789") == ""
}

// Dismiss makes the dismissals that o asks for, from what the newest review and the present diagnosis found. Errors wrap
// ErrDismissal, ErrNothing and ErrHarmful.
func Dismiss(o Order, now time.Time, findings []Finding, advice []Advice) (list []Dismissal, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	until, err := ParseUntil(o.Until, now)
	if err != nil {
		return nil, err
	}
	harmful := false
	add := func(subject string, size float64, basis string) {
		list = append(list, Dismissal{Code: o.Code, Subject: subject, Reason: o.Reason, By: o.By, At: now, Until: until, Size: size, Basis: basis})
	}
	for _, f := range findings {
		if o.fits(f.Code, f.Subject) {
			if f.Severity == Critical {
				harmful = true
				continue
			}
			add(f.Subject, f.Size, f.Basis)
		}
	}
	for _, a := range advice {
		if o.fits(a.Code, a.Subject) && !slices.ContainsFunc(list, func(d Dismissal) bool { return d.Code == a.Code && d.Subject == a.Subject }) {
			add(a.Subject, a.ShareP99, a.Basis)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case harmful:
		return nil, fmt.Errorf("%w: %s; undo the change", ErrHarmful, o.name())
	}
	return nil, fmt.Errorf("%w: %s", ErrNothing, o.name())
}

func (o *Order) fits(code, subject string) bool {
	return code == o.Code && (o.Subject == "" || o.Subject == subject || strings.HasSuffix(subject, " on route "+o.Subject))
}

func (o *Order) name() string { return strings.TrimSpace(o.Code + " " + o.Subject) }

// Reopen is which of all are taken back; errors wrap ErrDismissal and ErrNothing.
func Reopen(o Order, all []Dismissal) (list []Dismissal, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	for _, d := range all {
		if o.fits(d.Code, d.Subject) {
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNothing, o.name())
	}
	return list, nil
}

// Shelved is a finding that somebody dismissed.
type Shelved struct {
	Finding
	Dismissal Dismissal `json:"dismissal"`
}

// Lapsed is a dismissal that holds no longer.
type Lapsed struct {
	Dismissal
	Why string `json:"why"`
}

const expired = "the dismissal expired"

// lapse says why d does not hold for a finding as it is now; "" = it holds.
func (d *Dismissal) lapse(now time.Time, size float64, basis string) string {
	switch {
	case !now.Before(d.Until):
		return expired
	case d.Basis != basis:
		return "its evidence changed"
	case d.Size > 0 && size >= grownBy*d.Size:
		return fmt.Sprintf("it grew by %.0f %%", 100*(size/d.Size-1))
	}
	return ""
}

// dismissed is the dismissal of a finding; nil = there is none.
func dismissed(all []Dismissal, code, subject string) *Dismissal {
	for i := range all {
		if all[i].Code == code && all[i].Subject == subject {
			return &all[i]
		}
	}
	return nil
}

// shelve parts the findings from those that are dismissed. What is back says so.
func (r *Review) shelve(in *Input) {
	kept := []Finding{}
	for _, f := range r.Findings {
		d := dismissed(in.Dismissals, f.Code, f.Subject)
		if d == nil || f.Severity == Critical {
			kept = append(kept, f)
			continue
		}
		why := d.lapse(in.Now, f.Size, f.Basis)
		if why == "" {
			r.Dismissed = append(r.Dismissed, Shelved{f, *d})
			continue
		}
		f.Detail += "; back, since " + why + " (dismissed " + d.told() + ")"
		kept = append(kept, f)
		r.lapsed(*d, why)
	}
	r.Findings = kept
	for i := range in.Dismissals {
		d := in.Dismissals[i]
		if !in.Now.Before(d.Until) {
			r.lapsed(d, expired)
		}
	}
}

// lapsed notes once that d holds no longer.
func (r *Review) lapsed(d Dismissal, why string) {
	if !slices.ContainsFunc(r.Lapsed, func(l Lapsed) bool { return l.Dismissal == d }) {
		r.Lapsed = append(r.Lapsed, Lapsed{d, why})
	}
}

// told is by whom, why and until when.
func (d *Dismissal) told() string {
	return fmt.Sprintf("by %s on %s until %s: %s", d.By, d.At.UTC().Format(time.DateOnly), stamp(d.Until), d.Reason)
}
