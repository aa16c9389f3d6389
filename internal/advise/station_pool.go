package advise

import (
	"cmp"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// How a wait for a connection, which no span shows, is told from work.
const (
	handOverTime = int64(2 * time.Millisecond) // within which a connection that one statement gave back is in the hands of the next
	leastFree    = 20                          // statements that found a free connection, to know how long is worked before one
	freeQuantile = 0.05                        // with fewer of them, the gap that stands for theirs
)

// borrowing is one call of a database, and the time of its caller's own before it.
type borrowing struct {
	job
	gap    int64 // ns from the last thing that the caller waited for, or from its own beginning
	waited bool  // it began when a pool that was full got room
}

// connections is how the statements of a service queue for the connections of its pool; nil when the traces do not tell. size is
// that of the pool; 0 = the most that were seen in use at once.
//
// A statement that began just when one of a full pool had ended has waited, and what its caller's own time before it has more than
// is usual before statements that found a connection free is the wait.
func (c *corpus) connections(service string, size int) *station {
	all := c.statements(service)
	if len(all) < leastJobs {
		return nil
	}
	slices.SortFunc(all, func(a, b borrowing) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.trace, b.trace), cmp.Compare(a.span, b.span))
	})
	if size == 0 {
		size = mostAtOnce(all)
	}
	usual := markWaits(all, size)
	st := &station{}
	var took dist
	for i := range all {
		x := &all[i]
		if x.waited {
			x.wait = max(0, x.gap-usual)
		}
		st.jobs = append(st.jobs, x.job)
		st.spans = append(st.spans, x.ref)
		st.waited += float64(x.wait) / float64(len(all))
		took.add(x.end-x.begin, 1)
	}
	took.sort()
	st.mean, st.service = took.moments()
	st.watch()
	st.servers = size
	st.order()
	if st.perSecond == 0 || st.waited == 0 {
		return nil
	}
	return st
}

// statements are the calls that a service makes of databases, with the callers' spans as refs.
func (c *corpus) statements(service string) (all []borrowing) {
	for n, t := range c.traces {
		for i := range t.spans {
			s := &t.spans[i]
			if s.Kind != trace.Client || s.Service != service || !t.hasParent(i) || t.weight > 1 || s.Attr("db.system.name", "db.system") == "" {
				continue // a sample tells neither the rate nor the connections
			}
			p := t.parent[i]
			from := t.spans[p].Start
			for _, k := range t.blocking(p) {
				if end := t.spans[k].End; k != i && end <= s.Start {
					from = max(from, end)
				}
			}
			host := cmp.Or(s.Attr("service.instance.id", "k8s.pod.name", "host.name"), s.Host) + "\x00" + address(s)
			all = append(all, borrowing{job: job{ref: ref{n, p}, host: host, begin: s.Start, end: s.End}, gap: max(0, s.Start-from)})
		}
	}
	return all
}

// mostAtOnce is the most statements that one process had under way at a time; all are in the order they began.
func mostAtOnce(all []borrowing) (most int) {
	open := make(map[string][]int64) // when those under way end
	for i := range all {
		x := &all[i]
		list := slices.DeleteFunc(open[x.host], func(end int64) bool { return end <= x.begin })
		open[x.host] = append(list, x.end)
		most = max(most, len(open[x.host]))
	}
	return most
}

// markWaits finds the statements that waited, of all in the order they began, and returns the usual gap in ns before the others.
func markWaits(all []borrowing, size int) (usual int64) {
	open := make(map[string][]int64)
	var free, every []int64
	for i := range all {
		x := &all[i]
		list := slices.DeleteFunc(open[x.host], func(end int64) bool { return end <= x.begin-handOverTime })
		x.waited = len(list) >= size
		open[x.host] = append(list, x.end)
		every = append(every, x.gap)
		if !x.waited {
			free = append(free, x.gap)
		}
	}
	slices.Sort(free)
	slices.Sort(every)
	if len(free) < leastFree {
		return quantile(every, freeQuantile)
	}
	return quantile(free, 0.5)
}

// rerun is the plan in which the recorded calls come when they came and are served for as long as they were, first come first served,
// by so many servers in each process. It needs no model of how calls arrive, as each says itself when it came.
func (st *station) rerun(servers int) plan {
	jobs := slices.Clone(st.jobs)
	came := func(j *job) int64 { return j.begin - j.wait }
	slices.SortStableFunc(jobs, func(a, b job) int { return cmp.Compare(came(&a), came(&b)) })
	free := make(map[string][]int64) // by process: when each server is done
	shift := make(map[int][]shifted)
	for i := range jobs {
		j := &jobs[i]
		if free[j.host] == nil {
			free[j.host] = make([]int64, servers)
		}
		done := free[j.host]
		next := slices.Index(done, slices.Min(done))
		wait := max(0, done[next]-came(j))
		done[next] = came(j) + wait + j.end - j.begin
		shift[j.trace] = append(shift[j.trace], shifted{j.span, wait - j.wait})
	}
	return plan{spans: st.spans, doubt: modelDoubt, apply: func(_, n int, e *edit) {
		for _, x := range shift[n] {
			e.add(x.span, x.by)
		}
	}}
}

// shifted is a span that takes longer by so many ns.
type shifted struct {
	span int
	by   int64
}
