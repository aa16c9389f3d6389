package advise

import (
	"fmt"
	"math"
	"time"
)

// How far the models may be wrong, as a share of what a change moves; found by simulation (docs/bench/whatif.md).
const (
	plainDoubt = 0.02 // the recorded calls themselves, only shorter
	drawDoubt  = 0.05 // latencies drawn from other calls
	modelDoubt = 0.10 // what no call has shown yet
)

// faster is the plan in which the own time of a target, that in which it waits for nobody, is divided by factor, and
// then cut by removed. Where its calls are seen to queue, the queue gets shorter too.
func (c *corpus) faster(t target, factor float64, removed time.Duration) plan {
	spans := c.find(t)
	p := each(spans, func(n, i int, e *edit) {
		by := 1 / factor
		if own := c.traces[n].own(i); removed > 0 {
			by = math.Max(0, by-share(float64(removed), float64(own)))
		}
		e.scale(i, by)
	})
	p.doubt = plainDoubt
	if st := c.station(t); st != nil && st.busy() > quiet {
		by := math.Max(0, 1/factor-share(float64(removed), st.mean))
		q := st.remap(1, by, st.servers)
		q.notes = append(q.notes, fmt.Sprintf("%s is seen to queue with %d workers %.0f%% busy: the shorter service shortens the wait too", t, st.servers, 100*st.busy()))
		return c.together([]plan{p, q})
	}
	return p
}

// gone is the plan in which calls take no longer than what is left of them: 0, or the time to hand the
// work to a queue.
func (c *corpus) gone(calls []ref, left time.Duration) plan {
	p := each(calls, func(n, i int, e *edit) { e.set(i, min(int64(left), c.traces[n].recorded(i))) })
	p.doubt = plainDoubt
	return p
}

// indexed is the plan in which a query does its work factor times as fast. The round trip stays: it is taken to be
// the fastest call that the same caller made of the same database.
func (c *corpus) indexed(calls []ref, factor float64) plan {
	floor := c.roundTrips(calls)
	p := each(calls, func(n, i int, e *edit) {
		took := c.traces[n].recorded(i)
		trip := min(floor[c.databaseOf(ref{n, i})], took)
		e.set(i, trip+int64(float64(took-trip)/factor))
	})
	p.doubt = modelDoubt
	p.notes = []string{"the planner's gain is in its own units of cost; time follows it only roughly"}
	return p
}

// databaseOf names a caller and the database it asks.
func (c *corpus) databaseOf(r ref) routeKey {
	s := c.span(r)
	return routeKey{s.Service, s.Attr("db.system.name", "db.system") + "\x00" + address(s)}
}

// roundTrips is the fastest call in ns of each caller of a database that one of calls goes to.
func (c *corpus) roundTrips(calls []ref) map[routeKey]int64 {
	floor := make(map[routeKey]int64)
	for _, r := range calls {
		floor[c.databaseOf(r)] = math.MaxInt64
	}
	for n, t := range c.traces {
		for i := range t.spans {
			if key := c.databaseOf(ref{n, i}); key.operation != "\x00" || floor[key] > 0 {
				if low, ok := floor[key]; ok && len(t.blocking(i)) == 0 {
					floor[key] = min(low, t.recorded(i))
				}
			}
		}
	}
	return floor
}
