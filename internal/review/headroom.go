package review

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/scale"
)

// Day is how busy a route was at its busiest.
type Day struct {
	At   time.Time `json:"at"`         // its beginning, UTC
	Peak float64   `json:"per_second"` // calls, over its busiest minute
}

// Calendar keeps the busiest minute of each day of routes and workloads. Make one with NewCalendar. Not for concurrent use; told the time.
type Calendar struct{ routes map[string]*diary }

type diary struct {
	days   []Day // oldest first, the present one last
	minute time.Time
	calls  uint64 // at its beginning
	last   uint64
	of     string // what calls is the sum of
}

const (
	mostDays   = 90
	mostDiary  = 500 // routes
	dayLength  = 24 * time.Hour
	weekLength = 7 * dayLength
)

// NewCalendar is empty.
func NewCalendar() *Calendar { return &Calendar{routes: map[string]*diary{}} }

// Observe is told how many calls a route has had so far, several times a minute; for a workload, of which routes that is the sum.
// When these are others, the sum leaps though nobody called, and the minute begins anew. Five hundred are kept.
func (c *Calendar) Observe(now time.Time, route string, calls uint64, of ...string) {
	d := c.routes[route]
	if d == nil {
		if len(c.routes) >= mostDiary {
			return
		}
		d = &diary{}
		c.routes[route] = d
	}
	if sum := strings.Join(of, "\x00"); d.minute.IsZero() || calls < d.last || sum != d.of {
		d.minute, d.calls, d.of = now, calls, sum
	}
	d.last = calls
	took := now.Sub(d.minute)
	if took < time.Minute {
		return
	}
	rate := float64(calls-d.calls) / took.Seconds()
	day := d.minute.UTC().Truncate(dayLength)
	if n := len(d.days); n == 0 || d.days[n-1].At.Before(day) {
		d.days = append(d.days, Day{At: day})
		d.days = d.days[max(0, len(d.days)-mostDays):]
	}
	last := &d.days[len(d.days)-1]
	last.Peak = max(last.Peak, rate)
	d.minute, d.calls = now, calls
}

// Days is what is known of each route, oldest first. It is a copy.
func (c *Calendar) Days() map[string][]Day {
	all := make(map[string][]Day, len(c.routes))
	for route, d := range c.routes {
		if len(d.days) > 0 {
			all[route] = slices.Clone(d.days)
		}
	}
	return all
}

// Restore brings back the days of an earlier process.
func (c *Calendar) Restore(all map[string][]Day) {
	for route, days := range all {
		if len(c.routes) >= mostDiary {
			return
		}
		c.routes[route] = &diary{days: days[max(0, len(days)-mostDays):]}
	}
}

// Headroom is how far a route, or a workload that is scaled, is from its knee.
type Headroom struct {
	Name     string    `json:"name"`
	Peak     float64   `json:"peak_per_second"`     // of the last seven days, calls a second
	Capacity float64   `json:"capacity_per_second"` // at the knee
	Why      string    `json:"why"`                 // what says so
	Weekly   float64   `json:"weekly_per_second"`   // growth of the peak in a week; 0 = none that is significant
	Days     int       `json:"days"`                // that were looked at
	Reached  time.Time `json:"reached,omitzero"`    // when the peak meets the knee if it goes on like this; zero = not within a year
}

// Used is the share of the capacity that the peak uses.
func (h Headroom) Used() float64 { return h.Peak / h.Capacity }

const (
	leastDays   = 14 // whole days before growth is told
	seasonDays  = 21 // from so many on days are compared with the same day of other weeks
	significant = 1.96
)

// headroom is what is known of each route whose knee is known, the fullest first.
func headroom(in *Input) []Headroom {
	list := []Headroom{}
	for _, r := range in.Routes {
		if capacity, why := knee(r); capacity > 0 {
			list = append(list, Headroom{Name: r.Name, Capacity: capacity, Why: why})
		}
	}
	for _, w := range in.Replicas {
		if capacity, why := kneeOf(w); capacity > 0 {
			list = append(list, Headroom{Name: WorkloadDays(w.Name), Capacity: capacity, Why: why})
		}
	}
	out := list[:0]
	for _, h := range list {
		days := whole(in.Days[h.Name], in.Now)
		if len(days) == 0 {
			continue
		}
		h.Days = len(days)
		for _, d := range days[max(0, len(days)-7):] {
			h.Peak = max(h.Peak, d.Peak)
		}
		h.Weekly = growth(days) * 7
		if left := h.Capacity - h.Peak; h.Weekly > 0 {
			if weeks := max(left, 0) / h.Weekly; weeks <= 52 {
				h.Reached = in.Now.Add(time.Duration(weeks * float64(weekLength)))
			}
		}
		out = append(out, h)
	}
	slices.SortStableFunc(out, func(a, b Headroom) int { return cmp.Compare(b.Used(), a.Used()) })
	return out
}

// WorkloadDays is the name under which a Calendar keeps the days of a workload, beside those of routes.
func WorkloadDays(workload string) string { return "workload " + workload }

// knee is how many calls a second a route can take: by Little's law what its limit lets run at once, over what a call takes
// on average. Of an adaptive limit that never refused anything it is not known: it need not have found the knee.
func knee(r Route) (perSecond float64, why string) {
	l, mean := r.Policy.Limit, r.Did.Latency.Sum()/time.Duration(max(r.Did.Latency.Count(), 1))
	if l == nil || r.Limit <= 0 || mean <= 0 || r.Did.Calls < leastCalls || l.Algorithm != "fixed" && r.Did.Shed == 0 {
		return 0, ""
	}
	return float64(r.Limit) / mean.Seconds(), fmt.Sprintf("%d calls at once, of %s each", r.Limit, short(mean))
}

// kneeOf is the same of the replicas that a workload has now.
func kneeOf(w scale.Recommendation) (perSecond float64, why string) {
	if !(w.ServiceMS > 0) || !(w.Slots > 0) || w.Ready <= 0 {
		return 0, ""
	}
	return float64(w.Ready) * w.Slots / w.ServiceMS * 1000, fmt.Sprintf("%d replicas of %.3g calls at once, of %.3g ms each", w.Ready, w.Slots, w.ServiceMS)
}

// whole leaves out the day that has not ended.
func whole(days []Day, now time.Time) []Day {
	today := now.UTC().Truncate(dayLength)
	if n := len(days); n > 0 && !days[n-1].At.Before(today) {
		return days[:n-1]
	}
	return days
}

// growth is by how much the peak grows in a day, in calls a second; 0 when it does not, or when chance would do the same.
//
// It is the median of the slopes between any two days, which a few odd days do not move, once a Mann-Kendall test says
// that there is a trend. With three weeks and more only days a whole number of weeks apart are compared, so that a
// weekend is no decline. Source: Sen 1968; Hirsch, Slack and Smith 1982 (seasonal Kendall test).
func growth(days []Day) float64 {
	if len(days) < leastDays {
		return 0
	}
	season := 1
	if len(days) >= seasonDays {
		season = 7
	}
	var slopes []float64
	score, variance := 0, 0.0
	seasons := map[int]float64{} // days in each
	for j, b := range days {
		seasons[dayNumber(b)%season]++
		for _, a := range days[:j] {
			apart := dayNumber(b) - dayNumber(a)
			if apart == 0 || apart%season != 0 {
				continue
			}
			slopes = append(slopes, (b.Peak-a.Peak)/float64(apart))
			score += cmp.Compare(b.Peak, a.Peak)
		}
	}
	for _, n := range seasons {
		variance += n * (n - 1) * (2*n + 5) / 18
	}
	if variance == 0 || float64(score-1)/math.Sqrt(variance) < significant {
		return 0
	}
	slices.Sort(slopes)
	return max(0, slopes[len(slopes)/2])
}

func dayNumber(d Day) int { return int(d.At.Unix() / int64(dayLength/time.Second)) }
