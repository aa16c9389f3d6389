package slo

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestObserveCountsWhatWasAdded(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	for _, c := range []Counts{{1_000_000, 500}, {1_000_100, 510}, {1_000_100, 510}, {30, 2}, {40, 2}} {
		b.Observe(midnight, "o", c) // the first is where they stand; the fourth began anew
	}
	b.Observe(midnight, "unknown", Counts{1, 1})
	if s := b.Status(midnight)[0]; s.Calls != 100+30+10 || s.Bad != 10+2 {
		t.Errorf("%d calls, %d bad", s.Calls, s.Bad)
	}
}

func TestStatusSaysHowMuchIsLeft(t *testing.T) {
	b := newBook(t, Objective{Name: "o", Route: "orders", Target: 0.99, Threshold: 250 * time.Millisecond, Description: "Orders are fast."})
	b.Add(midnight, "o", Counts{10_000, 25})
	s := b.Status(midnight)[0]
	if s.Kind != Latency || s.ThresholdMS != 250 || s.Allowed != 100 || s.Remaining != 0.75 || s.Good != 0.9975 || !s.Counted.Equal(midnight) {
		t.Errorf("%+v", s)
	}
	data, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(data), `"period":"30d"`) || !strings.Contains(string(data), `"long":"1h"`) {
		t.Errorf("%v %s", err, data)
	}
}

func TestWhatBurnedTheBudget(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	database, lock := Cause{"database", "stock", "SELECT"}, Cause{Segment: "lock"}
	b.Add(midnight, "o", Counts{100, 10}) // nothing was diagnosed yet
	b.Explain(midnight, "o", []Share{{database, 0.5}, {lock, 0.25}, {Cause{Segment: "none"}, 0}, {Cause{Segment: "nonsense"}, math.NaN()}})
	b.Add(midnight.Add(time.Minute), "o", Counts{1000, 100})
	b.Add(midnight.Add(explainedFor+time.Second), "o", Counts{100, 10}) // the diagnosis is too old for these
	b.Explain(midnight.Add(Day), "o", []Share{{lock, 1}, {database, 1}})
	b.Add(midnight.Add(Day), "o", Counts{100, 20})
	want := []Burned{{database, 60, 60.0 / 140}, {Cause{}, 45, 45.0 / 140}, {lock, 35, 35.0 / 140}}
	if diff := cmp.Diff(want, b.Status(midnight.Add(Day))[0].BurnedBy); diff != "" {
		t.Error(diff)
	}
	want = []Burned{{database, 10, 0.5}, {lock, 10, 0.5}}
	if diff := cmp.Diff(want, b.Status(midnight.Add(30 * Day))[0].BurnedBy); diff != "" {
		t.Errorf("after a period: %s", diff)
	}
}

func TestCausesAreBounded(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	for i := range 10 * maxCauses {
		b.Explain(midnight, "o", []Share{{Cause{Segment: fmt.Sprint(i)}, 1}})
		b.Add(midnight, "o", Counts{1, 1})
	}
	b.Explain(midnight, "o", make([]Share, 10*maxShares))
	by := b.Status(midnight)[0].BurnedBy
	if len(by) != maxCauses+1 || by[0].Cause != Other || by[0].Bad != 9*maxCauses {
		t.Errorf("%d causes, first %+v", len(by), by[0])
	}
	b.Explain(midnight.Add(31*Day), "o", []Share{{Cause{Segment: "new"}, 1}})
	b.Add(midnight.Add(31*Day), "o", Counts{1, 1})
	if by := b.Status(midnight.Add(31 * Day))[0].BurnedBy; len(by) != 1 || by[0].Segment != "new" {
		t.Errorf("those of the last period still take the room: %+v", by)
	}
}

// burning is a Book whose objective pages at midnight.
func burning(t *testing.T) *Book {
	t.Helper()
	b := newBook(t, objectiveOf(0.999))
	b.Explain(midnight, "o", []Share{{Cause{Segment: "database"}, 1}})
	b.Add(midnight, "o", Counts{1000, 500})
	if news := b.Evaluate(midnight); len(news) != 2 {
		t.Fatalf("%+v", news)
	}
	return b
}

func TestAnAlertIsToldOnceAndResolvedOnce(t *testing.T) {
	b := burning(t)
	if news := b.Evaluate(midnight.Add(10 * time.Second)); len(news) != 0 {
		t.Errorf("told again: %+v", news)
	}
	state := func(at time.Time) State {
		b.Evaluate(at)
		return b.Status(at)[0].Alerts[0].State
	}
	quiet := midnight.Add(31 * time.Minute)
	if s := state(quiet); s != Resolved {
		t.Errorf("after the short windows: %s", s)
	}
	if s := state(quiet.Add(resolvedFor - 1)); s != Resolved {
		t.Error(s)
	}
	if s := state(quiet.Add(resolvedFor)); s != Inactive {
		t.Errorf("long after: %s", s)
	}
}

func TestChangesWaitWhileTheBudgetBurns(t *testing.T) {
	b := burning(t)
	if reason, hold := b.Hold(midnight, "orders"); !hold || !strings.Contains(reason, "burns its error budget fast, since 2026-03-01T00:00:00Z") {
		t.Error(hold, reason)
	}
	if reason, hold := b.Hold(midnight, "other"); hold {
		t.Error(reason)
	}
	later := midnight.Add(Day)
	b.Evaluate(later)
	if reason, hold := b.Hold(later, "orders"); !hold || !strings.Contains(reason, "used up its error budget: 500 of 1000 calls were bad, 1 were allowed") {
		t.Error(hold, reason)
	}
	b.Add(later, "o", Counts{Total: 1_000_000})
	if reason, hold := b.Hold(later, "orders"); hold {
		t.Error(reason)
	}
}

func TestThePayloadIsThatOfAlertmanager(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	b.Explain(midnight, "o", []Share{{Cause{"database", "stock", "SELECT"}, 0.7}})
	b.Add(midnight, "o", Counts{1000, 500})
	firing := b.Evaluate(midnight)[0].Payload("https://longpole.test")
	resolved := b.Evaluate(midnight.Add(time.Hour))[0].Payload("")
	if firing.Status != "firing" || resolved.Status != "resolved" || firing.Version != "4" || len(firing.Alerts) != 1 {
		t.Errorf("%+v\n%+v", firing, resolved)
	}
	f, r := firing.Alerts[0], resolved.Alerts[0]
	if f.Fingerprint != r.Fingerprint || !f.StartsAt.Equal(midnight) || !f.EndsAt.IsZero() || !r.StartsAt.Equal(midnight) || !r.EndsAt.Equal(midnight.Add(time.Hour)) {
		t.Errorf("%+v\n%+v", f, r)
	}
	for text, wants := range map[string][]string{
		f.Annotations["summary"]:     {"o of route orders burns its error budget 500.0 times too fast over"},
		f.Annotations["description"]: {"Promised: 99.9 % good over 30d; 50 % were.", ": 500 of 1000 calls.", "The error budget is used up.", "Burned by: 70 % database stock SELECT, 30 % unexplained."},
		r.Annotations["summary"]:     {"Resolved: o of route orders"},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q has no %q", text, want)
			}
		}
	}
}

func TestCountsSurviveARestart(t *testing.T) {
	old := burning(t)
	for i := range 500 {
		old.Add(midnight.Add(time.Duration(i)*7*time.Minute), "o", Counts{uint64(i), uint64(i / 100)})
	}
	now := midnight.Add(500 * 7 * time.Minute)
	data, err := json.Marshal(old.Snapshot(now))
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	fresh := newBook(t, objectiveOf(0.999))
	if err := fresh.Restore(now, s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old.Status(now), fresh.Status(now)); diff != "" {
		t.Error(diff)
	}
	old.Evaluate(now)
	if news := fresh.Evaluate(now); len(news) > 2 {
		t.Errorf("%+v", news)
	}
	if diff := cmp.Diff(old.Status(now), fresh.Status(now)); diff != "" {
		t.Error(diff)
	}
}

func TestAFullPeriodIsASmallFile(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	for i := range 30 * 24 * 60 {
		b.Add(midnight.Add(time.Duration(i)*time.Minute), "o", Counts{6000, 6})
	}
	for i := range 360 {
		b.Add(midnight.Add(30*Day-time.Hour+time.Duration(i)*10*time.Second), "o", Counts{1000, 1})
	}
	data, err := json.Marshal(b.Snapshot(midnight.Add(30 * Day)))
	if err != nil || len(data) > 64<<10 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestWhatCannotBeRestoredBeginsAnew(t *testing.T) {
	s := burning(t).Snapshot(midnight)
	for name, change := range map[string]func(*Snapshot){
		"version":   func(s *Snapshot) { s.Version = 2 },
		"route":     func(s *Snapshot) { s.Objectives[0].Route = "other" },
		"threshold": func(s *Snapshot) { s.Objectives[0].Threshold = 1 },
		"negative":  func(s *Snapshot) { s.Objectives[0].Levels[0].Buckets[0][1] = -1 },
		"bad>calls": func(s *Snapshot) { s.Objectives[0].Levels[0].Buckets[0][2] = 1 << 40 },
	} {
		var broken Snapshot
		data, _ := json.Marshal(s)
		_ = json.Unmarshal(data, &broken)
		change(&broken)
		b := newBook(t, objectiveOf(0.999))
		if err := b.Restore(midnight, broken); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
		if st := b.Status(midnight)[0]; st.Calls != 0 {
			t.Errorf("%s: %d calls", name, st.Calls)
		}
	}
	b := newBook(t, objectiveOf(0.999))
	if err := b.Restore(midnight.Add(-Day), s); err != nil || b.Status(midnight.Add(-Day))[0].Calls != 0 {
		t.Errorf("counts of the future: %v %+v", err, b.Status(midnight.Add(-Day))[0])
	}
}

func TestReconfigureKeepsWhatStillMeasuresTheSame(t *testing.T) {
	b := burning(t)
	o := objectiveOf(0.99)
	if err := b.Reconfigure(midnight, []Objective{o, {Name: "new", Route: "orders", Target: 0.99}}); err != nil {
		t.Fatal(err)
	}
	s := b.Status(midnight)
	if len(s) != 2 || s[0].Bad != 500 || s[0].Target != 0.99 || s[0].Alerts[0].State != Firing || s[1].Calls != 0 {
		t.Errorf("%+v", s)
	}
	if err := b.Reconfigure(midnight, []Objective{{}}); err == nil || len(b.Status(midnight)) != 2 {
		t.Error("faulty objectives were taken")
	}
	o.Threshold = time.Second
	if err := b.Reconfigure(midnight, []Objective{o}); err != nil || b.Status(midnight)[0].Calls != 0 {
		t.Errorf("another measure kept its counts: %v", err)
	}
}

func TestABookIsSafeForAll(t *testing.T) {
	b := newBook(t, objectiveOf(0.999))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for k := range 50 {
				now := midnight.Add(time.Duration(k) * time.Second)
				b.Observe(now, "o", Counts{uint64(k), 0})
				b.Add(now, "o", Counts{1, 0})
				b.Evaluate(now)
				b.Explain(now, "o", []Share{{Cause{Segment: fmt.Sprint(i)}, 1}})
				_ = b.Snapshot(now)
				b.Hold(now, "orders")
				_ = b.Objectives()
			}
		})
	}
	all.Wait()
}

func FuzzRestore(f *testing.F) {
	b := newBook(f, objectiveOf(0.999))
	b.Add(midnight, "o", Counts{1000, 500})
	seed, _ := json.Marshal(b.Snapshot(midnight))
	f.Add(seed)
	f.Add([]byte(`{"version":1,"objectives":[{"name":"o","route":"orders","kind":"availability","levels":[{"width_ns":10000000000,"buckets":[[-9223372036854775808,1,1],[9223372036854775807,1,1]]}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Snapshot
		if json.Unmarshal(data, &s) != nil {
			return
		}
		b := newBook(t, objectiveOf(0.999))
		_ = b.Restore(midnight, s)
		for _, st := range b.Status(midnight) {
			if st.Bad > st.Calls {
				t.Errorf("%+v", st)
			}
		}
		b.Add(midnight, "o", Counts{1, 1})
		b.Evaluate(midnight)
		_ = b.Snapshot(midnight)
	})
}

// BenchmarkStatus is what one objective costs each ten seconds: counts, alerts and all figures of a full period.
func BenchmarkStatus(b *testing.B) {
	book := newBook(b, objectiveOf(0.999))
	for i := range 30 * 24 * 60 {
		book.Add(midnight.Add(time.Duration(i)*time.Minute), "o", Counts{6000, 6})
	}
	now := midnight.Add(30 * Day)
	b.ReportAllocs()
	for b.Loop() {
		book.Add(now, "o", Counts{1000, 1})
		book.Evaluate(now)
		_ = book.Status(now)
	}
}
