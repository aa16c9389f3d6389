package slo

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// midnight is the edge of a bucket of every width.
var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func TestWindowsAreExact(t *testing.T) {
	type event struct {
		at time.Time
		Counts
	}
	rapid.Check(t, func(t *rapid.T) {
		r, now := newRing(Period(30*Day)), midnight
		var all []event
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Hour)).Draw(t, "gap")) / time.Duration(rapid.SampledFrom([]int{1, 10, 100, 10_000}).Draw(t, "divisor")))
			total := rapid.Uint64Range(0, 1000).Draw(t, "total")
			c := Counts{total, rapid.Uint64Range(0, total).Draw(t, "bad")}
			r.add(now, c)
			all = append(all, event{now, c})
		}
		now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "later")))
		for w, width := range map[time.Duration]time.Duration{
			5 * time.Minute: 10 * time.Second, time.Hour: 10 * time.Second, 90 * time.Minute: time.Minute, 6 * time.Hour: time.Minute,
			Day: 10 * time.Minute, 3 * Day: 10 * time.Minute, 30 * Day: time.Hour,
		} {
			var want Counts
			edge := now.Truncate(width).Add(width - w) // the window holds whole buckets, the last of which runs
			for _, e := range all {
				if !e.at.Before(edge) {
					want.Total += e.Total
					want.Bad += e.Bad
				}
			}
			if got := r.window(now, w); got != want {
				t.Fatalf("%v: %+v, want %+v", w, got, want)
			}
		}
	})
}

func TestPoissonTail(t *testing.T) {
	for _, c := range []struct {
		k    uint64
		mean float64
		want float64
	}{
		{0, 5, 1}, {1, 0.432, 0.35079}, {3, 0.432, 0.009753}, {2, 0.0432, 0.000907}, {5, 5, 0.559507}, {10, 3, 0.001102}, {50, 2000, 1}, {3, 0, 0},
	} {
		if got := poissonAtLeast(c.k, c.mean); math.Abs(got-c.want) > 2e-5 {
			t.Errorf("P(Poisson(%v) >= %d) = %v, want %v", c.mean, c.k, got, c.want)
		}
	}
}

func newBook(t testing.TB, o ...Objective) *Book {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func objectiveOf(target float64) Objective {
	return Objective{Name: "o", Route: "orders", Target: target}
}

// TestAlertsFireAndClearAtTheComputedTimes runs an outage through a Book in virtual time: each ten seconds 1000 calls, and the
// alerts are evaluated at once.
//
// With all calls bad, the time x since the outage began is that much of what the long window holds (its whole buckets, and
// as much as has passed of the one that runs): its burn passes a factor k with the first x > k*(1-T)*held. The alert clears
// when no more bad buckets are left in the short window than k*(1-T) of them.
func TestAlertsFireAndClearAtTheComputedTimes(t *testing.T) {
	const step, warm = 10 * time.Second, 4 * Day
	width := func(w time.Duration) time.Duration { r := newRing(Period(30 * Day)); return r.levelFor(w).width }
	computed := func(w Window, target float64) (rise, fall time.Duration) {
		k := w.Factor(Period(30*Day)) * (1 - target) * (1 + 1e-9)
		for held := 0.0; float64(rise) <= k*held; {
			rise += step
			held = float64(w.Long - width(w.Long) + (rise-1)%width(w.Long) + 1)
		}
		n := w.Short / width(w.Short)
		left := time.Duration(k * float64(n))
		return rise, (n-1-left)*width(w.Short) + step
	}
	for _, target := range []float64{0.99, 0.999} {
		for _, outage := range []time.Duration{20 * time.Minute, 2 * time.Hour} {
			t.Run(fmt.Sprintf("%v/%v", target, outage), func(t *testing.T) {
				o := objectiveOf(target)
				b := newBook(t, o)
				begin := midnight.Add(warm)
				fired, cleared := map[Severity]time.Duration{}, map[Severity]time.Duration{}
				quiet := begin.Add(-7 * time.Hour) // before it, only the coarse levels matter
				for now := midnight; now.Before(quiet); now = now.Add(10 * time.Minute) {
					b.Add(now, "o", Counts{Total: 60_000})
				}
				for now := quiet; now.Before(begin.Add(outage + 9*time.Hour)); now = now.Add(step) {
					c := Counts{Total: 1000}
					if !now.Before(begin) && now.Before(begin.Add(outage)) {
						c.Bad = 1000
					}
					b.Add(now, "o", c)
					if now.Before(begin.Add(-time.Minute)) {
						continue
					}
					for _, e := range b.Evaluate(now) {
						since := now.Add(step).Sub(begin) // at the end of the bucket that made it so
						if e.Alert.State == Firing {
							fired[e.Alert.Severity] = since
						} else {
							cleared[e.Alert.Severity] = since - outage
						}
					}
				}
				for _, s := range severities {
					wantFired, wantCleared := time.Duration(0), time.Duration(0) // never
					for _, w := range DefaultWindows() {
						rise, fall := computed(w, target)
						if w.Severity != s || rise > outage {
							continue
						}
						if wantFired == 0 || rise < wantFired {
							wantFired = rise
						}
						wantCleared = max(wantCleared, fall)
					}
					if fired[s] != wantFired || cleared[s] != wantCleared {
						t.Errorf("%s: fired after %v, cleared %v after the end; want %v, %v", s, fired[s], cleared[s], wantFired, wantCleared)
					}
				}
			})
		}
	}
}

// lowTraffic sends a call each two minutes for three days and more, of which some are bad on the fourth day, and gives the news.
func lowTraffic(t *testing.T, target float64, offset time.Duration, bad int) (news []Event) {
	t.Helper()
	b := newBook(t, objectiveOf(target))
	const first = 3 * 720
	for i := range first + 9*30 {
		now := midnight.Add(offset + time.Duration(i)*2*time.Minute)
		c := Counts{Total: 1}
		if i >= first && i < first+bad {
			c.Bad = 1
		}
		b.Add(now, "o", c)
		if i < first || i > first+8*30 { // eight hours later it is in no short window any more
			continue
		}
		for k := range 4 {
			news = append(news, b.Evaluate(now.Add(time.Duration(k)*30*time.Second))...)
		}
	}
	return news
}

func TestOneBadCallAtThirtyAnHourNeverAlerts(t *testing.T) {
	for _, target := range []float64{0.95, 0.99, 0.999, 0.9999, 0.99999} {
		if news := lowTraffic(t, target, 0, 1); len(news) > 0 {
			t.Errorf("%v: %s", target, news[0].Summary())
		}
	}
}

func TestThreeBadCallsInARowAtThirtyAnHourPage(t *testing.T) {
	for _, target := range []float64{0.995, 0.999, 0.9999} {
		for _, offset := range []time.Duration{0, 7 * time.Second, 115 * time.Second} {
			pages := 0
			for _, e := range lowTraffic(t, target, offset, 3) {
				if e.Alert.Severity == Page && e.Alert.State == Firing {
					pages++
				}
			}
			if pages != 1 {
				t.Errorf("%v, offset %v: %d pages; want 1", target, offset, pages)
			}
		}
	}
}

func TestTheGuardSaysThatThereAreFew(t *testing.T) {
	o := objectiveOf(0.999).WithDefaults()
	w := o.Windows[0]
	for _, c := range []struct {
		long, short Counts
		few, holds  bool
	}{
		{Counts{30, 1}, Counts{2, 1}, true, false},        // one
		{Counts{100, 2}, Counts{8, 2}, true, false},       // mean 1.44: two are likely
		{Counts{30, 3}, Counts{2, 2}, false, true},        // mean 0.43: three are not
		{Counts{200, 3}, Counts{17, 3}, false, true},      // the long window alone would call it chance; three of 17 are a cluster
		{Counts{200, 4}, Counts{17, 2}, true, false},      // mean 2.88
		{Counts{600, 10}, Counts{50, 2}, false, true},     // ten are always enough
		{Counts{1000, 14}, Counts{100, 10}, false, false}, // not above the factor
		{Counts{1000, 50}, Counts{100, 1}, false, false},  // over: the short window is quiet
		{Counts{}, Counts{}, false, false},
	} {
		if b := o.burnOf(w, c.long, c.short); b.Few != c.few || b.Holds != c.holds {
			t.Errorf("%+v %+v: few %t holds %t, want %t %t", c.long, c.short, b.Few, b.Holds, c.few, c.holds)
		}
	}
}

func TestABurnOfJustTheFactorDoesNotHold(t *testing.T) {
	o := objectiveOf(0.999).WithDefaults()
	w := o.Windows[0]
	if b := o.burnOf(w, Counts{10_000, 144}, Counts{10_000, 144}); b.Holds || math.Abs(b.LongBurn-14.4) > 1e-9 {
		t.Errorf("%+v", b)
	}
	if b := o.burnOf(w, Counts{10_000, 145}, Counts{10_000, 145}); !b.Holds {
		t.Errorf("%+v", b)
	}
}

// TestExhaustionIsPredicted: after 30 days of 1000 good calls an hour, a burn of 14.4 leaves 720 allowed bad calls for
// 720/14.4 = 50 hours.
func TestExhaustionIsPredicted(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	now := midnight
	for range 30 * 24 * 6 {
		b.Add(now, "o", Counts{Total: 500})
		now = now.Add(10 * time.Minute)
	}
	if s := b.Status(now)[0]; s.Exhausted != nil || s.Remaining != 1 {
		t.Fatalf("%+v", s)
	}
	for range 360 {
		b.Add(now, "o", Counts{Total: 1000, Bad: 14})
		now = now.Add(10 * time.Second)
	}
	now = now.Add(-time.Nanosecond)
	s := b.Status(now)[0]
	if s.Exhausted == nil {
		t.Fatal("it is said to last")
	}
	// By hand: 2,157,000 + 360,000 calls allow 2517 bad ones, of which 5040 in the last hour were bad: it is used up already.
	if !s.Exhausted.Equal(now) || s.Remaining >= 0 {
		t.Errorf("at %v, %v remains", s.Exhausted.Sub(now), s.Remaining)
	}

	b = newBook(t, objectiveOf(0.999))
	now = midnight
	for range 30 * 24 {
		b.Add(now, "o", Counts{Total: 10_000})
		now = now.Add(time.Hour)
	}
	b.Add(now, "o", Counts{Total: 10_000, Bad: 144})
	now = now.Add(time.Hour - time.Nanosecond)
	s = b.Status(now)[0]
	// Each hour replaces 10,000 calls, so that 7200 stay allowed; 144 are used each hour, the last one's included: 49 remain.
	if s.Exhausted == nil || s.Exhausted.Sub(now).Round(time.Minute) != 49*time.Hour {
		t.Errorf("exhausted %v", s.Exhausted.Sub(now))
	}
}

func TestABudgetThatRefillsLasts(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	now := midnight
	for range 60 * 24 { // a burn of 0.9 for ever: what is used drops out again
		b.Add(now, "o", Counts{Total: 10_000, Bad: 9})
		now = now.Add(time.Hour)
	}
	s := b.Status(now.Add(-time.Minute))[0]
	if s.Exhausted != nil || math.Abs(s.Remaining-0.1) > 1e-9 {
		t.Errorf("exhausted %v, remaining %v", s.Exhausted, s.Remaining)
	}
}
