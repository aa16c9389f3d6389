package slo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Snapshot is what a Book has counted, as a plain value for a file of JSON: about 50 KiB for an objective with a full period.
type Snapshot struct {
	Version    int       `json:"version"` // snapshotVersion
	At         time.Time `json:"at"`
	Objectives []Kept    `json:"objectives"`
}

// Kept is what a Book has counted for one objective.
type Kept struct {
	Name      string        `json:"name"`
	Route     string        `json:"route"`
	Kind      Kind          `json:"kind"`
	Threshold time.Duration `json:"threshold_ns"`
	Begin     time.Time     `json:"begin"`
	Levels    []KeptLevel   `json:"levels"`
	Alerts    []Alert       `json:"alerts"`
	Causes    []KeptCause   `json:"causes"`
}

// KeptLevel is the buckets of one width that are not empty, each with its number, its calls and its bad calls.
type KeptLevel struct {
	Width   time.Duration `json:"width_ns"`
	Buckets [][3]int64    `json:"buckets"`
}

// KeptCause is the bad calls put down to one cause on one day after 1970.
type KeptCause struct {
	Cause
	Day int64   `json:"day"`
	Bad float64 `json:"bad"`
}

const (
	snapshotVersion = 1
	maxCount        = 1 << 50 // of one bucket; more cannot have happened, and sums of these cannot overflow
)

// ErrSnapshot is what Restore gives for counts that it cannot take, once for each objective.
var ErrSnapshot = errors.New("slo: counts not restored")

// Snapshot copies what was counted.
func (b *Book) Snapshot(now time.Time) Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{Version: snapshotVersion, At: now, Objectives: []Kept{}}
	for _, t := range b.order {
		s.Objectives = append(s.Objectives, t.keep())
	}
	return s
}

func (t *tracker) keep() Kept {
	k := Kept{Name: t.o.Name, Route: t.o.Route, Kind: t.o.Kind, Threshold: t.o.Threshold, Begin: t.begin, Alerts: slices.Clone(t.alerts)}
	for _, l := range t.ring.levels {
		kl := KeptLevel{Width: l.width, Buckets: [][3]int64{}}
		for _, b := range l.buckets {
			if b.Total > 0 {
				kl.Buckets = append(kl.Buckets, [3]int64{b.number, int64(b.Total), int64(b.Bad)})
			}
		}
		slices.SortFunc(kl.Buckets, func(a, b [3]int64) int { return cmp.Compare(a[0], b[0]) })
		k.Levels = append(k.Levels, kl)
	}
	for c, days := range t.ledger.causes {
		for _, d := range days {
			if d.bad > 0 {
				k.Causes = append(k.Causes, KeptCause{c, d.day, d.bad})
			}
		}
	}
	slices.SortFunc(k.Causes, func(a, b KeptCause) int { return cmp.Or(compareCauses(a.Cause, b.Cause), cmp.Compare(a.Day, b.Day)) })
	return k
}

// Restore replaces what was counted by s, as at the start of a program. An objective whose route, kind or threshold is
// another one now begins anew, because its calls were judged by another measure; its target, period and windows may change.
// Objectives that s does not know begin anew as well. The error joins an ErrSnapshot for each part that was not taken; what
// lies in the future of now is left out.
func (b *Book) Restore(now time.Time, s Snapshot) error {
	if s.Version != snapshotVersion {
		return fmt.Errorf("%w: version %d; want %d", ErrSnapshot, s.Version, snapshotVersion)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, k := range s.Objectives {
		t := b.named[k.Name]
		if t == nil {
			continue // it was removed from the configuration
		}
		if err := t.restore(now, k); err != nil {
			errs = append(errs, fmt.Errorf("%w: objective %s %w", ErrSnapshot, k.Name, err))
		}
	}
	return errors.Join(errs...)
}

var (
	errMeasure = errors.New("was measured in another way; want the same route, kind and threshold")
	errCounts  = errors.New("has impossible counts; want 0 <= bad <= calls")
)

func (t *tracker) restore(now time.Time, k Kept) error {
	if k.Route != t.o.Route || k.Kind != t.o.Kind || k.Threshold != t.o.Threshold {
		return errMeasure
	}
	fresh := newRing(t.o.Period)
	for _, kl := range k.Levels {
		i := slices.IndexFunc(fresh.levels, func(l level) bool { return l.width == kl.Width })
		if i < 0 {
			continue // a resolution of another version; the levels do not depend on each other
		}
		if err := fresh.levels[i].restore(now, kl.Buckets); err != nil {
			return err
		}
	}
	t.ring, t.begin = fresh, k.Begin
	if k.Begin.After(now) {
		t.begin = now
	}
	for _, a := range k.Alerts {
		i := slices.Index(severities, a.Severity)
		if i >= 0 && slices.Contains([]State{Inactive, Firing, Resolved}, a.State) && !a.Since.After(now) {
			t.alerts[i] = a
		}
	}
	t.ledger = newLedger(t.o.Period)
	today := dayOf(now)
	for _, c := range k.Causes {
		if c.Bad > 0 && c.Day > today-int64(t.ledger.days) && c.Day <= today {
			t.ledger.bill(time.Unix(c.Day*int64(Day/time.Second), 0), c.Cause, c.Bad)
		}
	}
	return nil
}

func (l *level) restore(now time.Time, buckets [][3]int64) error {
	newest := l.number(now)
	for _, b := range buckets {
		number, total, bad := b[0], b[1], b[2]
		if total < 0 || bad < 0 || bad > total || total > maxCount {
			return errCounts
		}
		if number <= newest-int64(len(l.buckets)) || number > newest || number < 0 {
			continue
		}
		*l.at(number) = bucket{number, Counts{uint64(total), uint64(bad)}}
	}
	return nil
}
