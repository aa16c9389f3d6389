package evidence

import (
	"fmt"
	"slices"
	"strings"
)

// SeqScan is a table that a plan reads from end to end.
type SeqScan struct {
	Schema   string  `json:"schema,omitempty"`
	Relation string  `json:"relation"`
	Alias    string  `json:"alias,omitempty"`
	Filter   string  `json:"filter,omitempty"`
	Rows     float64 `json:"rows"`  // estimated to come out of one run
	Runs     float64 `json:"runs"`  // estimated: more than 1 on the inner side of a nested loop
	Cost     float64 `json:"cost"`  // of all runs
	Share    float64 `json:"share"` // of the plan's cost, 0..1
}

// SeqScans lists the sequential scans of p, dearest first.
func (p *Plan) SeqScans() []SeqScan {
	var out []SeqScan
	runs := p.runs()
	for n := range p.All() {
		if n.Type != "Seq Scan" {
			continue
		}
		s := SeqScan{Schema: n.Schema, Relation: n.Relation, Alias: n.Alias, Filter: n.Filter, Rows: n.Rows, Runs: runs[n], Cost: n.TotalCost * runs[n]}
		if p.Root.TotalCost > 0 {
			s.Share = min(1, s.Cost/p.Root.TotalCost)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b SeqScan) int { return compare(b.Cost, a.Cost) })
	return out
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// runs estimates how often each node runs: the inner side of a nested loop once for each row of the outer, unless it is kept.
func (p *Plan) runs() map[*Node]float64 {
	runs := map[*Node]float64{}
	for n, parent := range p.All() {
		runs[n] = 1
		if parent == nil {
			continue
		}
		r := runs[parent]
		switch {
		case parent.Type == "Nested Loop" && len(parent.Children) > 1 && n == parent.Children[1] && n.Type != "Materialize" && n.Type != "Memoize":
			r *= max(1, parent.Children[0].Rows)
		case n.Parent == "InitPlan":
			r = 1
		}
		runs[n] = min(r, 1e12)
	}
	return runs
}

// Factor is how far two numbers of rows are apart: the larger by the smaller, each taken as at least 1.
func Factor(a, b float64) float64 {
	a, b = max(a, 1), max(b, 1)
	return max(a/b, b/a)
}

// Result is how many rows the planner expects the statement to give or change.
func (p *Plan) Result() float64 {
	if n := p.Root; n != nil && n.Type == "ModifyTable" && n.Rows == 0 && len(n.Children) > 0 {
		return n.Children[0].Rows
	} else if n != nil {
		return n.Rows
	}
	return 0
}

// IndexCandidate is an index that a plan could use, drawn from its conditions; whether the planner would is told by the costs,
// where it could be asked.
type IndexCandidate struct {
	Schema  string   `json:"schema,omitempty"`
	Table   string   `json:"table"`
	Columns []string `json:"columns"` // in order; quoted where SQL needs it; an expression in parentheses
	Why     string   `json:"why"`

	Tested     bool    `json:"tested"`                // by hypopg; only then are the figures below told
	CostBefore float64 `json:"cost_before,omitempty"` // of the statement, in the planner's units
	CostAfter  float64 `json:"cost_after,omitempty"`
	Used       bool    `json:"used,omitempty"` // the plan would use it
	Bytes      int64   `json:"bytes,omitempty"`
	Refused    string  `json:"refused,omitempty"` // why the server did not take it
}

// Gain is the part of the planner's cost that the index would save, 0..1; a cost is no time.
func (c IndexCandidate) Gain() float64 {
	if !c.Used || c.CostBefore <= 0 {
		return 0
	}
	return max(0, 1-c.CostAfter/c.CostBefore)
}

// Definition is the index without its verb: "ON public.orders (customer_id)".
func (c IndexCandidate) Definition() string {
	table := identifier(c.Table, c.Schema != "")
	if c.Schema != "" {
		table = identifier(c.Schema, true) + "." + table
	}
	return fmt.Sprintf("ON %s (%s)", table, strings.Join(c.Columns, ", "))
}

// SQL is the statement that makes the index without stopping writers.
func (c IndexCandidate) SQL() string { return "CREATE INDEX CONCURRENTLY " + c.Definition() }

// identifier quotes s unless it needs none; bare text plans have names quoted already, and the schema in front.
func identifier(s string, raw bool) string {
	plain := s != "" && (s[0] < '0' || s[0] > '9')
	for _, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') && (raw || r != '.') {
			plain = false
		}
	}
	if plain && !reserved[s] || !raw && strings.Contains(s, `"`) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

var reserved = words(`all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create current_date current_role
current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign from grant group having in initially
intersect into lateral leading limit localtime localtimestamp not null offset on only or order placing primary references returning select session_user some
symmetric table then to trailing true union unique user using variadic when where window with`)

func words(s string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

// The bounds of what is proposed.
const (
	maxEqual      = 3 // columns with equality in one index
	maxCandidates = 8 // indexes for one plan
)

// IndexCandidates proposes indexes for the sequential scans of p, those of the dearest scan first: columns compared with =, then one
// with a range or those of a sort; and join columns. At most eight. The plan must be VERBOSE for its columns to say their tables
// (that of one table alone need not). Conditions joined by OR and those without a column are passed over.
func (p *Plan) IndexCandidates() []IndexCandidate {
	var out []IndexCandidate
	for _, s := range p.SeqScans() {
		for _, c := range p.candidates(s) {
			same := func(o IndexCandidate) bool { return o.Definition() == c.Definition() }
			if len(out) < maxCandidates && len(c.Columns) > 0 && !slices.ContainsFunc(out, same) {
				out = append(out, c)
			}
		}
	}
	return out
}

func (p *Plan) candidates(s SeqScan) []IndexCandidate {
	alias := s.Alias
	if alias == "" {
		alias = s.Relation
	}
	var equal, ranges, joined, sorted []string
	for _, c := range conditions(s.Filter) {
		if c.own(alias) && !slices.Contains(equal, c.column) {
			if c.equal {
				equal = append(equal, c.column)
			} else if !slices.Contains(ranges, c.column) {
				ranges = append(ranges, c.column)
			}
		}
	}
	for n := range p.All() {
		for _, text := range []string{n.HashCond, n.MergeCond, n.JoinFilter} {
			for _, c := range conditions(text) {
				if col, ok := c.side(alias); ok && c.equal && !slices.Contains(joined, col) {
					joined = append(joined, col)
				}
			}
		}
		if keys, ok := sortColumns(n, alias); ok && sorted == nil {
			sorted = keys
		}
	}
	equal = equal[:min(len(equal), maxEqual)]
	of := func(why string, parts ...[]string) IndexCandidate {
		return IndexCandidate{Schema: s.Schema, Table: s.Relation, Columns: distinct(slices.Concat(parts...)), Why: why}
	}
	var out []IndexCandidate
	if len(equal) > 0 || len(ranges) > 0 {
		out = append(out, of("the scan's filter: "+s.Filter, equal, ranges[:min(1, len(ranges))]))
	}
	if len(joined) > 0 {
		out = append(out, of("the join: "+strings.Join(joined, ", "), joined[:1]))
		if len(equal) > 0 {
			out = append(out, of("the join and the scan's filter", joined[:1], equal))
		}
	}
	if len(sorted) > 0 && len(sorted) <= maxEqual {
		out = append(out, of("the order of the result", equal, sorted))
	}
	return out
}

func distinct(in []string) []string {
	var out []string
	for _, s := range in {
		bare, _, _ := strings.Cut(s, " ")
		if !slices.ContainsFunc(out, func(o string) bool { b, _, _ := strings.Cut(o, " "); return b == bare }) {
			out = append(out, s)
		}
	}
	return out
}

// sortColumns are the keys of a Sort when each is a column of alias.
func sortColumns(n *Node, alias string) ([]string, bool) {
	if !strings.HasSuffix(n.Type, "Sort") || len(n.SortKey) == 0 {
		return nil, false
	}
	var out []string
	for _, key := range n.SortKey {
		tokens, ok := scan(key)
		suffix := ""
		for i, t := range tokens {
			if t.kind == word && (t.text == "desc" || t.text == "nulls" || t.text == "collate" || t.text == "using") {
				if t.text != "desc" || len(tokens) != i+1 {
					return nil, false
				}
				suffix, tokens = " DESC", tokens[:i]
				break
			}
		}
		of, col, isColumn := column(tokens)
		if !ok || !isColumn || of != "" && of != alias {
			return nil, false
		}
		out = append(out, col+suffix)
	}
	return out, true
}
