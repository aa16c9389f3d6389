package advise

import (
	"fmt"
	"strings"
)

var collectorEntry = entry{
	kind: KindCollector, step: StepTune, answers: []string{"LP117"}, cure: collector,
	needs: []string{"a heap profile: what is allocated, and by whom"},
	watch: []string{"pauses and share of CPU of the collector", "resident memory against its limit", "allocations for each call"},
}

// collector cures pauses: fewer allocations first, then room. The forecast is for calls without the pause.
func collector(s *situation) (Action, string) {
	t, d := targetOf(s.finding), s.finding.Detail
	if d.Wait <= 0 || d.Latency <= 0 {
		return Action{}, "no advice on the collector: how long its pauses are is not told"
	}
	p := each(s.corpus.callsTo(t), func(n, i int, e *edit) {
		if over := s.corpus.traces[n].recorded(i) - int64(d.Latency); over > int64(d.Wait)/2 {
			e.add(i, -min(over, int64(d.Wait)))
		}
	})
	p.doubt = modelDoubt
	a := Action{
		Kind: KindCollector, Effects: s.forecast(p),
		Summary: fmt.Sprintf("make the garbage collector of %s pause less: allocate less in its hot calls, then give it room", s.finding.Service),
		Cost:    "memory: with twice the room it runs half as often",
		Risk:    "a heap that grows into the container's limit is killed: set the limit that the runtime knows",
		Text: `Go:    GOGC=200 GOMEMLIMIT=<90 % of the container's memory>; reuse buffers (sync.Pool); preallocate slices
JVM:   -XX:+UseZGC (pauses below 1 ms), or -XX:MaxGCPauseMillis=50 with G1; -Xms = -Xmx
Node:  --max-old-space-size=<MB>; no large objects in hot calls
.NET:  <ServerGarbageCollection>true, <ConcurrentGarbageCollection>true`,
	}
	if len(d.Functions) > 0 {
		a.Text += "\nwhat allocates most:\n  " + strings.Join(d.Functions[:min(10, len(d.Functions))], "\n  ")
	}
	return a, ""
}
