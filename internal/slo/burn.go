package slo

import (
	"math"
	"time"
)

// maxChance is how likely a burn just at the factor may make as many bad calls as there were, if an alert is to fire.
const maxChance = 0.01

// Burn is how fast a window uses up the error budget.
type Burn struct {
	Severity  Severity      `json:"severity"`
	Factor    float64       `json:"factor"` // both must be above it
	Long      time.Duration `json:"-"`
	Short     time.Duration `json:"-"`
	LongText  string        `json:"long"`
	ShortText string        `json:"short"`
	LongBurn  float64       `json:"long_burn"`  // 1 = the budget lasts just one period; 0 without calls
	ShortBurn float64       `json:"short_burn"` // the same of the short window
	Calls     uint64        `json:"calls"`      // in the long window
	Bad       uint64        `json:"bad"`
	Few       bool          `json:"few"`   // above the factor, but so few bad calls are likely by chance: the guard holds the alert back
	Holds     bool          `json:"holds"` // both are above the factor, and it is no accident
}

// Allowed is the share of the calls that may be bad: 1 - Target, freed from what binary fractions add to that.
func (o Objective) Allowed() float64 { return math.Round((1-o.Target)*1e12) / 1e12 }

// burn is the ratio of bad calls over the one that is allowed; 0 without calls.
func (o Objective) burn(c Counts) float64 {
	if c.Total == 0 {
		return 0
	}
	return float64(c.Bad) / float64(c.Total) / o.Allowed()
}

// faster compares without dividing, with room for the rounding of the factor: a burn of exactly 14.4 is not above it.
func (o Objective) faster(c Counts, factor float64) bool {
	return float64(c.Bad) > factor*o.Allowed()*float64(c.Total)*(1+1e-9)
}

func (o Objective) burnOf(w Window, long, short Counts) Burn {
	k := w.Factor(o.Period)
	b := Burn{
		Severity: w.Severity, Factor: k, Long: w.Long, Short: w.Short, LongText: brief(w.Long), ShortText: brief(w.Short),
		LongBurn: o.burn(long), ShortBurn: o.burn(short), Calls: long.Total, Bad: long.Bad,
	}
	above := o.faster(long, k) && o.faster(short, k)
	b.Few = above && !o.significant(long, k, fewest) && !o.significant(short, k, cluster)
	b.Holds = above && !b.Few
	return b
}

// The guard for low traffic never takes fewer bad calls for significant: in the long window, and in the short one alone.
const (
	fewest  = 2
	cluster = 3
)

// significant is the guard for low traffic: calls that are bad at just the factor's rate must be unlikely, 1 % at most, to
// give as many as there were; MinBad are always enough. A cluster in the short window says what the long one may hide.
func (o Objective) significant(c Counts, factor float64, least uint64) bool {
	if c.Bad < least {
		return false
	}
	mean := float64(c.Total) * o.Allowed() * factor
	return c.Bad >= uint64(o.MinBad) || poissonAtLeast(c.Bad, mean) < maxChance
}

// poissonAtLeast is the chance that a Poisson variable of this mean is k or more. k is small here, so the sum of the other
// end is exact; when exp(-mean) underflows, the mean is far above k and the chance is 1.
func poissonAtLeast(k uint64, mean float64) float64 {
	term, below := math.Exp(-mean), 0.0
	for i := range k {
		below += term
		term *= mean / float64(i+1)
	}
	return max(1-below, 0)
}

// Remaining is the share of the error budget that is left after c; below 0 when more was used than there was, 1 without calls.
func (o Objective) Remaining(c Counts) float64 { return 1 - o.burn(c) }

// exhaustion is when the budget will be used up if calls keep coming and failing as they did in the last hour, while
// what is older than the period drops out of it hour by hour. ok is false when it will last.
func (t *tracker) exhaustion(now time.Time) (at time.Time, ok bool) {
	hours := t.ring.hours()
	period := len(hours.buckets)
	number := hours.number(now)
	past := t.ring.window(now, t.o.Period.Duration())
	recent := t.ring.window(now, time.Hour)
	span := t.ring.covered(now, time.Hour, t.begin).Hours()
	before := t.excess(float64(past.Total), float64(past.Bad))
	if before > 0 {
		return now, true
	}
	if span <= 0 || !t.o.faster(recent, 0) {
		return time.Time{}, false
	}
	for h := 1; h <= period; h++ {
		if b := hours.at(number - int64(period) + int64(h)); b.number == number-int64(period)+int64(h) {
			past.Total -= b.Total
			past.Bad -= b.Bad
		}
		more := float64(h) / span
		after := t.excess(float64(past.Total)+more*float64(recent.Total), float64(past.Bad)+more*float64(recent.Bad))
		if after > 0 {
			part := -before / (after - before)
			return now.Add(time.Duration((float64(h-1) + part) * float64(time.Hour))), true
		}
		before = after
	}
	return time.Time{}, false
}

// excess is bad calls beyond what is allowed, with the room of faster.
func (t *tracker) excess(total, bad float64) float64 {
	return bad - total*t.o.Allowed()*(1+1e-9)
}

// brief is a duration of whole minutes without its zero parts, days as such: 3d, 6h, 5m.
func brief(d time.Duration) string {
	if d%Day == 0 {
		return Period(d).String()
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(s) - len(zero); n > 0 && s[n:] == zero {
			s = s[:n+1]
		}
	}
	return s
}
