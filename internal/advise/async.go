package advise

import (
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

var asyncEntry = entry{
	kind: KindAsync, step: StepOffload, answers: []string{"LP125"}, cure: async,
	needs: []string{"nobody reads the result before the answer is sent", "the work may be done twice: the receiver heeds Idempotency-Key"},
	watch: []string{"longpole_offload_jobs and longpole_offload_oldest_job_age_seconds", "longpole_offload_dead_total", "time from the answer to the work being done"},
}

// handOver is what it takes to give work to a queue, where the traces show no message sent yet: a write to disk and back.
const handOver = time.Millisecond

// publishing is how long this system takes to send a message, its median.
func (c *corpus) publishing() time.Duration {
	var sent dist
	for _, t := range c.traces {
		for i := range t.spans {
			if t.spans[i].Kind == trace.Producer && !t.spans[i].Failed {
				sent.add(t.recorded(i), t.weight)
			}
		}
	}
	sent.sort()
	if len(sent.list) < minCalls {
		return handOver
	}
	return time.Duration(sent.quantile(0.5))
}

// work is the operation that the answer does not depend on.
func (s *situation) work() string {
	if calls := s.calls(); len(calls) > 0 {
		t := s.corpus.traces[calls[0].trace]
		return t.spans[t.servedBy(calls[0].span)].Name
	}
	return s.finding.Operation
}

// async cures work that the answer does not depend on: it is stored, and done afterwards.
func async(s *situation) (Action, string) {
	left := s.corpus.publishing()
	t := target{s.callee(""), s.work()}
	p := s.corpus.gone(s.calls(), left)
	if len(p.spans) < minCalls {
		return Action{}, fmt.Sprintf("no advice to do it later: %d recorded calls are too few; at least %d are needed", len(p.spans), minCalls)
	}
	return Action{
		Kind: KindAsync, Effects: s.forecast(p),
		Summary: fmt.Sprintf("store the work of %s in a durable queue, answer, and let workers do it", t),
		Benefit: fmt.Sprintf("the answer waits %s for the queue in place of the work", short(int64(left))),
		Cost:    "a queue to run and to watch; the work is done a little later",
		Risk:    "the caller no longer learns whether it worked: there must be a status, retries and dead letters. What the answer says must not depend on it",
		Text: fmt.Sprintf(`before:
    save(order)
    %[1]s(order)                   # the caller waits
    return 200
after, in the service (with the write in one transaction: an outbox):
    save(order); outbox.add("%[1]s", order.id)
    return 200
or at the gateway, for a route of its own, with no code:
    routes:
    - name: %[1]s
      upstream: %[2]s
      offload: {max_attempts: 10, max_age: 24h}     # answers 202, delivers with retries`, callName(t.operation), t.service),
	}, ""
}
