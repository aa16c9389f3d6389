package advise

import (
	"fmt"
	"math"
	"time"

	"github.com/longpole/longpole/internal/trace"
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

// indexed is the plan in which a query does its work factor times as fast. Its round trip stays.
func (c *corpus) indexed(calls []ref, factor float64) plan {
	trips := c.roundTrips(calls)
	p := each(calls, func(n, i int, e *edit) {
		took := c.traces[n].recorded(i)
		trip := min(trips[c.databaseOf(ref{n, i})], took)
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

// roundTrips is how long in ns the way to a database and back takes each caller of calls: no longer than the fastest other statement
// of the same caller. One that asks nothing else does not tell: the fastest of its calls may be all work, as when each reads a whole
// table. Its way is then taken to be as long as that between services.
func (c *corpus) roundTrips(calls []ref) map[routeKey]int64 {
	trips := make(map[routeKey]int64)
	mine := make(map[ref]bool, len(calls))
	for _, r := range calls {
		trips[c.databaseOf(r)] = math.MaxInt64
		mine[r] = true
	}
	for n, t := range c.traces {
		for i := range t.spans {
			if mine[ref{n, i}] || len(t.blocking(i)) > 0 || t.spans[i].Kind != trace.Client {
				continue
			}
			if key := c.databaseOf(ref{n, i}); key.operation != "\x00" {
				if low, ok := trips[key]; ok {
					trips[key] = min(low, t.recorded(i))
				}
			}
		}
	}
	for key, low := range trips {
		if low == math.MaxInt64 {
			trips[key] = c.wayBetween()
		}
	}
	return trips
}

// usualWay is the way in ns where the traces show none.
const usualWay = int64(500 * time.Microsecond)

// wayBetween is the median in ns of what calls between services take longer for their callers than for those that answer.
func (c *corpus) wayBetween() int64 {
	var ways dist
	for _, t := range c.traces {
		for i := range t.spans {
			if k := t.servedBy(i); k != i {
				ways.add(max(0, t.recorded(i)-t.recorded(k)), t.weight)
			}
		}
	}
	ways.sort()
	if len(ways.list) < minCalls {
		return usualWay
	}
	return ways.quantile(0.5)
}
