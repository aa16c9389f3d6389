package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

const ordersQuery = "SELECT * FROM orders WHERE customer_id = $1"

// query is a request that runs a statement which takes took ms.
func query(took float64, text, more string) string {
	return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  orders 2ms %.3fms kind=client db.system.name=postgresql db.query.text=%q %s", took+5, took+2, text, more)
}

func slowQuery(long float64) func(d dice, i int) string {
	return func(d dice, i int) string {
		if i%20 == 7 {
			return query(d.near(long), ordersQuery, "")
		}
		return query(d.near(5), ordersQuery, "")
	}
}

func alwaysSlow(d dice, _ int) string { return query(d.near(120), ordersQuery, "") }

// brisk is slow by no limit, and half of the request.
func brisk(d dice, _ int) string { return query(d.near(20), ordersQuery, "") }

// asked is what a server says of a statement that takes mean ms.
func asked(mean float64, more evidence.PostgresStatement) evidence.Facts {
	more.Text = "SELECT * FROM orders WHERE customer_id = $1"
	more.Stats = []evidence.StatementStat{{QueryID: 42, Calls: 100, TotalMS: 100 * mean, Rows: 1000}}
	more.Matches = []evidence.Match{{QueryID: 42, By: "server", Confidence: 1}}
	return evidence.Facts{Postgres: []evidence.PostgresFacts{{Name: "orders-db", Asked: []evidence.PostgresStatement{more}}}}
}

func TestDatabase(t *testing.T) {
	scan := []evidence.SeqScan{{Schema: "public", Relation: "orders", Filter: "(customer_id = $1)", Share: 0.98, Cost: 9000}}
	index := []evidence.IndexCandidate{{Schema: "public", Table: "orders", Columns: []string{"customer_id"}, Tested: true, Used: true, CostBefore: 9000, CostAfter: 12}}
	checkClass(t, "LP109", "database", []classCase{
		{name: "now and then", text: slowQuery(250), service: "shop", variant: "slow_query", verdict: Likely, says: "SELECT * FROM orders"},
		{name: "near miss: a little longer at times, as on a busy machine", text: func(d dice, i int) string {
			if i%10 == 7 {
				return query(d.near(6), ordersQuery, "")
			}
			return query(d.near(1), ordersQuery, "")
		}},
		{name: "near miss: the machine stood still once", text: slowQuery(250), at: func(_ dice, i int) time.Duration {
			if i%20 == 7 {
				return time.Duration(i) * time.Millisecond
			}
			return time.Duration(i) * time.Second
		}},
		{name: "always", text: alwaysSlow, service: "shop", variant: "slow_query"},
		{name: "old names of attributes, no kind", text: func(d dice, _ int) string {
			return fmt.Sprintf("list 0ms 200ms service=shop\n  query 2ms %.3fms db.type=sql db.statement=%q", d.near(120), "SELECT * FROM a WHERE id = ?")
		}, service: "shop"},
		{
			name: "confirmed: an index is missing", text: alwaysSlow, service: "shop", variant: "missing_index", verdict: Confirmed, says: "ON public.orders (customer_id)",
			facts: asked(110, evidence.PostgresStatement{SeqScans: scan, Indexes: index}),
		},
		{
			name: "confirmed: the planner is wrong about the rows", text: alwaysSlow, service: "shop", variant: "bad_plan", verdict: Confirmed, says: "expects 1 rows",
			facts: asked(110, evidence.PostgresStatement{Rows: &evidence.RowEstimate{Estimated: 1, Observed: 5000, Factor: 5000}}),
		},
		{
			name: "confirmed: the server takes that long", text: alwaysSlow, service: "shop", variant: "slow_query", verdict: Confirmed, says: "takes 110.0 ms for it",
			facts: asked(110, evidence.PostgresStatement{}),
		},
		{
			name: "confirmed: an index is missing, though each call is short", text: brisk, service: "shop", variant: "missing_index", verdict: Confirmed,
			facts: asked(18, evidence.PostgresStatement{SeqScans: scan, Indexes: index}),
		},
		{
			name: "near miss: short calls that the server finds nothing wrong with", text: brisk,
			facts: asked(18, evidence.PostgresStatement{}),
		},
		{
			name: "found by its fingerprint among the dearest", text: alwaysSlow, service: "shop", verdict: Confirmed,
			facts: evidence.Facts{Postgres: []evidence.PostgresFacts{{Top: []evidence.StatementStat{{QueryID: 7, Text: "select * from orders where customer_id = $1", Calls: 10, TotalMS: 1100}}}}},
		},
		{
			name: "refuted: the server is done in no time", text: alwaysSlow, says: "LP105 unknown shop",
			facts: asked(0.4, evidence.PostgresStatement{}),
		},
		{name: "near miss: queries that vary as healthy ones do", text: func(d dice, _ int) string { return query(d.near(8), ordersQuery, "") }},
		{name: "near miss: slow at times, and no matter", text: func(d dice, i int) string {
			return fmt.Sprintf("list 0ms 900ms service=shop kind=server\n  orders 2ms %.3fms kind=client db.system.name=postgresql", d.near(5)+30*float64(i%20/19))
		}},
	})
}

// A machine that stands still at times fills the slow traces, and hides what all others spend most of their time with.
func TestAMissingIndexIsSeenThroughPausesOfOthers(t *testing.T) {
	c := classCase{text: func(d dice, i int) string {
		pause := 0.0
		if i%12 == 7 {
			pause = d.near(120)
		}
		took := d.near(20)
		return fmt.Sprintf("list 0ms %.3fms service=shop kind=server\n  orders 2ms %.3fms kind=client db.system.name=postgresql db.query.text=%q", took+5+pause, took+2, ordersQuery)
	}}
	scan := []evidence.SeqScan{{Relation: "orders", Share: 0.98}}
	index := []evidence.IndexCandidate{{Schema: "public", Table: "orders", Columns: []string{"customer_id"}, Tested: true, Used: true, CostBefore: 100, CostAfter: 5}}
	for mean, want := range map[float64]bool{18: true, 1: false} {
		facts := asked(mean, evidence.PostgresStatement{})
		if want {
			facts = asked(mean, evidence.PostgresStatement{SeqScans: scan, Indexes: index})
		}
		found := Run(c.traces(t), Options{Facts: facts}).Routes[0].Findings
		if got := slices.ContainsFunc(found, func(f Finding) bool {
			return f.Code == "LP109" && strings.Contains(f.Summary, "of the time of all traces")
		}); got != want {
			t.Errorf("a plan that reads all: %v, found: %v in %+v", want, got, found)
		}
	}
}

func TestMissingIndexIsInTheDetail(t *testing.T) {
	c := classCase{text: alwaysSlow, n: 50}
	scan := []evidence.SeqScan{{Relation: "orders", Share: 0.98}}
	index := []evidence.IndexCandidate{{Schema: "public", Table: "orders", Columns: []string{"customer_id"}, Tested: true, Used: true, CostBefore: 100, CostAfter: 5}}
	f := Run(c.traces(t), Options{Facts: asked(110, evidence.PostgresStatement{SeqScans: scan, Indexes: index})}).Routes[0].Findings[0]
	if f.Detail.Index != "CREATE INDEX CONCURRENTLY ON public.orders (customer_id)" || f.Detail.IndexGain != 0.95 || f.Detail.QueryID != 42 || f.Detail.Tables[0] != "orders" {
		t.Errorf("%+v", f.Detail)
	}
}

func TestATableOfABadPlanIsNamedOnce(t *testing.T) {
	var f Finding
	planEvidence(&f, &evidence.PostgresStatement{
		SeqScans: []evidence.SeqScan{{Relation: "zones", Share: 1}},
		Rows:     &evidence.RowEstimate{Estimated: 60_000, Observed: 2, Factor: 30_000},
		Tables:   []evidence.Table{{Name: "zones", Rows: 180_000, Live: 180_000, Changed: 162_000}, {Name: "cells", Rows: 100, Live: 100, Changed: 90}},
	})
	if f.Detail.Variant != "bad_plan" || !slices.Equal(f.Detail.Tables, []string{"zones", "cells"}) {
		t.Errorf("%s of %v", f.Detail.Variant, f.Detail.Tables)
	}
}

func TestAnIndexThatIsNotTrustedMeansABadPlanWhereStatisticsAreOld(t *testing.T) {
	for name, x := range map[string]struct {
		index   evidence.IndexCandidate
		changed float64
		want    string
	}{
		"old statistics, and the planner would not use it": {evidence.IndexCandidate{Table: "zones", Tested: true}, 162_000, "bad_plan"},
		"old statistics, and it would gain nothing":        {evidence.IndexCandidate{Table: "zones", Tested: true, Used: true, CostBefore: 9, CostAfter: 9}, 162_000, "bad_plan"},
		"new statistics":      {evidence.IndexCandidate{Table: "zones", Tested: true}, 100, ""},
		"an index of another": {evidence.IndexCandidate{Table: "cells", Tested: true}, 162_000, ""},
		"nobody was asked":    {evidence.IndexCandidate{Table: "zones", Refused: "no hypopg"}, 162_000, ""},
	} {
		var f Finding
		reason := planEvidence(&f, &evidence.PostgresStatement{
			SeqScans: []evidence.SeqScan{{Relation: "zones", Share: 1}}, Indexes: []evidence.IndexCandidate{x.index},
			Tables: []evidence.Table{{Name: "zones", Rows: 180_000, Live: 180_000, Changed: x.changed, Analyzed: time.Unix(1, 0)}},
		})
		if f.Detail.Variant != x.want || reason != (x.want != "") {
			t.Errorf("%s: %q, %t; want %q", name, f.Detail.Variant, reason, x.want)
		}
	}
}
