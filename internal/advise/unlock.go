package advise

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/longpole/longpole/internal/evidence"
)

var unlockEntry = entry{
	kind: KindUnlock, step: StepTune, answers: []string{"LP110"}, cure: unlock, plain: true,
	needs: []string{"who holds the lock is known"},
	watch: []string{"sessions that wait for a lock", "age of the oldest transaction", "mutex profile of the service"},
}

// unlock cures calls that wait for each other: the lock is held for a shorter time, or split. The forecast is for waits
// that are gone, the most that there is to gain.
func unlock(s *situation) (Action, string) {
	d := s.finding.Detail
	a := Action{
		Kind: KindUnlock, Cost: "work on the code that holds the lock",
		Risk: "the forecast is for waits that are gone, the most there is to gain",
	}
	if d.Variant == "process" {
		a.Summary = fmt.Sprintf("hold the lock in %s for a shorter time: no call and no I/O while it is held, or one lock for each key", s.finding.Service)
		a.Text = "before:  lock(); x = map[k]; y = remote(x); map[k] = y; unlock()\nafter:   lock(); x = map[k]; unlock(); y = remote(x); lock(); map[k] = y; unlock()\n" +
			"or:      shards = 64 locks, one for each hash(k) % 64"
	} else {
		a.Summary = fmt.Sprintf("end the transaction that holds the lock sooner: %s", shortStatement(d.Holder, "its holder is not known"))
		if d.Holder != "" && sameStatement(d.Holder, d.Statement) {
			a.Summary = fmt.Sprintf("calls wait for each other's rows: make %s the last thing in its transaction, and gather or split what all of them update", shortStatement(d.Statement, ""))
		}
		a.Text = `-- who blocks whom now:
SELECT pid, pg_blocking_pids(pid) AS blocked_by, state, now() - xact_start AS age, query FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0;
-- so that it cannot last:
ALTER ROLE <application> SET lock_timeout = '2s';
ALTER ROLE <application> SET idle_in_transaction_session_timeout = '30s';
-- in the code: no remote call inside a transaction; lock rows in one order; SELECT ... FOR UPDATE SKIP LOCKED for queues`
		if d.HolderPID > 0 {
			a.Text += fmt.Sprintf("\n-- as a last resort, by its owner: SELECT pg_terminate_backend(%d);", d.HolderPID)
		}
	}
	if d.Variant == "process" {
		p, reason := s.corpus.unlocked(targetOf(s.finding))
		if reason == "" {
			a.Effects = s.forecast(p)
		}
		return a, reason
	}
	if d.Wait <= 0 {
		return a, "no forecast for the lock: how long calls wait for it is not told"
	}
	// A call that waits is one that takes longer than is usual by about the wait: what is above the usual time is the wait.
	usual := int64(d.Latency)
	p := each(s.calls(), func(n, i int, e *edit) {
		if took := s.corpus.traces[n].recorded(i); usual > 0 && took > usual {
			e.set(i, max(usual, took-int64(d.Wait)))
		}
	})
	p.doubt = modelDoubt
	a.Effects = s.forecast(p)
	return a, ""
}

// sameStatement reports whether two texts are one statement, but for its values.
func sameStatement(a, b string) bool {
	x, _ := evidence.Fingerprint(a)
	y, _ := evidence.Fingerprint(b)
	return x == y
}

// unlocked is the plan in which the calls of a target that met others of its kind in their process take as long as those that met
// none. reason says why there is no forecast.
func (c *corpus) unlocked(t target) (p plan, reason string) {
	calls := c.find(t)
	slices.SortFunc(calls, func(a, b ref) int {
		return cmp.Or(cmp.Compare(c.span(a).Start, c.span(b).Start), cmp.Compare(c.span(a).TraceID, c.span(b).TraceID), cmp.Compare(c.span(a).ID, c.span(b).ID))
	})
	busy := make(map[string]int64) // by process: until when those that began so far were at work
	var alone []int64
	var met []ref
	for _, r := range calls {
		line := c.traces[r.trace]
		host, s := hostOf(line, r.span), c.span(r)
		switch {
		case line.failed(r.span):
		case s.Start < busy[host]:
			met = append(met, r)
		default:
			alone = append(alone, line.recorded(r.span))
		}
		busy[host] = max(busy[host], s.End)
	}
	if len(alone) < minCalls {
		return plan{}, fmt.Sprintf("no forecast for the lock: %d calls that met no other are too few to know how long they take without a wait; at least %d are needed", len(alone), minCalls)
	}
	p = each(met, func(n, i int, e *edit) {
		s := &c.traces[n].spans[i]
		e.set(i, alone[random(s, 0).IntN(len(alone))])
	})
	p.doubt = modelDoubt
	return p, ""
}
