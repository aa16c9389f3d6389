package diagnose

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

const stockUpdate = "UPDATE stock SET n = n - 1 WHERE id = $1"

func TestLock(t *testing.T) {
	at, wait := bursts(1, 30)
	convoy := func(d dice, i int) string { return query(wait(d, i)+d.near(5), stockUpdate, "") }
	now := func(d dice, i int) string {
		if i%20 == 7 {
			return query(d.near(800), stockUpdate, "")
		}
		return query(d.near(5), stockUpdate, "")
	}
	held := evidence.Facts{Postgres: []evidence.PostgresFacts{{Sessions: &evidence.Sessions{}, Chains: []evidence.LockChain{{
		Root:    evidence.Backend{PID: 4711, State: "idle in transaction", Query: "UPDATE stock SET price = 9 WHERE id = 5", Application: "importer", StateAge: time.Minute},
		Waiters: []evidence.Waiter{{Backend: evidence.Backend{PID: 1, Query: "update stock set n = n - 1 where id = 77", Relation: "stock"}, Depth: 1}},
		Longest: 20 * time.Second,
	}}}}}
	brief := evidence.Facts{Postgres: []evidence.PostgresFacts{{Sessions: &evidence.Sessions{}, Chains: []evidence.LockChain{{
		Root: held.Postgres[0].Chains[0].Root, Waiters: held.Postgres[0].Chains[0].Waiters, Longest: 2 * time.Millisecond,
	}}}}}
	inside := func(name string) func(d dice, i int) string {
		return func(d dice, i int) string {
			held := d.near(1)
			if i%20 == 7 {
				held = d.near(300)
			}
			return fmt.Sprintf("page 0ms %.3fms service=shop kind=server\n  \"%s\" 2ms %.3fms", held+20, name, held+2)
		}
	}
	mutex := evidence.ProfileFacts{Kind: "mutex", Top: []evidence.Function{{Name: "shop.(*Cart).Add", FlatShare: 0.9}}}
	contended := func(d dice, _ int) string { return fmt.Sprintf("page 0ms %.3fms service=shop kind=server", d.near(60)) }
	often := func(_ dice, i int) time.Duration { return time.Duration(i) * 25 * time.Millisecond } // 40 a second: 2.4 s of work each second
	checkClass(t, "LP110", "lock", []classCase{
		{name: "updates wait for each other", text: convoy, at: at, service: "shop", variant: "database", says: "others of its kind were running"},
		{name: "calls fail by a lock", text: func(d dice, i int) string {
			if i%20 == 7 {
				return query(d.near(1000), stockUpdate, "failed db.response.status_code=40P01")
			}
			return query(d.near(5), stockUpdate, "")
		}, service: "shop", variant: "database", verdict: Likely, says: "failed by a lock"},
		{name: "confirmed: the server names the holder", text: now, facts: held, service: "shop", variant: "database", verdict: Confirmed, says: "process 4711 of importer"},
		{
			name: "confirmed: the fast ones vary so much that nothing looks slow, but the server names the holder", text: func(d dice, i int) string {
				took := 0.3 * math.Pow(200, d.Float64()) // 0.3 ms to 60 ms: a machine that is busy with other things
				if i%8 == 7 {
					took = d.near(800)
				}
				return query(took, stockUpdate, "")
			}, facts: held, service: "shop", variant: "database", verdict: Confirmed, says: "process 4711 of importer",
		},
		{name: "near miss: a session waited, but for a moment", text: func(d dice, _ int) string { return query(d.near(20), stockUpdate, "") }, facts: brief},
		{name: "in the process, by the span's name", text: inside("mutex.Lock cart"), service: "shop", variant: "process", says: "named after the lock"},
		{
			name: "confirmed: the runtime counts the waiting", text: inside("add"), service: "shop", variant: "process", verdict: Confirmed, says: "shop.(*Cart).Add",
			facts: ofService("shop", evidence.RuntimeStats{MutexWait: new(3.0), CPU: new(0.4), Procs: new(4.0)}, mutex),
		},
		{
			name: "doubted: the server saw nobody wait", text: convoy, at: at, service: "shop", verdict: Suspected, says: "no session waited",
			facts: evidence.Facts{Postgres: []evidence.PostgresFacts{{Sessions: &evidence.Sessions{}}}},
		},
		{
			name: "refuted: the runtime counts no waiting", text: inside("add"),
			facts: ofService("shop", evidence.RuntimeStats{MutexWait: new(0.0)}),
		},
		{
			name: "confirmed: long for nobody, but the runtime counts about as much waiting", text: contended, service: "shop", variant: "process", verdict: Confirmed, says: "over 200 spans",
			facts: ofService("shop", evidence.RuntimeStats{MutexWait: new(1.0)}), at: often,
		},
		{
			name: "near miss: the waiting that the runtime counts is little of the time", text: contended, at: often,
			facts: ofService("shop", evidence.RuntimeStats{MutexWait: new(0.25)}),
		},
		{name: "near miss: slow updates that nobody waits for", text: now},
		{name: "near miss: slow reads when many run", text: func(d dice, i int) string { return query(wait(d, i)+d.near(5), ordersQuery, "") }, at: at},
		{name: "near miss: the lock is free", text: func(d dice, _ int) string {
			return fmt.Sprintf("page 0ms 30ms service=shop kind=server\n  lock 2ms %.3fms", 2+d.near(1))
		}},
	})
}

func TestTheHolderIsInTheDetail(t *testing.T) {
	at, wait := bursts(1, 30)
	c := classCase{at: at, text: func(d dice, i int) string { return query(wait(d, i)+d.near(5), stockUpdate, "") }}
	chain := evidence.LockChain{Root: evidence.Backend{PID: 9, Query: "LOCK TABLE stock"}, Waiters: []evidence.Waiter{{Backend: evidence.Backend{Query: stockUpdate, Relation: "stock"}}}, Longest: time.Second}
	f := Run(c.traces(t), Options{Facts: evidence.Facts{Postgres: []evidence.PostgresFacts{{Chains: []evidence.LockChain{chain}}}}}).Routes[0].Findings[0]
	if f.Detail.Holder != "LOCK TABLE stock" || f.Detail.HolderPID != 9 || f.Detail.Wait < time.Second || len(f.Detail.Tables) != 1 {
		t.Errorf("%+v", f.Detail)
	}
}
