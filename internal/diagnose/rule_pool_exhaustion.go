package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	poolBefore = 0.7  // of the long gaps, that a call of the same target must follow
	poolFull   = 0.9  // of the most calls ever seen at once, from where the pool is taken for full
	poolErrors = 3    // calls that fail for want of a connection
	sessions   = 0.95 // of the server's connections
	poolPart   = 0.2  // of a place's time, that waits for a connection must make up
)

// poolWords and poolVerbs name the spans in which programs wait for a connection: "pool.acquire", "HikariPool.getConnection".
var (
	poolWords = words("pool hikaripool connectionpool pgxpool dbcp bonecp c3p0 queuepool semaphorepool")
	poolVerbs = []string{"getconnection", "get connection", "acquire conn", "acquireconn", "checkout conn", "borrowobject", "wait for conn", "connection wait", "acquire_connection", "get_connection"}
)

// poolExhaustion finds LP111: requests that wait for a connection of a pool.
func poolExhaustion(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().asked(trace.SegService, trace.SegGateway, trace.SegDatabase) {
		if f, ok := v.poolFinding(s); ok && (!s.faint || f.Verdict == Confirmed) {
			found = append(found, f)
		}
	}
	return found
}

func (v *view) poolFinding(s *suspect) (Finding, bool) {
	f := v.finding("LP111", "pool_exhaustion", s, 0.5)
	f.Summary = fmt.Sprintf("%s %s waits for a connection for %s", s.service, s.operation, s.part())
	f.Detail.Wait = time.Duration(s.excess / int64(max(s.beyond, 1)))
	named := namesPool(s.operation)
	failed := v.poolComplaints(&f, s)
	waits := false
	if s.segment != trace.SegDatabase {
		waits = v.waitsBefore(&f, s)
	}
	if named {
		f.Confidence = max(f.Confidence, 0.8)
		f.Verdict = Likely
		f.Evidence = append(f.Evidence, "the span is named after the wait for a connection")
	}
	told, refuted := v.pools(&f, s)
	switch {
	case refuted:
		if named || failed {
			f.doubt(0.4, "its pools never ran out of connections")
			return f, f.Confidence >= 0.3
		}
		return f, false
	case s.segment == trace.SegDatabase:
		return f, failed || told
	}
	return f, named || failed || waits || told
}

func namesPool(operation string) bool {
	if anyWord(operation, poolWords) {
		return true
	}
	lower := strings.ToLower(operation)
	return says(lower, poolVerbs...)
}

// poolComplaints counts the spans that tell of a pool without connections.
func (v *view) poolComplaints(f *Finding, s *suspect) bool {
	n := 0
	for _, w := range s.works {
		t, _ := v.span(w)
		if says(t.complaint(int(w.span)), "connection pool", "pool exhausted", "pool timeout", "queuepool", "too many connections", "53300", "connection is not available",
			"timeout waiting for connection", "too many clients", "pooltimeout") {
			n++
		}
	}
	if n < poolErrors {
		return false
	}
	f.Verdict, f.Confidence = Likely, 0.85
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d of %d fail for want of a connection", n, s.n))
	return true
}

// gap is a piece of a span's own time, and the call that follows it.
type gap struct {
	start, end int64
	next       int32 // the call; -1 = none
}

// gapBefore is the longest piece of own time of a work, and the call that begins where it ends.
func (v *view) gapBefore(w work) gap {
	c := v.look()
	if c.gaps == nil {
		c.gaps = make(map[int32]map[int32]gap)
	}
	if c.gaps[w.sample] == nil {
		c.gaps[w.sample] = v.samples[w.sample].gaps()
	}
	return c.gaps[w.sample][w.span]
}

func (s *sample) gaps() map[int32]gap {
	longest := make(map[int32]gap)
	for k, x := range s.sections {
		i := int32(x.Span)
		if g := longest[i]; x.End-x.Start <= g.end-g.start {
			continue
		}
		g := gap{x.Start, x.End, -1}
		if k+1 < len(s.sections) {
			if next := s.sections[k+1].Span; s.tree.Parent[next] == i && calledFrom(s.tree, next) != "" {
				g.next = int32(next)
			}
		}
		longest[i] = g
	}
	return longest
}

// waitsBefore reports whether the long works wait right before calls of one target, while as many of these calls run as ever do;
// or whether they do nothing but wrap one such call.
func (v *view) waitsBefore(f *Finding, s *suspect) bool {
	if s.constant {
		return false
	}
	before := make(map[string]int)
	full, long, wrapped := 0, 0, 0
	for _, w := range s.works {
		if !s.long(w) {
			continue
		}
		long++
		g := v.gapBefore(w)
		if g.next < 0 {
			continue
		}
		t := v.samples[w.sample].tree
		to := calledFrom(t, int(g.next))
		before[to]++
		if l := v.world.calls(s.service, to); l.most() >= 2 && float64(l.at(g.start+(g.end-g.start)/2)) >= poolFull*float64(l.most()) {
			full++
			f.Detail.Workers = max(f.Detail.Workers, float64(l.most()))
		}
		if !entry(t, int(w.span)) && len(t.Children(int(w.span))) == 1 {
			wrapped++
		}
	}
	to, n := "", 0
	for _, name := range ordered(before) {
		if before[name] > n {
			to, n = name, before[name]
		}
	}
	switch {
	case float64(n) < poolBefore*float64(long):
		return false
	case float64(full) >= poolBefore*float64(long):
		f.Verdict, f.Confidence, f.Detail.Concurrency = Likely, 0.75, f.Detail.Workers
		f.Evidence = append(f.Evidence, fmt.Sprintf("the waits lie right before a call of %s, while %.0f of these calls run: never do more run at once", to, f.Detail.Workers))
	case wrapped == n:
		f.Verdict = Suspected
		f.Evidence = append(f.Evidence, fmt.Sprintf("the wait lies right before a call of %s, in a span that does nothing else", to))
	default:
		return false
	}
	f.doubt(0, "work before the call looks the same; the pool's own figures would tell")
	return true
}

// pools weighs what the pools of a service and the database's server tell. refuted is true where the pools never ran out.
func (v *view) pools(f *Finding, s *suspect) (told, refuted bool) {
	free := 0
	for _, p := range v.facts.Of(s.service, "") {
		for k := range p.Pools {
			x := &p.Pools[k]
			switch {
			case ofWorkers(x): // see queueing
			case x.Exhausted() && v.waitExplains(x, s, poolPart):
				told = true
				f.Detail.Pool, f.Detail.Workers = x.Name, max(f.Detail.Workers, x.Max)
				f.confirm(0.95, poolLine(p, x, "connections"))
			case x.Free():
				free++
			}
		}
	}
	for i := range v.facts.Postgres {
		if x := v.facts.Postgres[i].Sessions; x != nil && x.Full() >= sessions && (told || namesPool(s.operation) || f.Confidence >= 0.75) {
			told = true
			f.confirm(0.9, fmt.Sprintf("%s of the connections of %s are taken", percent(x.Full()), v.facts.Postgres[i].Name))
		}
	}
	return told, !told && free > 0
}

// poolLine is what a pool of such things tells.
func poolLine(p *evidence.ServiceFacts, x *evidence.PoolStats, things string) string {
	line := fmt.Sprintf("pool %s of %s: %.0f of %.0f %s in use", x.Name, process(p), x.Used, x.Max, things)
	if x.Pending > 0 {
		line += fmt.Sprintf(", %.0f requests wait", x.Pending)
	}
	if x.WaitP99 > 0 {
		line += fmt.Sprintf(", waits of %s (p99)", duration(x.WaitP99))
	}
	if x.Timeouts > 0 {
		line += fmt.Sprintf(", %.0f gave up", x.Timeouts)
	}
	return line
}
