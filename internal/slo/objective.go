package slo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

// Kind is what makes a call good.
type Kind string

// The kinds.
const (
	Availability Kind = "availability" // it was answered, and not refused by us
	Latency      Kind = "latency"      // it ended within Threshold, however it ended: how is what availability says
)

// Severity is how soon somebody must look.
type Severity string

// The severities, from the most urgent.
const (
	Page   Severity = "page"   // now, at night too
	Ticket Severity = "ticket" // within days
)

// severities in the order in which they are shown.
var severities = []Severity{Page, Ticket}

// Objective is what is promised of one route. Name, Route and Target are mandatory.
type Objective struct {
	Name        string        `yaml:"name"`        // unique; 1..64 letters, digits and -_. characters
	Description string        `yaml:"description"` // for those who are woken; up to 512 characters
	Route       string        `yaml:"route"`       // whose calls are counted
	Kind        Kind          `yaml:"kind"`        // default latency if there is a threshold, availability if not
	Target      float64       `yaml:"target"`      // share of the calls that is good, above 0, up to 99.9999%
	Threshold   time.Duration `yaml:"threshold"`   // of kind latency: the slowest good answer, to its head; 1ms..1h
	Period      Period        `yaml:"period"`      // of the error budget, sliding; 7d..90d; default 30d
	MinBad      int           `yaml:"min_bad"`     // with so many bad calls in the long window the guard for low traffic is off; 2..100; default 10
	Windows     []Window      `yaml:"windows"`     // when to alert; up to 8; default DefaultWindows
}

// Window is one condition for an alert: that the long window burns as fast as if it used up Budget by itself, and the
// short one does so too.
type Window struct {
	Severity Severity      `yaml:"severity"` // page or ticket
	Budget   float64       `yaml:"budget"`   // share of the error budget that is gone when the long window is over; above 0, up to 100%
	Long     time.Duration `yaml:"long"`     // up to 3 days
	Short    time.Duration `yaml:"short"`    // at least 1m, shorter than Long; a twelfth of it by custom
}

// DefaultWindows are those of the SRE Workbook: with a period of 30 days their factors are 14.4, 6, 3 and 1.
func DefaultWindows() []Window {
	return []Window{
		{Page, 0.02, time.Hour, 5 * time.Minute},
		{Page, 0.05, 6 * time.Hour, 30 * time.Minute},
		{Ticket, 0.10, Day, 2 * time.Hour},
		{Ticket, 0.10, 3 * Day, 6 * time.Hour},
	}
}

// Factor is the burn above which w holds: its share of the budget, spread over the long window alone.
func (w Window) Factor(p Period) float64 {
	return w.Budget * p.Duration().Hours() / w.Long.Hours()
}

// WithDefaults fills what is zero.
func (o Objective) WithDefaults() Objective {
	if o.Kind == "" {
		o.Kind = Availability
		if o.Threshold > 0 {
			o.Kind = Latency
		}
	}
	if o.Period == 0 {
		o.Period = Period(30 * Day)
	}
	if o.MinBad == 0 {
		o.MinBad = 10
	}
	if len(o.Windows) == 0 {
		o.Windows = DefaultWindows()
	}
	return o
}

// Validate returns every fault of o, joined; each is a *setting.Error. Fields that are zero stand for their defaults.
func (o Objective) Validate() error {
	var f setting.Faults
	f.Check(nameOK(o.Name), "name", o.Name, "a name of 1..64 letters, digits and -_. characters")
	f.Check(len(o.Description) <= 512, "description", len(o.Description), "at most 512 characters")
	f.Check(o.Route != "", "route", o.Route, "the name of a route")
	target := o.Target > 0 && o.Target <= 0.999999
	f.Check(target, "target", o.Target, "above 0%, up to 99.9999%")
	switch o.Kind {
	case "", Availability, Latency:
	default:
		f.Check(false, "kind", o.Kind, "latency or availability")
	}
	o = o.WithDefaults()
	if o.Kind == Latency {
		f.Check(o.Threshold >= time.Millisecond && o.Threshold <= time.Hour, "threshold", o.Threshold, "1ms..1h: what is still fast enough")
	} else {
		f.Check(o.Threshold == 0, "threshold", o.Threshold, "none, for kind: latency alone has one")
	}
	period := o.Period.Duration() >= 7*Day && o.Period.Duration() <= 90*Day
	f.Check(period, "period", o.Period, "7d..90d")
	f.Check(o.MinBad >= 2 && o.MinBad <= 100, "min_bad", o.MinBad, "2..100")
	f.Check(len(o.Windows) <= 8, "windows", len(o.Windows), "at most 8")
	for i, w := range o.Windows {
		f.Within(fmt.Sprintf("windows[%d]", i), w.validate())
	}
	if target && period && f.Err() == nil {
		f.Within("", o.unreachable())
	}
	return f.Err()
}

func (w Window) validate() error {
	var f setting.Faults
	f.Check(slices.Contains(severities, w.Severity), "severity", w.Severity, "page or ticket")
	f.Check(w.Budget > 0 && w.Budget <= 1, "budget", w.Budget, "above 0%, up to 100%")
	f.Check(w.Long <= 3*Day, "long", w.Long, "up to 72h")
	f.Check(w.Short >= time.Minute && w.Short < w.Long, "short", w.Short, "at least 1m, shorter than long")
	return f.Err()
}

// unreachable finds windows that can never hold: when every call is bad the burn is 1/(1-Target), and a factor that is no
// lower can not be passed. An alert that cannot fire looks like peace.
func (o Objective) unreachable() error {
	var f setting.Faults
	for i, w := range o.Windows {
		if k := w.Factor(o.Period); k*o.Allowed() >= 1 {
			f.Check(false, "target", fmt.Sprintf("%.4g%% with windows[%d]", o.Target*100, i),
				fmt.Sprintf("above %.4g%%, or windows of your own: the factor of this one is %.4g and burn ends at %.4g, when every call is bad, so it can never fire", (1-1/k)*100, k, 1/o.Allowed()))
		}
	}
	return f.Err()
}

// ValidateAll is Validate of each, with names that are there once. Paths begin with the index: [2].target.
func ValidateAll(all []Objective) error {
	var f setting.Faults
	f.Check(len(all) <= MaxObjectives, "", len(all), fmt.Sprintf("at most %d objectives", MaxObjectives))
	seen := map[string]bool{}
	for i, o := range all {
		at := fmt.Sprintf("[%d]", i)
		f.Within(at, o.Validate())
		f.Check(!seen[o.Name], at+".name", o.Name, "a name that no other objective has")
		seen[o.Name] = true
	}
	return f.Err()
}

// MaxObjectives bounds one Book: each takes about 60 KiB.
const MaxObjectives = 256

// Counts are calls: Bad is a part of Total.
type Counts struct{ Total, Bad uint64 }

// BadClasses are the names of the call.Class that break an availability objective, in ascending order. Calls of class
// canceled are not counted at all: whoever went away cannot tell.
func BadClasses() []string { return []string{"refused", "server", "shed", "timeout"} }

// Ignored is the name of the call.Class that availability does not count.
const Ignored = "canceled"

// Count reads what o counts from what a route has counted: its calls by the name of their class, and the latency of all of
// them. Both may be cumulative, for Book.Observe, or of any span, for Book.Add. A call that a fallback answered has the
// class of its own end, and is bad.
func (o Objective) Count(classes map[string]uint64, latency stats.Snapshot) Counts {
	if o.Kind == Latency {
		return Counts{Total: latency.Count(), Bad: latency.Above(o.Threshold)}
	}
	var c Counts
	for class, n := range classes {
		if class == Ignored {
			continue
		}
		c.Total += n
		if slices.Contains(BadClasses(), class) {
			c.Bad += n
		}
	}
	return c
}

func nameOK(name string) bool {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, bad)
}
