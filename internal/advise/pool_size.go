package advise

import "fmt"

var poolEntry = entry{
	kind: KindPool, step: StepTune, answers: []string{"LP111"}, cure: poolSize, plain: true,
	needs: []string{"the database can serve more connections: processors and max_connections", "no connection is held while something else is waited for"},
	watch: []string{"wait for a connection, its p99", "connections in use over the pool's size", "CPU and active sessions of the database"},
}

// poolSize cures waits for a connection. First the time that one is held, then the size of the pool.
func poolSize(s *situation) (Action, string) {
	d := s.finding.Detail
	size := int(d.Workers)
	what := "the pool"
	if d.Pool != "" {
		what = "the pool " + d.Pool
	}
	a := Action{
		Kind:    KindPool,
		Summary: fmt.Sprintf("hold connections of %s for a shorter time (none across remote calls), and then make %s larger", s.finding.Service, what),
		Cost:    "each connection is a process of PostgreSQL, about 10 MB",
		Risk:    "a pool larger than the database can serve moves the queue into the database, where it costs more",
		Text: `size: connections needed = calls per second x seconds that one is held / 0.7
      all replicas together: at most about 2 x the database's processors that wait for disk little
code: take a connection as late, and give it back as early, as can be; never call a service while holding one`,
	}
	if size > 0 {
		a.Summary = fmt.Sprintf("hold connections of %s for a shorter time (none across remote calls), and make %s larger than %d", s.finding.Service, what, size)
	}
	if st := s.corpus.connections(s.finding.Service, size); st != nil {
		more := max(st.servers+1, st.servers*3/2)
		a.Effects = s.forecast(st.rerun(more))
		a.Benefit = fmt.Sprintf("with %d connections in place of %d; %s", more, st.servers, st.describe(target{service: s.finding.Service, operation: "(statements)"}))
		a.Risk += "; the forecast takes statements to last as long as now beside more of them"
		return a, ""
	}
	if d.Wait <= 0 {
		return a, "no forecast for the pool: the wait for a connection is not told by the traces"
	}
	return a, "no forecast for the pool: only the mean wait is known, not each call's"
}
