package review_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/review"
)

// reviews makes one after the other, each step apart, of what is seen at each.
func reviews(n int, step time.Duration, see func(i int) review.Systems) []review.Review {
	var list []review.Review
	for i := range n {
		in := review.Input{Now: noon.Add(time.Duration(i) * step), Systems: see(i)}
		if i > 0 {
			in.Last = &list[i-1]
		}
		list = append(list, review.Run(in))
	}
	return list
}

func nothing(int) review.Systems { return review.Systems{} }

// A period is a week, so a baseline is half a week old or more, and as little more as can be.
func TestHoweverOftenSomebodyReviewsThereIsABaseline(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, day, 3 * day} {
		for _, r := range reviews(int(60*day/step), step, nothing) {
			switch {
			case r.At.Sub(noon) < 84*time.Hour:
				if r.Baseline != nil {
					t.Fatalf("every %s: the review of %s is compared with that of %s", step, r.At, r.Baseline.At)
				}
			case r.Baseline == nil:
				t.Fatalf("every %s: the review of %s is compared with none", step, r.At)
			default:
				if age := r.At.Sub(r.Baseline.At); age < 84*time.Hour || age > 7*day+step {
					t.Fatalf("every %s: the review of %s is compared with what is %s old", step, r.At, age)
				}
			}
		}
	}
}

func TestAReviewDoesNotHoldOnToThoseBeforeIt(t *testing.T) {
	gone := make(chan struct{})
	last := func() *review.Review {
		first := &review.Review{At: noon, Figures: review.Figures{At: noon}}
		runtime.AddCleanup(first, func(c chan struct{}) { close(c) }, gone)
		second := review.Run(review.Input{Now: noon.Add(7 * day), Last: first})
		return &second
	}()
	for range 1000 {
		runtime.GC()
		select {
		case <-gone:
			runtime.KeepAlive(last)
			return
		default:
			runtime.Gosched()
		}
	}
	t.Errorf("the review of %s is still held by that of %s", last.Baseline.At, last.At)
}

// unused is a database whose statistics are a year old, with unused indexes of those names.
func unused(name string, at time.Time, indexes ...string) review.Database {
	x := &evidence.PostgresIndexes{Since: noon.Add(-365 * day)}
	for _, i := range indexes {
		x.Unused = append(x.Unused, evidence.Index{Schema: "public", Table: "orders", Name: i, Valid: true, Bytes: 1 << 30})
	}
	return review.Database{Name: name, At: at, Indexes: x}
}

func subjects(r *review.Review, code string) (list []string) {
	for _, f := range r.Findings {
		if f.Code == code {
			list = append(list, f.Subject)
		}
	}
	return list
}

func TestAnIndexMadeSinceTheLastReviewIsNotUnusedYet(t *testing.T) {
	list := reviews(5, 7*day, func(i int) review.Systems {
		at := noon.Add(time.Duration(i) * 7 * day)
		if i == 0 {
			return review.Systems{Databases: []review.Database{unused("shop", at, "old")}}
		}
		return review.Systems{Databases: []review.Database{unused("shop", at, "old", "new")}}
	})
	for i, want := range []int{1, 1, 1, 2, 2} {
		if got := subjects(&list[i], "LP318"); len(got) != want || got[0] != "public.old of shop" {
			t.Errorf("%d weeks later: %v, want %d", i, got, want)
		}
	}
}

func TestOneDatabaseDoesNotHideTheIndexesOfAnother(t *testing.T) {
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprint("many", i))
	}
	r := review.Run(review.Input{Now: noon, Systems: review.Systems{Databases: []review.Database{unused("large", noon, many...), unused("small", noon, "one")}}})
	if got := subjects(&r, "LP318"); len(got) != 22 || !slices.Contains(got, "public.one of small") || !slices.Contains(got, "further indexes of large") {
		t.Errorf("%d: %v", len(got), got)
	}
}

// A server that was never reset does not say since when it counts: that is known by reviews alone.
func TestAReviewJustAfterARestartForgetsNoDatabase(t *testing.T) {
	list := reviews(7, 3*day, func(i int) review.Systems {
		if i == 2 || i == 3 {
			return review.Systems{} // nothing was looked at yet
		}
		d := unused("shop", noon.Add(time.Duration(i)*3*day), "old")
		d.Indexes.Since = time.Time{}
		return review.Systems{Databases: []review.Database{d}}
	})
	if got := subjects(&list[6], "LP318"); len(got) != 1 {
		t.Errorf("after 18 days: %v, want the index", got)
	}
}

func TestARouteThatAWorkloadGainsIsNoBusyMinute(t *testing.T) {
	c := review.NewCalendar()
	name := review.WorkloadDays("api")
	for i := range 20 {
		now, calls, of := noon.Add(time.Duration(i)*10*time.Second), uint64(10*i), []string{"a"}
		if i >= 10 {
			calls, of = calls+1_000_000, append(of, "b") // which had been called for long
		}
		c.Observe(now, name, calls, of...)
	}
	if days := c.Days()[name]; len(days) != 1 || days[0].Peak > 1.01 {
		t.Errorf("%+v, want a call a second", days)
	}
}

// A load that ends in ANALYZE is counted twice by the statistics.
func TestRowsAreThoseOfALateAnalyze(t *testing.T) {
	for _, c := range []struct {
		name       string
		rows, live float64
		ago        time.Duration
		want       float64
	}{
		{"analysed just now", 49_000, 63_000, time.Minute, 49_000},
		{"analysed long ago", 49_000, 63_000, 30 * day, 63_000},
		{"never analysed", -1, 63_000, 0, 63_000},
		{"statistics were reset", 49_000, 0, 0, 49_000},
	} {
		f := facts(0, 1, 1, 1, "Seq Scan")
		x := &f.Postgres[0].Tables[0]
		if x.Rows, x.Live = c.rows, c.live; c.ago > 0 {
			x.Analyzed = f.To.Add(-c.ago)
		}
		s := review.NewSurvey()
		s.Observe(f)
		if got := s.Systems().Databases[0].Tables[0].Rows; got != c.want {
			t.Errorf("%s: %v rows, want %v", c.name, got, c.want)
		}
	}
}
