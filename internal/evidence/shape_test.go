package evidence_test

import (
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/evidence"
)

func scan(kind, relation, index string) *evidence.Node {
	return &evidence.Node{Type: kind, Relation: relation, Index: index, TotalCost: 12, Rows: 34, Filter: "x = 5"}
}

func TestAShapeIsTheWayToTheRows(t *testing.T) {
	plan := func(n *evidence.Node) *evidence.Plan { return &evidence.Plan{Root: n} }
	over := func(kind string, under ...*evidence.Node) *evidence.Node {
		return &evidence.Node{Type: kind, Children: under}
	}
	for want, p := range map[string]*evidence.Plan{
		"":                nil,
		"Seq Scan orders": plan(scan("Seq Scan", "orders", "")),
		"Hash Join(Seq Scan orders, Hash(Index Scan users users_pkey))": plan(over("Hash Join", scan("Seq Scan", "orders", ""), over("Hash", scan("Index Scan", "users", "users_pkey")))),
		"Append(Seq Scan events_#_#, Index Scan events_# events_#_day)": plan(over("Append", scan("Seq Scan", "events_2025_01", ""), scan("Seq Scan", "events_2025_02", ""), scan("Index Scan", "events_3", "events_3_day"))),
		"Nested Loop(Seq Scan a, Seq Scan a)":                           plan(over("Nested Loop", scan("Seq Scan", "a", ""), scan("Seq Scan", "a", ""))),
	} {
		if got := p.Shape(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	other := scan("Seq Scan", "orders", "")
	other.TotalCost, other.Rows, other.Filter = 99999, 1e6, "x = 6"
	if plan(other).Shape() != "Seq Scan orders" {
		t.Error("a shape depends on costs or values")
	}
}

func TestALongShapeIsBoundedAndStillTellsPlansApart(t *testing.T) {
	deep := func(last string) string {
		n := scan("Seq Scan", last, "")
		for range 100 {
			n = &evidence.Node{Type: "Nested Loop", Children: []*evidence.Node{n}}
		}
		return (&evidence.Plan{Root: n}).Shape()
	}
	if a, b := deep("orders"), deep("users"); a == b || len(a) > 400 || !strings.HasPrefix(a, "Nested Loop(") {
		t.Errorf("%d bytes: %q %q", len(a), a, b)
	}
}
