package evidence

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const plans = "../../../shared/corpora/pg-explain"

func corpus(t testing.TB, pattern string, least int) []string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(plans, pattern))
	if len(files) < least {
		t.Skipf("%d files of %s/%s are here, want %d", len(files), plans, pattern, least)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTextPlansReadAsTheirJSON holds the text reader to the pairs of pev2: each field that both the expectation and Node have.
func TestTextPlansReadAsTheirJSON(t *testing.T) {
	files := append(corpus(t, "pev2/from-text/*-plan", 47), corpus(t, "pev2/12-line-wrapped-plans/*-plan", 10)...)
	for _, file := range files {
		expect := strings.TrimSuffix(file, "plan") + "expect"
		t.Run(filepath.Base(file), func(t *testing.T) {
			got, err := ReadPlan(read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			var doc object
			d := json.NewDecoder(strings.NewReader(string(read(t, expect))))
			d.UseNumber()
			if err := d.Decode(&doc); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(read(t, expect)), `"Node Type"`) {
				t.Skip("no plan is expected")
			}
			want, err := planOf(doc)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "Plan", want.Root, got.Root)
			if want.PlanningMS != 0 && want.PlanningMS != got.PlanningMS || want.ExecutionMS != 0 && want.ExecutionMS != got.ExecutionMS {
				t.Errorf("times %v %v, want %v %v", got.PlanningMS, got.ExecutionMS, want.PlanningMS, want.ExecutionMS)
			}
			if want.QueryID != 0 && math.Abs(float64(want.QueryID-got.QueryID)) > 1000 { // JavaScript rounded it
				t.Errorf("query id %d, want %d", got.QueryID, want.QueryID)
			}
			if want.Settings != nil && !reflect.DeepEqual(want.Settings, got.Settings) {
				t.Errorf("settings %v, want %v", got.Settings, want.Settings)
			}
		})
	}
}

// same compares what want tells; pev2 leaves Join Type in the name of the node and the schema in that of the relation.
func same(t *testing.T, at string, want, got *Node) {
	t.Helper()
	w, g := reflect.ValueOf(*want), reflect.ValueOf(*got)
	for i := range w.NumField() {
		field := w.Type().Field(i).Name
		if field == "Children" || w.Field(i).IsZero() {
			continue
		}
		have, wanted := g.Field(i).Interface(), w.Field(i).Interface()
		if field == "Type" {
			wanted, have = titleOf(want), titleOf(got)
			if want.Join == "" && !strings.Contains(want.Type, got.Join) {
				have = got.Type
			}
		}
		if !reflect.DeepEqual(wanted, have) {
			t.Errorf("%s.%s = %v, want %v", at, field, have, wanted)
		}
	}
	if want.Children == nil {
		return
	}
	if len(want.Children) != len(got.Children) {
		t.Errorf("%s (%s) has %d children, want %d", at, got.Type, len(got.Children), len(want.Children))
		return
	}
	for i := range want.Children {
		same(t, fmt.Sprintf("%s.%d", at, i), want.Children[i], got.Children[i])
	}
}

// titleOf gives the words of a node's title, in the order of the text format.
func titleOf(n *Node) string {
	s := n.Type
	if n.Op != "" {
		s = n.Op
	}
	if n.Join != "" {
		s = strings.TrimSuffix(s, " Join") + " " + n.Join + " Join"
	}
	for _, p := range []string{"Parallel ", "Async ", "Partial ", "Finalize "} {
		s = strings.TrimPrefix(s, p)
	}
	before, after, ok := strings.Cut(s, "Subquery Scan ")
	if ok && before == "" && after != "" {
		s = "Subquery Scan"
	}
	return strings.ReplaceAll(s, "Nested Loop Join", "Nested Loop")
}

// TestPlansReadInEveryFrame: the frame of a client changes nothing of the plan in it.
func TestPlansReadInEveryFrame(t *testing.T) {
	for _, kind := range []string{"json", "text"} {
		var first *Plan
		for _, file := range corpus(t, "pev2/11-psql-frames/"+kind+"-*.plan", 10) {
			if strings.Contains(file, "dbeaver") {
				continue // another plan
			}
			p, err := ReadPlan(read(t, file))
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if first == nil {
				first = p
			}
			if a, b := shape(first), shape(p); a != b {
				t.Errorf("%s reads as\n%s\nwant\n%s", file, b, a)
			}
		}
	}
}

func shape(p *Plan) string {
	var b strings.Builder
	for n, parent := range p.All() {
		fmt.Fprintln(&b, n.Type, n.Relation, n.Index, n.TotalCost, n.Rows, n.ActualRows, n.Loops, n.Filter, n.HashCond, n.IndexCond, parent != nil)
	}
	return b.String()
}

// TestSamplePlansAreWhole: each real plan gives a node for each line that has costs.
func TestSamplePlansAreWhole(t *testing.T) {
	files := slices.Concat(corpus(t, "pev2-samples/*.plan", 12), corpus(t, "pev2/cte-exclusive-time/*.plan", 5),
		corpus(t, "pev2/21-io-timings/*.plan", 12), corpus(t, "pev2/11-psql-frames/text-3-dbeaver.plan", 1))
	for _, file := range files {
		data := string(read(t, file))
		want := strings.Count(data, "(cost=")
		if want == 0 {
			want = strings.Count(data, `"Node Type"`) + strings.Count(data, "(actual ")
		}
		p, err := ReadPlan([]byte(data))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		got := 0
		for n := range p.All() {
			got++
			if n.Type == "" || strings.ContainsAny(n.Type, "(:>") {
				t.Errorf("%s: node type %q", file, n.Type)
			}
		}
		if got != want {
			t.Errorf("%s: %d nodes, want %d", file, got, want)
		}
	}
}

func TestADeleteShowsItsTriggers(t *testing.T) {
	p, err := ReadPlan(read(t, corpus(t, "pev2-samples/delete-with-triggers.plan", 1)[0]))
	if err != nil {
		t.Fatal(err)
	}
	worst := slices.MaxFunc(p.Triggers, func(a, b Trigger) int { return int(a.MS - b.MS) })
	if worst.MS < 150_000 || worst.MS > 165_000 || !strings.Contains(worst.Name, "constraint") {
		t.Errorf("worst trigger %+v of %d, want the foreign key that took 159 s", worst, len(p.Triggers))
	}
}

func TestPlansAreBounded(t *testing.T) {
	deep := strings.Repeat(`{"Plan":{"Node Type":"Limit","Plans":[`, 1)
	for range maxPlanDepth + 5 {
		deep += `{"Node Type":"Limit","Plans":[`
	}
	deep += strings.Repeat("]}", maxPlanDepth+6) + "}"
	wide := "Append  (cost=0.00..1.00 rows=1 width=1)\n" + strings.Repeat("  ->  Seq Scan on t  (cost=0.00..1.00 rows=1 width=1)\n", maxPlanNodes)
	for name, data := range map[string]string{"deep": deep, "wide": wide, "long": strings.Repeat(" ", MaxPlan+1), "empty": "", "prose": "hello (cost of life)", "json": `{"a":1}`, "list": `[]`, "cut": `[{"Plan":`} {
		if _, err := ReadPlan([]byte(data)); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

func FuzzReadPlan(f *testing.F) {
	for _, pattern := range []string{"pev2/from-text/*-plan", "pev2/12-line-wrapped-plans/*-plan", "pev2/11-psql-frames/*", "pev2-samples/*.plan"} {
		files, _ := filepath.Glob(filepath.Join(plans, pattern))
		for _, file := range files {
			if data := read(f, file); len(data) < 4000 {
				f.Add(data)
			}
		}
	}
	f.Add([]byte(`[{"Plan":{"Node Type":"Seq Scan","Relation Name":"t","Filter":"(a = 1)","Plan Rows":1e400,"Plans":[{}]}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ReadPlan(data)
		if err != nil {
			return
		}
		n := 0
		for node := range p.All() {
			n++
			if math.IsNaN(node.Rows) || math.IsInf(node.TotalCost, 0) {
				t.Fatalf("a figure that is none: %+v", node)
			}
		}
		if n == 0 || n > maxPlanNodes {
			t.Fatalf("%d nodes", n)
		}
	})
}
