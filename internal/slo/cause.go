package slo

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Cause is what bad calls are put down to. The zero value stands for those that nothing explains.
type Cause struct {
	Segment   string `json:"segment"` // as a diagnosis names it; of availability, the class of the calls
	Service   string `json:"service,omitempty"`
	Operation string `json:"operation,omitempty"`
}

// Share is the part that one cause has in the calls that are bad at present: of a latency objective, its share of the p99
// critical path. Shares add up to 1 at most; the rest is unexplained.
type Share struct {
	Cause
	Ratio float64 // 0..1
}

// Burned is what one cause has used of the error budget in the period.
type Burned struct {
	Cause
	Bad   float64 `json:"bad"`   // calls; a fraction where several causes share one
	Ratio float64 `json:"ratio"` // of all bad calls that are remembered
}

const (
	maxCauses    = 32               // of one objective; further ones count as Other
	maxShares    = 64               // of one explanation; further ones are unexplained
	maxName      = 256              // bytes; names come from traces
	explainedFor = 15 * time.Minute // how long a diagnosis speaks for calls that come after it
)

// Other is the cause that stands for all beyond the first 32 of an objective.
var Other = Cause{Segment: "other"}

// ledger keeps what burned the budget, by cause and by day.
type ledger struct {
	days   int
	shares []Share
	at     time.Time           // of the shares
	causes map[Cause][]dayBill // by day modulo days
}

type dayBill struct {
	day int64
	bad float64
}

func newLedger(p Period) ledger {
	return ledger{days: int((p.Duration() + Day - 1) / Day), causes: map[Cause][]dayBill{}}
}

func dayOf(at time.Time) int64 { return max(at.Unix()/int64(Day/time.Second), 0) }

// explain replaces what the bad calls are put down to. Shares that are not above 0 are left out; if they add up to more
// than 1 they are scaled down.
func (l *ledger) explain(now time.Time, shares []Share) {
	sum := 0.0
	l.shares, l.at = l.shares[:0], now
	for _, s := range shares[:min(len(shares), maxShares)] {
		if s.Ratio > 0 && s.Ratio <= 1 {
			sum += s.Ratio
			s.Cause = Cause{clip(s.Segment), clip(s.Service), clip(s.Operation)}
			l.shares = append(l.shares, s)
		}
	}
	if sum > 1 {
		for i := range l.shares {
			l.shares[i].Ratio /= sum
		}
	}
}

func clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	return strings.ToValidUTF8(strings.Clone(name[:maxName]), "")
}

func (l *ledger) add(now time.Time, bad uint64) {
	if bad == 0 {
		return
	}
	rest := float64(bad)
	if age := now.Sub(l.at); age >= 0 && age <= explainedFor {
		for _, s := range l.shares {
			part := s.Ratio * float64(bad)
			l.bill(now, s.Cause, part)
			rest -= part
		}
	}
	if rest > 1e-9*float64(bad) {
		l.bill(now, Cause{}, rest)
	}
}

func (l *ledger) bill(now time.Time, c Cause, bad float64) {
	days, known := l.causes[c]
	if !known && c != (Cause{}) && c != Other && len(l.causes) >= maxCauses {
		l.forget(now)
		if len(l.causes) >= maxCauses {
			c = Other
			days, known = l.causes[c]
		}
	}
	if !known {
		days = make([]dayBill, l.days)
		l.causes[c] = days
	}
	day := dayOf(now)
	d := &days[day%int64(l.days)]
	if d.day < day {
		*d = dayBill{day: day}
	}
	d.bad += bad
}

// forget drops causes of which nothing is left in the period.
func (l *ledger) forget(now time.Time) {
	for c, days := range l.causes {
		if l.sum(now, days) == 0 {
			delete(l.causes, c)
		}
	}
}

func (l *ledger) sum(now time.Time, days []dayBill) (bad float64) {
	today := dayOf(now)
	for _, d := range days {
		if d.day > today-int64(l.days) && d.day <= today {
			bad += d.bad
		}
	}
	return bad
}

// burned is the bill of the period, the largest part first.
func (l *ledger) burned(now time.Time) []Burned {
	all, sum := []Burned{}, 0.0
	for c, days := range l.causes {
		if bad := l.sum(now, days); bad > 0 {
			all = append(all, Burned{Cause: c, Bad: bad})
			sum += bad
		}
	}
	for i := range all {
		all[i].Ratio = all[i].Bad / sum
	}
	slices.SortFunc(all, func(a, b Burned) int {
		return cmp.Or(cmp.Compare(b.Bad, a.Bad), compareCauses(a.Cause, b.Cause))
	})
	return all
}

func compareCauses(a, b Cause) int {
	return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
}
