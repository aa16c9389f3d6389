package review_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/limit"
)

const day = 24 * time.Hour

// weekAgo is an input whose last review, a week ago, saw one database as before says, and that sees it as now says.
func weekAgo(before, now review.Database) review.Input {
	before.Name, before.At, now.Name, now.At = "shop", noon.Add(-7*day), "shop", noon
	return review.Input{
		Now: noon, Systems: review.Systems{Since: noon.Add(-7 * day), Databases: []review.Database{now}},
		Last: &review.Review{At: noon.Add(-7 * day), Figures: review.Figures{At: noon.Add(-7 * day), Databases: []review.Database{before}}},
	}
}

// index is a database with one index of so many bytes, whose scans are counted for so long; 0 = the server does not say.
func index(bytes int64, counted time.Duration, edit func(*evidence.Index)) review.Input {
	x := evidence.Index{Schema: "public", Table: "orders", Name: "orders_note", Valid: true, Bytes: bytes}
	if edit != nil {
		edit(&x)
	}
	all := &evidence.PostgresIndexes{Unused: []evidence.Index{x}}
	if counted > 0 {
		all.Since = noon.Add(-counted)
	}
	return weekAgo(review.Database{Scans: noon.Add(-20 * day), Tables: []review.Table{{Name: "public.orders", SeqScans: 10}}},
		review.Database{Indexes: all, Tables: []review.Table{{Name: "public.orders", SeqScans: 12}}})
}

func statement(before, now float64, edit func(before, now *review.Statement)) review.Input {
	b := review.Statement{Key: "k", Text: "select * from orders where id = ?", Calls: 1000, TotalMS: 1000 * before, Plan: "Index Scan orders orders_pkey", Generic: true}
	n := b
	n.TotalMS = 1000 * now
	if edit != nil {
		edit(&b, &n)
	}
	return weekAgo(review.Database{Statements: []review.Statement{b}}, review.Database{Statements: []review.Statement{n}})
}

func planned(plan string, generic bool) func(before, now *review.Statement) {
	return func(b, n *review.Statement) { n.Plan, b.Generic, n.Generic = plan, generic, generic }
}

func table(before, now, scans float64, edit func(before, now *review.Table)) review.Input {
	b := review.Table{Name: "public.orders", Rows: before, Bytes: 1 << 30, SeqScans: 50, SeqRows: 50 * before}
	n := review.Table{Name: "public.orders", Rows: now, Bytes: 2 << 30, SeqScans: 50 + scans, SeqRows: 50*before + scans*before}
	if edit != nil {
		edit(&b, &n)
	}
	return weekAgo(review.Database{Tables: []review.Table{b}}, review.Database{Tables: []review.Table{n}})
}

func pool(p review.Pool) review.Input {
	p.Service, p.Name = "shop", "main"
	return review.Input{Now: noon, Systems: review.Systems{Since: noon.Add(-7 * day), Pools: []review.Pool{p}}}
}

// full is a route with a fixed limit of 100 calls of 100 ms, so that its knee is at 1000 calls a second, and its days.
func full(days []review.Day, edit func(*review.Route)) review.Input {
	in := of(5000, 100*time.Millisecond, func(r *review.Route) {
		limited(limit.Config{Algorithm: "fixed", Limit: 100}, nil)(r)
		r.Limit, r.Since = 100, noon.Add(-day)
		if edit != nil {
			edit(r)
		}
	})
	in.Days = map[string][]review.Day{"orders": days}
	return in
}

// daysOf is so many whole days, the last yesterday, each as busy as peak says.
func daysOf(n int, peak func(i int) float64) (list []review.Day) {
	for i := range n {
		list = append(list, review.Day{At: noon.Truncate(day).Add(-time.Duration(n-i) * day), Peak: peak(i)})
	}
	return list
}

// weekly has quiet weekends.
func weekly(base, grows float64) func(int) float64 {
	return func(i int) float64 {
		if i%7 >= 5 {
			return 0.4 * (base + grows*float64(i))
		}
		return base + grows*float64(i)
	}
}

func cost(before review.Cost, edit func(*review.Route)) review.Input {
	in := busy(edit)
	before.Route = "orders"
	in.Last = &review.Review{Figures: review.Figures{At: noon.Add(-7 * day), Costs: []review.Cost{before}}}
	return in
}

func TestLintsOfWhatIsBehind(t *testing.T) {
	const mib = 1 << 20
	worker := scale.Recommendation{Name: "shop", Ready: 5, Slots: 40, ServiceMS: 100, Active: true}
	scaled := review.Input{Now: noon, Replicas: []scale.Recommendation{worker}, Days: map[string][]review.Day{review.WorkloadDays("shop"): daysOf(5, func(int) float64 { return 1900 })}}
	young := statement(2, 4, nil)
	young.Last.Figures.At = noon.Add(-time.Hour)
	for i, c := range []struct {
		code, severity string // "" = no finding
		in             review.Input
		says           string
	}{
		{"LP318", "info", index(64*mib, 30*day, nil), "64 MiB on orders was used by no scan in 30 days"},
		{"LP318", "info", index(64*mib, 0, nil), "in 20 days"},
		{"LP318", "", index(64*mib, 5*day, nil), ""},
		{"LP318", "", index(mib, 30*day, nil), ""},
		{"LP318", "", index(64*mib, 30*day, func(x *evidence.Index) { x.Unique = true }), ""},
		{"LP318", "", index(64*mib, 30*day, func(x *evidence.Index) { x.Constraint = true }), ""},
		{"LP318", "", edit(index(64*mib, 30*day, nil), func(in *review.Input) { in.Systems.Databases[0].Indexes.Replica = true }), ""},
		{"LP318", "", edit(index(64*mib, 0, nil), func(in *review.Input) { in.Systems.Databases[0].Tables[0].SeqScans = 2 }), ""}, // counts were lost
		{"LP318", "info", index(64*mib, 30*day, func(x *evidence.Index) { x.Name = "Notes" }), ""},
		{"LP319", "warning", statement(2, 4, nil), "4 ms a call on average, 2 ms at the last review"},
		{"LP319", "", statement(2, 2.8, nil), ""},
		{"LP319", "", statement(0.2, 0.6, nil), ""},
		{"LP319", "", statement(2, 4, func(b, _ *review.Statement) { b.Calls = 50 }), ""},
		{"LP319", "", statement(2, 4, func(b, _ *review.Statement) { b.Key = "another" }), ""},
		{"LP319", "", young, ""}, // there is nothing yet to compare with
		{"LP319", "info", statement(2, 2, planned("Seq Scan orders", true)), "its plan was Index Scan orders orders_pkey and is Seq Scan orders"},
		{"LP319", "warning", statement(2, 4, planned("Seq Scan orders", false)), "its plan was"},
		{"LP319", "info", statement(2, 2.5, planned("Seq Scan orders", false)), "its plan was"},
		{"LP319", "", statement(2, 2.1, planned("Seq Scan orders", false)), ""}, // other values
		{"LP319", "", statement(2, 2, planned("", true)), ""},
		{"LP323", "warning", table(1e6, 1.5e6, 700, nil), "twice as many on 2026-03-22 if it goes on. It was read from end to end 700 times: each takes 1.5 times as long as at the last review, and 2 times by the next"},
		{"LP323", "info", table(1e6, 1.5e6, 20, nil), "1.5 M rows, 1 M on 2026-02-22: +50 %, 2 GiB"},
		{"LP323", "info", table(1e6, 1.5e6, 700, func(b, n *review.Table) { n.SeqRows = b.SeqRows + 700 }), "twice as many"}, // each reads a row
		{"LP323", "warning", table(1e6, 1.5e6, 700, func(b, n *review.Table) { b.SeqScans, b.SeqRows, n.SeqScans, n.SeqRows = 5000, 5e9, 200, 2e8 }), "read from end to end 200 times"},
		{"LP323", "", table(1e6, 1.1e6, 700, nil), ""},
		{"LP323", "", table(1e6, 1.5e6, 700, func(_, n *review.Table) { n.Bytes = mib }), ""},
		{"LP323", "", table(1e6, 1.5e6, 700, func(b, _ *review.Table) { b.Name = "another" }), ""},
		{"LP324", "warning", pool(review.Pool{Max: 10, Used: 10, Windows: 100, Exhausted: 20, WaitP99: 40 * time.Millisecond, Timeouts: 3}), "somebody waited for one of 10 connections in 20 of 100 windows, p99 of the wait up to 40ms, 3 gave up"},
		{"LP324", "", pool(review.Pool{Max: 10, Used: 10, Windows: 100, Exhausted: 5}), ""},
		{"LP324", "", pool(review.Pool{Max: 10, Used: 10, Windows: 10, Exhausted: 10}), ""},
		{"LP325", "info", pool(review.Pool{Max: 100, Used: 12, Windows: 9000}), "no more than 12 of 100 connections were in use at any look"},
		{"LP325", "", pool(review.Pool{Max: 100, Used: 60, Windows: 9000}), ""},
		{"LP325", "", pool(review.Pool{Max: 8, Used: 1, Windows: 9000}), ""},
		{"LP325", "", pool(review.Pool{Max: 100, Used: 12, Windows: 100}), ""},
		{"LP325", "", pool(review.Pool{Max: 100, Used: 12, Windows: 9000, Exhausted: 1}), ""},
		{"LP325", "", edit(pool(review.Pool{Max: 100, Used: 12, Windows: 9000}), func(in *review.Input) { in.Systems.Since = noon.Add(-day) }), ""},
		{"LP326", "info", full(daysOf(28, weekly(400, 10)), nil), "the knee is at 1000 ("},
		{"LP326", "warning", full(daysOf(28, weekly(600, 10)), nil), "it grows by 70 a week, and is there on 2026-03-16"},
		{"LP326", "warning", full(daysOf(3, func(int) float64 { return 900 }), nil), "the busiest minute of the last week had 900 calls a second"},
		{"LP326", "", full(daysOf(28, weekly(400, 0)), nil), ""},
		{"LP326", "", full(daysOf(28, weekly(400, 1)), nil), ""},                                                              // in a year and more
		{"LP326", "", full(daysOf(28, weekly(700, -10)), nil), ""},                                                            // it shrinks
		{"LP326", "", full(daysOf(10, weekly(400, 10)), nil), ""},                                                             // too few days
		{"LP326", "", full(daysOf(28, weekly(600, 10)), func(r *review.Route) { r.Limit = 0 }), ""},                           // the knee is not known
		{"LP326", "", full(daysOf(28, weekly(600, 10)), func(r *review.Route) { r.Policy.Limit.Algorithm = "adaptive" }), ""}, // nor is it here
		{"LP326", "warning", full(daysOf(28, weekly(600, 10)), func(r *review.Route) { r.Policy.Limit.Algorithm, r.Did.Shed = "adaptive", 10 }), ""},
		{"LP326", "warning", scaled, "5 replicas of 40 calls at once, of 100 ms each"},
		{"LP327", "info", cost(review.Cost{Attempts: 800}, nil), "attempts from 800 to 1000"},
		{"LP327", "info", cost(review.Cost{Attempts: 1000, CPU: time.Second}, func(r *review.Route) { r.Did.CPU = 10 * time.Second }), "CPU time from 1s to 2s"},
		{"LP327", "info", cost(review.Cost{Attempts: 1000, Bytes: mib}, func(r *review.Route) { r.Did.Bytes = 10 * mib }), "bytes from 1 MiB to 2 MiB"},
		{"LP327", "", cost(review.Cost{Attempts: 900}, nil), ""},
		{"LP327", "", cost(review.Cost{Attempts: 1000}, func(r *review.Route) { r.Did.CPU = 10 * time.Second }), ""}, // it was not measured before
		{"LP327", "", cost(review.Cost{Attempts: 800}, func(r *review.Route) { r.Did.Calls = 500 }), ""},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.code, i), func(t *testing.T) {
			r := review.Run(c.in)
			at := slices.IndexFunc(r.Findings, func(f review.Finding) bool { return f.Code == c.code })
			if at < 0 {
				if c.severity != "" {
					t.Fatalf("nothing is found: %+v", r.Headroom)
				}
				return
			}
			f := r.Findings[at]
			if string(f.Severity) != c.severity || !strings.Contains(f.Detail, c.says) || f.Name == "" || f.Subject == "" || f.Mend == "" {
				t.Errorf("%+v, want %q %q", f, c.severity, c.says)
			}
		})
	}
}

func edit(in review.Input, with func(*review.Input)) review.Input {
	with(&in)
	return in
}

func TestTheStatementThatDropsAnIndexIsQuoted(t *testing.T) {
	in := index(64<<20, 30*day, func(x *evidence.Index) { x.Name = `Notes"` })
	if f := review.Run(in).Findings[0]; !strings.HasSuffix(f.Mend, `DROP INDEX CONCURRENTLY public."Notes"""`) {
		t.Error(f.Mend)
	}
}

func TestManyUnusedIndexesAreBounded(t *testing.T) {
	in := index(64<<20, 30*day, nil)
	for i := range 500 {
		in.Systems.Databases[0].Indexes.Unused = append(in.Systems.Databases[0].Indexes.Unused, evidence.Index{Name: fmt.Sprint("i", i), Valid: true, Bytes: 1 << 30})
	}
	if r := review.Run(in); len(r.Findings) != 21 || !strings.Contains(r.Findings[20].Detail, "481 more") {
		t.Errorf("%d findings, the last %+v", len(r.Findings), r.Findings[len(r.Findings)-1])
	}
}

// Weeks of traffic that goes up and down by chance, and does not grow, are seldom taken for growth.
func TestChanceIsSeldomTakenForGrowth(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alarms := 0
	for range 400 {
		in := full(daysOf(28, func(i int) float64 { return 0.8 * weekly(800, 0)(i) * (1 + 0.1*rng.NormFloat64()) }), nil)
		if r := review.Run(in); r.Headroom[0].Weekly > 0 {
			alarms++
		}
	}
	if alarms > 24 { // 2.5 % are to be expected
		t.Errorf("%d of 400 are taken for growth", alarms)
	}
}

func TestAByHandReviewDoesNotHideWhatGrew(t *testing.T) {
	in := statement(2, 4, nil)
	first := review.Run(in)
	again := in
	again.Now, again.Last = noon.Add(time.Hour), &first
	second := review.Run(again)
	if len(first.Findings) != 1 || len(second.Findings) != 1 || !second.Baseline.At.Equal(noon.Add(-7*day)) {
		t.Errorf("%+v\n%+v", first.Findings, second.Findings)
	}
	again.Now, again.Last = noon.Add(8*day), &second
	if third := review.Run(again); len(third.Findings) != 0 {
		t.Errorf("a week later it is compared with what was the first time: %+v", third.Findings)
	}
}

// facts are those of one window: a statement with its plan, a table, an index and a pool.
func facts(window int, calls, total, used float64, plan string) evidence.Facts {
	const text = "select * from orders where id = $1"
	from := noon.Add(time.Duration(window) * time.Minute)
	return evidence.Facts{
		From: from, To: from.Add(time.Minute),
		Postgres: []evidence.PostgresFacts{{
			Name: "shop", Top: []evidence.StatementStat{{QueryID: 7, Text: text, Calls: calls, TotalMS: total}},
			Asked:   []evidence.PostgresStatement{{Text: "select * from orders where id = 5", Plan: &evidence.Plan{Root: &evidence.Node{Type: plan, Relation: "orders"}}}},
			Tables:  []evidence.Table{{Schema: "public", Name: "orders", Live: 1000 + float64(window), Bytes: 5}},
			Indexes: &evidence.PostgresIndexes{Count: window},
		}},
		Services: []evidence.ServiceFacts{
			{Service: "cart", Instance: "a", Pools: []evidence.PoolStats{{Name: "main", Max: 10, Used: used}}},
			{Service: "cart", Instance: "b", Pools: []evidence.PoolStats{{Name: "main", Max: 10, Used: 10, Pending: 2, Timeouts: 1}}},
		},
	}
}

func TestASurveyReachesBackOneToTwoPeriods(t *testing.T) {
	s := review.NewSurvey()
	s.Observe(facts(0, 10, 100, 3, "Seq Scan"))
	s.Observe(facts(0, 10, 100, 3, "Seq Scan")) // the same window
	s.Observe(facts(1, 30, 200, 7, "Index Scan"))
	got := s.Systems()
	d, p := got.Databases[0], got.Pools[0]
	if len(got.Databases) != 1 || len(d.Statements) != 1 || d.Statements[0].Calls != 40 || d.Statements[0].MeanMS() != 7.5 || d.Statements[0].Plan != "Index Scan orders" {
		t.Errorf("%+v", d)
	}
	if d.Tables[0].Name != "public.orders" || d.Tables[0].Rows != 1001 || d.Indexes.Count != 1 || !got.Since.Equal(noon) {
		t.Errorf("%+v", d)
	}
	if len(got.Pools) != 1 || p.Windows != 4 || p.Exhausted != 2 || p.Used != 10 || p.Timeouts != 2 {
		t.Errorf("%+v", got.Pools)
	}
	s.Turn()
	s.Observe(facts(2, 60, 300, 5, "Seq Scan"))
	if got = s.Systems(); got.Databases[0].Statements[0].Calls != 100 || got.Databases[0].Statements[0].Plan != "Seq Scan orders" || got.Pools[0].Windows != 6 || !got.Since.Equal(noon) {
		t.Errorf("the period before no longer counts: %+v", got)
	}
	s.Turn()
	if got = s.Systems(); got.Databases[0].Statements[0].Calls != 60 || got.Pools[0].Windows != 2 {
		t.Errorf("two periods back still count: %+v", got)
	}
	s.Turn()
	if got = s.Systems(); len(got.Databases)+len(got.Pools) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestASurveyIsBounded(t *testing.T) {
	s := review.NewSurvey()
	for w := range 60 {
		f := facts(w, 1, 1, 1, "Seq Scan")
		for i := range 50 {
			f.Postgres[0].Top = append(f.Postgres[0].Top, evidence.StatementStat{Text: fmt.Sprintf("select t%d_%d from x", w, i), Calls: 1, TotalMS: float64(i)})
			f.Postgres = append(f.Postgres, evidence.PostgresFacts{Name: fmt.Sprint(w, i)})
			f.Services = append(f.Services, evidence.ServiceFacts{Service: fmt.Sprint(w, i), Pools: []evidence.PoolStats{{Name: "main"}}})
		}
		s.Observe(f)
	}
	got := s.Systems()
	if len(got.Databases) != evidence.MaxStores || len(got.Pools) != 1000 {
		t.Errorf("%d databases, %d pools", len(got.Databases), len(got.Pools))
	}
	for _, d := range got.Databases {
		if d.Name == "shop" && (len(d.Statements) != evidence.MaxStatements || d.Statements[0].TotalMS < 49) {
			t.Errorf("%d statements, the dearest %v", len(d.Statements), d.Statements[0])
		}
	}
}

func TestACalendarKeepsTheBusiestMinuteOfEachDay(t *testing.T) {
	c := review.NewCalendar()
	calls := uint64(0)
	for i := range 3 * 24 * 60 * 6 { // ten seconds each
		now := noon.Truncate(day).Add(time.Duration(i) * 10 * time.Second)
		if i%(24*60*6) == 100 {
			calls += 6000 // in one burst
		}
		calls += 10
		c.Observe(now, "orders", calls)
	}
	days := c.Days()["orders"]
	if len(days) != 3 || !days[0].At.Equal(noon.Truncate(day)) || days[1].Peak < 100 || days[1].Peak > 102 {
		t.Fatalf("%+v", days)
	}
	again := review.NewCalendar()
	again.Restore(c.Days())
	start := noon.Truncate(day).Add(3 * day)
	again.Observe(start, "orders", 5) // the process began anew
	again.Observe(start.Add(time.Minute), "orders", 605)
	if days = again.Days()["orders"]; len(days) != 4 || days[3].Peak != 10 {
		t.Errorf("%+v", days)
	}
	for i := range 200 {
		at := start.Add(time.Duration(i) * day)
		again.Observe(at, "orders", 1000)
		again.Observe(at.Add(time.Minute), "orders", 1000)
	}
	for i := range 2000 {
		again.Observe(start, fmt.Sprint(i), 1)
		again.Observe(start.Add(time.Minute), fmt.Sprint(i), 1)
	}
	if all := again.Days(); len(all) != 500 || len(all["orders"]) != 90 {
		t.Errorf("%d routes, %d days", len(all), len(all["orders"]))
	}
}

func TestPricesTurnUseIntoMoney(t *testing.T) {
	in := busy(func(r *review.Route) { r.Did.CPU, r.Did.Bytes = 5000*time.Second, 5<<30 })
	in.Config.Prices = review.Prices{Currency: "EUR", CPUHour: 0.036, GiB: 0.1, ReplicaHour: 0.05}
	in.Replicas = []scale.Recommendation{{Name: "shop", Ready: 5, Desired: 3, Active: true, Reason: "12 calls/s"}}
	r := review.Run(in)
	if c := r.Figures.Costs[0]; c.Attempts != 1000 || c.CPU != 1000*time.Second || c.Money < 0.109 || c.Money > 0.111 {
		t.Errorf("%+v", c)
	}
	if f := r.Findings[len(r.Findings)-1]; !slices.ContainsFunc(r.Findings, func(f review.Finding) bool {
		return f.Code == "LP317" && strings.HasSuffix(f.Detail, "the others cost 73.05 EUR a month")
	}) {
		t.Errorf("%+v", f)
	}
}
