package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// The bounds of a plan.
const (
	MaxPlan      = 8 << 20 // bytes of its text
	maxPlanNodes = 20_000
	maxPlanDepth = 500
)

// ErrPlan is wrapped by the errors of ReadPlan.
var ErrPlan = errors.New("evidence: not a plan")

// Plan is what EXPLAIN said.
type Plan struct {
	Root        *Node             `json:"root"`
	QueryID     int64             `json:"query_id,omitempty"` // of pg_stat_statements; 0 = not told
	PlanningMS  float64           `json:"planning_ms,omitempty"`
	ExecutionMS float64           `json:"execution_ms,omitempty"` // 0 = it was not executed
	Settings    map[string]string `json:"settings,omitempty"`     // those that are not the default
	Triggers    []Trigger         `json:"triggers,omitempty"`
}

// Trigger is what one trigger took in an executed statement; a foreign key without index shows here.
type Trigger struct {
	Name  string  `json:"name"` // with the constraint's and the relation's, as the plan says it
	MS    float64 `json:"ms"`
	Calls float64 `json:"calls"`
}

// Node is one step of a plan. Costs are the planner's units, times milliseconds, numbers of rows those of one loop. Figures that
// the plan does not tell are 0.
type Node struct {
	Type     string `json:"type"`                // "Seq Scan", "Hash Join", "HashAggregate"; without Parallel, Async, Partial and Finalize
	Join     string `json:"join,omitempty"`      // "Left", "Semi" …; "" = inner, or no join
	Schema   string `json:"schema,omitempty"`    // only when EXPLAIN was VERBOSE
	Relation string `json:"relation,omitempty"`  // as written in the plan, quotes included
	Alias    string `json:"alias,omitempty"`     // "" = the relation's name
	Index    string `json:"index,omitempty"`     // as written in the plan
	Backward bool   `json:"backward,omitempty"`  // the index is read from its end
	Parent   string `json:"parent,omitempty"`    // "InitPlan", "SubPlan", "Outer", "Inner" …
	Subplan  string `json:"subplan,omitempty"`   // "InitPlan 1", "CTE c"
	Op       string `json:"operation,omitempty"` // Insert, Update, Delete, Merge of a ModifyTable
	Parallel bool   `json:"parallel,omitempty"`

	StartupCost float64 `json:"startup_cost"`
	TotalCost   float64 `json:"total_cost"`
	Rows        float64 `json:"rows"` // estimated
	Width       float64 `json:"width"`

	Executed      bool    `json:"executed,omitempty"` // there are actual figures
	ActualStartup float64 `json:"actual_startup_ms,omitempty"`
	ActualTotal   float64 `json:"actual_total_ms,omitempty"`
	ActualRows    float64 `json:"actual_rows,omitempty"`
	Loops         float64 `json:"loops,omitempty"`

	IndexCond   string   `json:"index_cond,omitempty"`
	RecheckCond string   `json:"recheck_cond,omitempty"`
	TIDCond     string   `json:"tid_cond,omitempty"`
	Filter      string   `json:"filter,omitempty"`
	JoinFilter  string   `json:"join_filter,omitempty"`
	HashCond    string   `json:"hash_cond,omitempty"`
	MergeCond   string   `json:"merge_cond,omitempty"`
	SortKey     []string `json:"sort_key,omitempty"`
	GroupKey    []string `json:"group_key,omitempty"`

	Removed     float64 `json:"rows_removed_by_filter,omitempty"`
	SortMethod  string  `json:"sort_method,omitempty"`
	SortSpace   string  `json:"sort_space,omitempty"` // "Memory" or "Disk"
	SortKB      float64 `json:"sort_kb,omitempty"`
	Batches     float64 `json:"hash_batches,omitempty"` // more than 1: the hash did not fit in work_mem
	SharedHit   float64 `json:"shared_hit,omitempty"`   // blocks, with those of the nodes below, as all that follow
	SharedRead  float64 `json:"shared_read,omitempty"`
	TempRead    float64 `json:"temp_read,omitempty"`
	TempWritten float64 `json:"temp_written,omitempty"`
	ReadMS      float64 `json:"read_ms,omitempty"` // waiting for blocks; needs track_io_timing

	Children []*Node `json:"children,omitempty"`
}

// All walks the plan from the root down, with the parent of each node (nil for the root's).
func (p *Plan) All() iter.Seq2[*Node, *Node] {
	return func(yield func(n, parent *Node) bool) {
		type step struct{ n, parent *Node }
		if p.Root == nil {
			return
		}
		for todo := []step{{p.Root, nil}}; len(todo) > 0; {
			s := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if !yield(s.n, s.parent) {
				return
			}
			for _, c := range slices.Backward(s.n.Children) {
				todo = append(todo, step{c, s.n})
			}
		}
	}
}

// ReadPlan reads the output of EXPLAIN, as JSON or as text, bare or in the frame of a client (psql in all its styles, DBeaver,
// quotes around the lines, wrapped lines, what stood before and after). Bounds: MaxPlan bytes, 20,000 nodes, 500 levels. Errors
// wrap ErrPlan.
func ReadPlan(data []byte) (*Plan, error) {
	if len(data) > MaxPlan {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrPlan, MaxPlan)
	}
	lines := unframe(string(data))
	fromJSON, fault := readJSON(lines)
	if fromJSON != nil {
		return fromJSON, nil
	}
	p, err := readText(rejoin(lines))
	if err != nil && fault != nil {
		return nil, fault
	}
	return p, err
}

// readJSON reads the JSON value at the first line that begins like one; nil, nil when there is none.
func readJSON(lines []string) (*Plan, error) {
	for i, l := range lines {
		if l := strings.TrimSpace(l); l == "" || l != "[" && l != "{" && !strings.HasPrefix(l, "[{") && !strings.HasPrefix(l, "[ {") && l[0] != '{' && l != "[]" {
			continue
		}
		var doc any
		d := json.NewDecoder(strings.NewReader(strings.Join(lines[i:], "\n")))
		d.UseNumber()
		if err := d.Decode(&doc); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPlan, err)
		}
		if list, ok := doc.([]any); ok {
			if len(list) == 0 {
				return nil, fmt.Errorf("%w: an empty list", ErrPlan)
			}
			doc = list[0]
		}
		top, ok := doc.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%w: JSON without an object", ErrPlan)
		}
		return planOf(top)
	}
	return nil, nil
}

// object is one JSON object of a plan; absent and odd values read as zero.
type object map[string]any

func (o object) text(key string) string {
	s, _ := o[key].(string)
	return s
}

func (o object) num(key string) float64 {
	var s string
	switch v := o[key].(type) {
	case json.Number:
		s = v.String()
	case string:
		s = v
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f || f > 1e300 || f < -1e300 {
		return 0
	}
	return f
}

func (o object) texts(key string) []string {
	list, _ := o[key].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func planOf(top object) (*Plan, error) {
	root, ok := top["Plan"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: no \"Plan\" in it", ErrPlan)
	}
	p := &Plan{PlanningMS: top.num("Planning Time"), ExecutionMS: top.num("Execution Time")}
	if p.ExecutionMS == 0 {
		p.ExecutionMS = top.num("Total Runtime")
	}
	if n, ok := top["Query Identifier"].(json.Number); ok {
		p.QueryID, _ = n.Int64()
	}
	if settings, ok := top["Settings"].(map[string]any); ok {
		p.Settings = map[string]string{}
		for k := range settings {
			p.Settings[k] = object(settings).text(k)
		}
	}
	list, _ := top["Triggers"].([]any)
	for _, v := range list {
		if t, ok := v.(map[string]any); ok {
			p.Triggers = append(p.Triggers, triggerOf(t))
		}
	}
	left := maxPlanNodes
	var err error
	if p.Root, err = nodeOf(root, 0, &left); err != nil {
		return nil, err
	}
	return p, nil
}

func triggerOf(t object) Trigger {
	name := t.text("Trigger Name")
	if c := t.text("Constraint Name"); c != "" {
		name = "for constraint " + c
	}
	if r := t.text("Relation"); r != "" {
		name += " on " + r
	}
	return Trigger{name, t.num("Time"), t.num("Calls")}
}

// nodeOf reads a node and what is below; encoding/json bounds the depth it hands over, and maxPlanDepth ours.
func nodeOf(o object, depth int, left *int) (*Node, error) {
	if *left--; *left < 0 || depth > maxPlanDepth {
		return nil, fmt.Errorf("%w: more than %d nodes or %d levels", ErrPlan, maxPlanNodes, maxPlanDepth)
	}
	n := &Node{
		Type: o.text("Node Type"), Join: o.text("Join Type"), Schema: o.text("Schema"), Relation: o.text("Relation Name"), Alias: o.text("Alias"),
		Index: o.text("Index Name"), Backward: o.text("Scan Direction") == "Backward", Parent: o.text("Parent Relationship"), Subplan: o.text("Subplan Name"),
		Op: o.text("Operation"), Parallel: o["Parallel Aware"] == true,
		StartupCost: o.num("Startup Cost"), TotalCost: o.num("Total Cost"), Rows: o.num("Plan Rows"), Width: o.num("Plan Width"),
		Executed: o["Actual Loops"] != nil, ActualStartup: o.num("Actual Startup Time"), ActualTotal: o.num("Actual Total Time"),
		ActualRows: o.num("Actual Rows"), Loops: o.num("Actual Loops"),
		IndexCond: o.text("Index Cond"), RecheckCond: o.text("Recheck Cond"), TIDCond: o.text("TID Cond"), Filter: o.text("Filter"), JoinFilter: o.text("Join Filter"),
		HashCond: o.text("Hash Cond"), MergeCond: o.text("Merge Cond"), SortKey: o.texts("Sort Key"), GroupKey: o.texts("Group Key"),
		Removed: o.num("Rows Removed by Filter"), SortMethod: o.text("Sort Method"), SortSpace: o.text("Sort Space Type"), SortKB: o.num("Sort Space Used"),
		Batches: o.num("Hash Batches"), SharedHit: o.num("Shared Hit Blocks"), SharedRead: o.num("Shared Read Blocks"),
		TempRead: o.num("Temp Read Blocks"), TempWritten: o.num("Temp Written Blocks"), ReadMS: o.num("I/O Read Time") + o.num("Shared I/O Read Time"),
	}
	if n.Join == "Inner" {
		n.Join = ""
	}
	if n.Type == "Aggregate" {
		switch o.text("Strategy") {
		case "Hashed":
			n.Type = "HashAggregate"
		case "Sorted":
			n.Type = "GroupAggregate"
		case "Mixed":
			n.Type = "MixedAggregate"
		}
	}
	children, _ := o["Plans"].([]any)
	for _, c := range children {
		below, ok := c.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%w: a node that is no object", ErrPlan)
		}
		child, err := nodeOf(below, depth+1, left)
		if err != nil {
			return nil, err
		}
		n.Children = append(n.Children, child)
	}
	return n, nil
}
