package evidence

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// explained is a JSON plan around nodes.
func explained(t *testing.T, node string) *Plan {
	t.Helper()
	p, err := ReadPlan([]byte(`[{"Plan":` + node + `}]`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIndexesComeFromConditions(t *testing.T) {
	scan := func(filter string) string {
		return `{"Node Type":"Seq Scan","Schema":"public","Relation Name":"orders","Alias":"o","Total Cost":1000,"Plan Rows":10,"Filter":"` + filter + `"}`
	}
	for _, c := range []struct{ name, plan, want string }{
		{"equality", scan("(o.customer_id = 42)"), "customer_id"},
		{"equality before range", scan("((o.created_at > '2020-01-01'::date) AND (o.customer_id = $1))"), "customer_id, created_at"},
		{"one range only", scan("((o.a > 1) AND (o.b < 2))"), "a"},
		{"casts", scan("((o.status)::text = 'new'::text)"), "status"},
		{"lists", scan("(o.id = ANY ('{1,2}'::integer[]))"), "id"},
		{"null", scan("(o.gone IS NULL)"), "gone"},
		{"value first", scan("(5 = o.a)"), "a"},
		{"quoted", scan(`(o.\"Odd Name\" = 1)`), `"Odd Name"`},
		{"function", scan("(lower((o.email)::text) = 'x'::text)"), "(lower((email)::text))"},
		{"or", scan("((o.a = 1) OR (o.b = 2))"), ""},
		{"not equal", scan("(o.a <> 1)"), ""},
		{"pattern", scan("(o.a ~~ '%x%'::text)"), ""},
		{"columns of one table", scan("(o.a = o.b)"), ""},
		{"none", scan(""), ""},
		{"join", `{"Node Type":"Hash Join","Total Cost":5000,"Hash Cond":"(i.order_id = o.id)","Plans":[
			{"Node Type":"Seq Scan","Schema":"public","Relation Name":"items","Alias":"i","Total Cost":4000},
			{"Node Type":"Hash","Total Cost":10,"Plans":[{"Node Type":"Index Scan","Relation Name":"orders","Alias":"o","Total Cost":10}]}]}`, "order_id"},
		{
			"sort", `{"Node Type":"Limit","Total Cost":1100,"Plans":[{"Node Type":"Sort","Sort Key":["o.created_at DESC","o.id"],"Total Cost":1100,"Plans":[` + scan("(o.customer_id = 1)") + `]}]}`,
			"customer_id; customer_id, created_at DESC, id",
		},
		{"sort of an expression", `{"Node Type":"Sort","Sort Key":["(lower(o.a))"],"Total Cost":1100,"Plans":[` + scan("") + `]}`, ""},
	} {
		var got []string
		for _, x := range explained(t, c.plan).IndexCandidates() {
			got = append(got, strings.Join(x.Columns, ", "))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
	p, err := ReadPlan(read(t, corpus(t, "pev2-samples/three-joins-missing-an-index.plan", 1)[0]))
	if err != nil {
		t.Fatal(err)
	}
	if c := p.IndexCandidates(); len(c) == 0 || len(c) > maxCandidates {
		t.Errorf("the sample without an index: %+v", c)
	} else {
		t.Logf("%s, because of %s", c[0].SQL(), c[0].Why)
	}
}

func TestNamesAreQuotedWhereTheyMust(t *testing.T) {
	for _, c := range []struct {
		x    IndexCandidate
		want string
	}{
		{IndexCandidate{Schema: "public", Table: "orders", Columns: []string{"a", "b DESC"}}, "CREATE INDEX CONCURRENTLY ON public.orders (a, b DESC)"},
		{IndexCandidate{Schema: "My Schema", Table: `a"b`, Columns: []string{"a"}}, `CREATE INDEX CONCURRENTLY ON "My Schema"."a""b" (a)`},
		{IndexCandidate{Schema: "s", Table: "order", Columns: []string{"a"}}, `CREATE INDEX CONCURRENTLY ON s."order" (a)`},
		{IndexCandidate{Schema: "s", Table: "x); drop table y; --", Columns: []string{"a"}}, `CREATE INDEX CONCURRENTLY ON s."x); drop table y; --" (a)`},
		{IndexCandidate{Table: "public.orders", Columns: []string{"a"}}, "CREATE INDEX CONCURRENTLY ON public.orders (a)"},
	} {
		if got := c.x.SQL(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestAScanInALoopCostsEachRound(t *testing.T) {
	p := explained(t, `{"Node Type":"Nested Loop","Total Cost":100000,"Plans":[
		{"Node Type":"Index Scan","Relation Name":"a","Plan Rows":900,"Total Cost":10},
		{"Node Type":"Seq Scan","Relation Name":"b","Plan Rows":1,"Total Cost":100}]}`)
	if s := p.SeqScans(); s[0].Runs != 900 || s[0].Share != 0.9 {
		t.Errorf("%+v", s)
	}
	kept := explained(t, `{"Node Type":"Nested Loop","Total Cost":1000,"Plans":[{"Node Type":"Index Scan","Plan Rows":900},
		{"Node Type":"Materialize","Plans":[{"Node Type":"Seq Scan","Relation Name":"b","Total Cost":100}]}]}`)
	if s := kept.SeqScans(); s[0].Runs != 1 || s[0].Share != 0.1 {
		t.Errorf("%+v", s)
	}
}

func TestLockChains(t *testing.T) {
	b := func(pid int, by ...int) Backend {
		return Backend{PID: pid, BlockedBy: by, QueryAge: time.Duration(pid) * time.Second}
	}
	for _, c := range []struct {
		name string
		in   []Backend
		want string
	}{
		{"nobody waits", []Backend{b(1), b(2)}, ""},
		{"a chain", []Backend{b(1), b(2, 1), b(3, 2), b(4, 3)}, "1: 2@1 3@2 4@3 4s"},
		{"a crowd", []Backend{b(1), b(2, 1), b(3, 1, 2), b(9)}, "1: 2@1 3@1 3s"},
		{"two roots", []Backend{b(1), b(2), b(3, 1, 2), b(4, 2)}, "2: 3@1 4@1 4s | 1: 3@1 3s"},
		{"the blocker is gone", []Backend{b(2, 1)}, "1: 2@1 2s"},
		{"a prepared transaction", []Backend{b(2, 0)}, "0: 2@1 2s"},
		{"a deadlock", []Backend{b(1, 2), b(2, 1), b(3, 2)}, "1 cycle: 2@1 3@2 3s"},
		{"a deadlock beside a chain", []Backend{b(1, 2), b(2, 1), b(5), b(6, 5), b(7, 6), b(8, 5)}, "5: 6@1 8@1 7@2 8s | 1 cycle: 2@1 2s"},
	} {
		var got []string
		for _, x := range LockChains(c.in) {
			s := fmt.Sprint(x.Root.PID)
			if x.Cycle {
				s += " cycle"
			}
			s += ":"
			for _, w := range x.Waiters {
				s += fmt.Sprintf(" %d@%d", w.PID, w.Depth)
			}
			got = append(got, s+" "+x.Longest.String())
		}
		if s := strings.Join(got, " | "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

// TestEveryWaiterIsInAChain, whoever waits for whom.
func TestEveryWaiterIsInAChain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		var in []Backend
		for pid := range n {
			in = append(in, Backend{PID: pid, BlockedBy: rapid.SliceOfNDistinct(rapid.IntRange(0, n), 0, 3, rapid.ID).Draw(t, "by")})
		}
		seen := map[int]bool{}
		for _, c := range LockChains(in) {
			seen[c.Root.PID] = true
			for _, w := range c.Waiters {
				seen[w.PID] = true
			}
		}
		for _, b := range in {
			if len(b.BlockedBy) > 0 && !seen[b.PID] {
				t.Fatalf("%d waits for %v and is in no chain", b.PID, b.BlockedBy)
			}
		}
	})
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestStatementsBetweenTwoLooks(t *testing.T) {
	before := Statements{At: noon, Reset: noon.Add(-time.Hour), List: []StatementStat{{QueryID: 1, Calls: 100, TotalMS: 1000, Rows: 100}, {QueryID: 2, Calls: 5, TotalMS: 50}, {QueryID: 3, Calls: 900, TotalMS: 9}}}
	after := Statements{At: noon.Add(time.Minute), Reset: before.Reset, List: []StatementStat{
		{QueryID: 1, Calls: 110, TotalMS: 1500, Rows: 200}, {QueryID: 2, Calls: 5, TotalMS: 50}, {QueryID: 3, Calls: 2, TotalMS: 4}, {QueryID: 4, Calls: 1, TotalMS: 700},
	}}
	list, span, fresh := StatementsBetween(before, after)
	if span != time.Minute || fresh || len(list) != 3 {
		t.Fatalf("%v %v %+v", span, fresh, list)
	}
	if s := list[0]; s.Calls != 10 || s.MeanMS() != 50 {
		t.Errorf("%+v", s)
	}
	if top := TopByTotal(list, 2); top[0].QueryID != 4 || top[1].QueryID != 1 {
		t.Errorf("by total %+v", top)
	}
	after.Reset = noon.Add(30 * time.Second)
	if list, span, fresh := StatementsBetween(before, after); !fresh || span != 30*time.Second || len(list) != 4 || list[0].Calls != 110 {
		t.Errorf("after a reset: %v %v %+v", span, fresh, list)
	}
	after.Reset, before.Cut = time.Time{}, true
	if list, _, _ := StatementsBetween(before, after); slices.ContainsFunc(list, func(s StatementStat) bool { return s.QueryID == 4 }) {
		t.Errorf("one that the first look may have missed: %+v", list)
	}
}

func TestNeedlessIndexes(t *testing.T) {
	x := func(name string, bytes int64, keys ...string) Index {
		return Index{Schema: "s", Table: "t", Name: name, Method: "btree", Keys: keys, Valid: true, Bytes: bytes}
	}
	unique := func(i Index) Index { i.Unique = true; return i }
	key := func(i Index) Index { i.Unique, i.Constraint = true, true; return i }
	where := func(i Index) Index { i.Predicate = "p"; return i }
	gin := func(i Index) Index { i.Method = "gin"; return i }
	for _, c := range []struct {
		name string
		in   []Index
		want string
	}{
		{"prefix", []Index{x("a", 1, "k"), x("b", 2, "k", "l")}, "a<b"},
		{"exact: the larger goes", []Index{x("a", 1, "k"), x("b", 2, "k")}, "b<a"},
		{"exact: the later goes", []Index{x("a", 1, "k"), x("b", 1, "k")}, "b<a"},
		{"three of one kind", []Index{x("a", 1, "k"), x("b", 1, "k"), x("c", 1, "k")}, "b<a c<a"},
		{"order matters", []Index{x("a", 1, "l"), x("b", 2, "k", "l")}, ""},
		{"a primary key stays", []Index{key(x("a", 1, "k")), x("b", 2, "k", "l")}, ""},
		{"and makes its double needless", []Index{key(x("a", 9, "k")), x("b", 1, "k")}, "b<a"},
		{"a unique index stays", []Index{unique(x("a", 1, "k")), x("b", 2, "k", "l")}, ""},
		{"partial", []Index{where(x("a", 1, "k")), x("b", 2, "k")}, ""},
		{"gin has no order", []Index{gin(x("a", 1, "k")), gin(x("b", 2, "k", "l"))}, ""},
	} {
		var got []string
		for _, d := range DuplicateIndexes(c.in) {
			got = append(got, d.Needless.Name+"<"+d.Covered.Name)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

func TestQueueWithoutWorkers(t *testing.T) {
	look := func(at time.Duration, c Consumer) QueueLook {
		c.Name = "c"
		return QueueLook{At: noon.Add(at), Streams: []Stream{{Name: "s", LastSeq: c.Pending + c.Delivered, Consumers: []Consumer{c}}}}
	}
	one := func(a, b Consumer) QueueStats { return QueueBetween(look(0, a), look(10*time.Second, b))[0] }
	if q := one(Consumer{Pending: 5}, Consumer{Pending: 25}); !q.NoWorkers || q.Arrival != 2 || q.Service != 0 || q.Known {
		t.Errorf("nobody works: %+v", q)
	}
	if q := one(Consumer{Pending: 100}, Consumer{Pending: 50, Delivered: 100, AckFloor: 100}); !q.Known || q.Utilisation != 0.5 || q.Drain != 10*time.Second || q.Wait != 5*time.Second {
		t.Errorf("it drains: %+v", q)
	}
	if q := one(Consumer{}, Consumer{Delivered: 100, AckFloor: 100, Waiting: 3}); q.Known || q.Utilisation != 0 || q.Service != 10 {
		t.Errorf("capacity does not show without a backlog: %+v", q)
	}
	if q := one(Consumer{Pending: 1}, Consumer{Pending: 1, AckPending: 10, Redelivered: 5}); !q.AckWaitNearly {
		t.Errorf("work that outlasts its time: %+v", q)
	}
}

const page = `# HELP go_goroutines x
go_goroutines 42
process_start_time_seconds 1.7e9
process_cpu_seconds_total %g
process_open_fds 900
process_max_fds 1000
process_resident_memory_bytes 9e8
go_gc_gomemlimit_bytes 1e9
go_gc_duration_seconds{quantile="0.5"} 1e-5
go_gc_duration_seconds_sum %g
go_gc_duration_seconds_count 5
go_cpu_classes_gc_total_cpu_seconds_total %g
go_cpu_classes_total_cpu_seconds_total %g
go_sched_latencies_seconds_bucket{le="0.0001"} %g
go_sched_latencies_seconds_bucket{le="0.01"} %g
go_sched_latencies_seconds_bucket{le="+Inf"} %g # {trace_id="x"} 0.5 1.5
container_cpu_cfs_periods_total{name="a\"},{\\"} %g
container_cpu_cfs_throttled_periods_total{name="a", } %g 1700000000000
node_pressure_cpu_waiting_seconds_total %g
nan NaN
# EOF
`

func TestARuntimeBetweenTwoLooks(t *testing.T) {
	look := func(at time.Duration, v ...any) RuntimeLook {
		s, err := ParseMetrics(fmt.Sprintf(page, v...))
		if err != nil {
			t.Fatal(err)
		}
		return RuntimeLook{At: noon.Add(at), Samples: s}
	}
	before := look(0, 10., 1., 2., 100., 900., 990., 1000., 50., 5., 3.)
	after := look(10*time.Second, 25., 1.5, 32., 200., 1300., 1980., 2000., 150., 80., 7.)
	s := RuntimeBetween(before, after)
	for name, c := range map[string]struct {
		got  *float64
		want float64
	}{
		"cpu": {s.CPU, 1.5}, "gc": {s.GC, 0.3}, "pause": {s.GCPause, 0.05}, "p50": {s.SchedP50, 0.01}, "p99": {s.SchedP99, 0.01}, "throttled": {s.Throttled, 0.75},
		"pressure": {s.CPUWait, 0.4}, "files": {s.Files, 0.9}, "memory": {s.Memory, 0.9}, "goroutines": {s.Goroutines, 42},
	} {
		if c.got == nil || math.Abs(*c.got-c.want) > 1e-9 {
			t.Errorf("%s is not %v: %v", name, c.want, c.got)
		}
	}
	if alone := RuntimeBetween(RuntimeLook{}, after); alone.CPU != nil || alone.SchedP99 != nil || alone.Files == nil || alone.Span != 0 {
		t.Errorf("one look: %+v", alone)
	}
	after.Samples = slices.Clone(after.Samples)
	for i := range after.Samples {
		if after.Samples[i].Name == "process_start_time_seconds" {
			after.Samples[i].Value++
		}
	}
	if s := RuntimeBetween(before, after); !s.Restarted || s.CPU != nil {
		t.Errorf("a new process: %+v", s)
	}
	for _, bad := range []string{"x", "x{a=\"b\" 1", "x{a=b} 1", "x one", "{} 1", "x{", `x{a="\`} {
		if _, err := ParseMetrics("ok 1\n" + bad + "\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add(fmt.Sprintf(strings.ReplaceAll(page, "%g", "%v"), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
	f.Fuzz(func(t *testing.T, page string) {
		s, err := ParseMetrics(page)
		if err != nil {
			return
		}
		r := RuntimeBetween(RuntimeLook{At: noon, Samples: s}, RuntimeLook{At: noon.Add(time.Second), Samples: s})
		for v, i := reflect.ValueOf(r), 0; i < v.NumField(); i++ {
			if p, ok := reflect.TypeAssert[*float64](v.Field(i)); ok && p != nil && math.IsNaN(*p) && !strings.Contains(strings.ToLower(page), "inf") {
				t.Errorf("%s is NaN", v.Type().Field(i).Name)
			}
		}
	})
}

func TestKeysLoseWhatTellsUsers(t *testing.T) {
	for in, want := range map[string]string{
		"user:1234:cart": "user:#:cart", "session:9f86d081884c7d659a2feaa0c55ad015": "session:#", "a1b22": "a#b#", "plain": "plain", "t:550e8400-e29b-41d4-a716-446655440000": "t:#e#-e#b-#d#-a#-#",
	} {
		if got := KeyShape(in); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}
