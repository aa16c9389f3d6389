package evidence

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func sampleFacts() Facts {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	healthy := Profile{Kind: "cpu", Unit: "nanoseconds", Since: 10 * time.Second, Stacks: []Stack{{[]string{"main", "work"}, 4e9, 400}, {[]string{"main", "sleep"}, 6e9, 600}}}
	suspect := Profile{Kind: "cpu", Unit: "nanoseconds", From: noon, To: noon.Add(10 * time.Second), Since: 10 * time.Second, Stacks: []Stack{{[]string{"main", "work"}, 9e9, 900}, {[]string{"main", "sleep"}, 1e9, 100}}}
	return Facts{
		From: noon, To: noon.Add(time.Minute),
		Postgres: []PostgresFacts{{
			Name: "db:5432/shop",
			Asked: []PostgresStatement{{
				Text: "select * from orders where customer_id = $1", Generic: true, Plan: &Plan{Root: &Node{Type: "Seq Scan", Relation: "orders", TotalCost: 9000, Rows: 10}},
				Matches: []Match{{7, "server", 1}}, Stats: []StatementStat{{QueryID: 7, Calls: 10, TotalMS: 1000, Rows: 50}},
				SeqScans: []SeqScan{{Relation: "orders", Share: 1}}, Rows: &RowEstimate{10, 5, 2}, Confidence: 1,
				Indexes: []IndexCandidate{
					{Table: "orders", Columns: []string{"a"}, Tested: true},
					{Table: "orders", Columns: []string{"b"}, Tested: true, Used: true, CostBefore: 100, CostAfter: 50},
					{Table: "orders", Columns: []string{"c"}, Tested: true, Used: true, CostBefore: 100, CostAfter: 5},
					{Table: "orders", Columns: []string{"d"}, Refused: "no"},
				},
			}},
			Top:      []StatementStat{{QueryID: 9, Text: "UPDATE stock SET n = n - $1 WHERE id = $2", Calls: 4, TotalMS: 400}},
			Sessions: &Sessions{Max: 100, Total: 5, ByState: map[string]int{"active": 5}},
			Chains:   []LockChain{{Root: Backend{PID: 3, Query: "LOCK stock"}, Waiters: []Waiter{{Backend{PID: 4, Query: "update stock set n = n - 1 where id = 5"}, 1}}, Longest: time.Second}},
		}},
		Services: []ServiceFacts{
			{Service: "shop", Instance: "pod-1", Profiles: []ProfileFacts{Summarise(suspect, &healthy, 0.01)}, Runtime: &RuntimeStats{CPU: new(3.0), Procs: new(4.0)}, Pools: []PoolStats{{Name: "orders", Max: 5, Used: 5, Pending: 1}}},
			{Service: "shop", Instance: "pod-2"},
		},
		Redis:  []RedisFacts{{Name: "cache", Stats: RedisStats{HitRatio: 0.9, Lookups: 10}}},
		Queues: []QueueStats{{Stream: "JOBS", Consumer: "workers", Arrival: 3, Service: 2, Utilisation: 1.5, Known: true}},
		Gaps:   []Gap{{"heap profile", "not asked for"}},
	}
}

func TestFactsSurviveJSON(t *testing.T) {
	want := sampleFacts()
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Facts
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var none Facts
	if data, err = json.Marshal(none); err != nil || json.Unmarshal(data, &got) != nil {
		t.Errorf("the zero value: %v", err)
	}
}

func TestFactsFindWhatConcernsASpan(t *testing.T) {
	f := sampleFacts()
	if s, server := f.Statement("SELECT * FROM orders  WHERE customer_id = 42"); s == nil || server.Name != "db:5432/shop" || s.Matches[0].QueryID != 7 {
		t.Errorf("a statement that was asked about: %+v", s)
	}
	if s, _ := f.Statement("update stock set n = n - 3 where id = 8"); s == nil || s.Plan != nil || s.Stats[0].QueryID != 9 {
		t.Errorf("a statement among the dearest: %+v", s)
	}
	for _, sql := range []string{"select 1 from nowhere", ""} {
		if s, _ := f.Statement(sql); s != nil {
			t.Errorf("%q: %+v", sql, s)
		}
	}
	if c := f.Blocked("UPDATE stock SET n = n - 9 WHERE id = 1"); c == nil || c.Root.PID != 3 {
		t.Errorf("a statement that waits: %+v", c)
	}
	if c := f.Blocked("SELECT 1"); c != nil {
		t.Errorf("a statement that does not wait: %+v", c)
	}
	if n := len(f.Of("shop", "")); n != 2 {
		t.Errorf("%d processes", n)
	}
	if list := f.Of("shop", "pod-2"); len(list) != 1 || list[0].Instance != "pod-2" {
		t.Errorf("one instance: %v", list)
	}
	if busy, ok := f.Services[0].Busy(); !ok || busy != 0.75 {
		t.Errorf("busy %v %v", busy, ok)
	}
	if _, ok := f.Services[1].Busy(); ok {
		t.Error("a process of which nothing is known")
	}
	if f.Cache("elsewhere") == nil || f.Queue("jobs") == nil || f.Queue("workers") == nil || f.Queue("") != nil || !f.Sessions() {
		t.Error("the only cache and the queue by both names")
	}
	if best, ok := f.Postgres[0].Asked[0].Index(); !ok || best.Columns[0] != "c" {
		t.Errorf("the best index: %+v", best)
	}
}

func TestSummariseKeepsTheDifference(t *testing.T) {
	p := sampleFacts().Services[0].Profile("cpu")
	if p == nil || p.Rate != 1e9 || p.Samples != 1000 || p.Top[0].Name != "work" || p.Flame.Value != 1e10 {
		t.Fatalf("%+v", p)
	}
	if p.Diff == nil || p.Diff.Changes[0].Name != "sleep" && p.Diff.Changes[0].Name != "work" || p.Diff.SuspectRate != 1e9 {
		t.Errorf("%+v", p.Diff)
	}
	if sampleFacts().Services[0].Profile("heap") != nil {
		t.Error("a profile that was not read")
	}
}

func TestBoundCutsAndCounts(t *testing.T) {
	f := Facts{Services: make([]ServiceFacts, MaxServices+3), Redis: make([]RedisFacts, MaxStores)}
	f.Services[0].Pools = make([]PoolStats, MaxPools+1)
	f.Postgres = []PostgresFacts{{Asked: make([]PostgresStatement, MaxStatements+1), Chains: make([]LockChain, MaxChains+2)}}
	f.Bound()
	if len(f.Services) != MaxServices || len(f.Services[0].Pools) != MaxPools || len(f.Postgres[0].Asked) != MaxStatements || len(f.Postgres[0].Chains) != MaxChains || f.Dropped != 7 {
		t.Errorf("%d services, dropped %d", len(f.Services), f.Dropped)
	}
}

func TestPoolsTellWhetherTheyRanOut(t *testing.T) {
	for name, c := range map[string]struct {
		pool            PoolStats
		exhausted, free bool
	}{
		"somebody waits":     {PoolStats{Max: 5, Used: 5, Pending: 2}, true, false},
		"gave up":            {PoolStats{Timeouts: 1}, true, false},
		"full, and waits":    {PoolStats{Max: 5, Used: 5, WaitP99: time.Second}, true, false},
		"room left":          {PoolStats{Max: 5, Used: 3}, false, true},
		"nobody waits":       {PoolStats{Known: true}, false, true},
		"full, waits unseen": {PoolStats{Max: 5, Used: 5}, false, false},
		"nothing known":      {PoolStats{}, false, false},
	} {
		if c.pool.Exhausted() != c.exhausted || c.pool.Free() != c.free {
			t.Errorf("%s: exhausted %v, free %v", name, c.pool.Exhausted(), c.pool.Free())
		}
	}
}
