package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	messageLong  = int64(time.Second) // typical wait of a message, from where a queue is no longer a buffer
	queueRatio   = 5                  // times the work, the same
	queueBusy    = 0.9                // utilisation, from where waits grow without end
	queueCalm    = 0.7                // below which nobody waits for long
	queueGrowth  = 2.0                // times, that the last third of messages waits longer than the first
	maxQueueName = 64                 // destinations looked at
)

// queueing finds LP107: requests that wait for their turn, before a busy service or in a queue.
func queueing(v *view) []Finding {
	return append(v.arrivals(), v.messages()...)
}

// arrivals finds services that take longer when more requests are in work.
func (v *view) arrivals() (found []Finding) {
	for _, s := range v.look().of(trace.SegService, trace.SegGateway, trace.SegNetwork) {
		l := v.before(s)
		c := v.crowdAt(s, l)
		if !c.crowded() {
			continue
		}
		f := v.finding("LP107", "queueing", s, 0.65)
		f.Summary = fmt.Sprintf("requests wait in front of %s %s for %s of the slow traces: they are slow when many are in work", s.service, s.operation, percent(f.ShareP99))
		f.Evidence = append(f.Evidence, fmt.Sprintf("when the slow ones began %.1f requests were in work there, otherwise %.1f (%.0f standard errors)", c.long, c.short, c.z))
		f.Detail.Variant, f.Detail.Concurrency, f.Detail.Workers = "arrival", c.long, float64(l.most())
		f.Detail.Arrival = float64(len(l.starts)) / (float64(max(l.span(), 1)) / 1e9)
		f.Detail.Wait = time.Duration(s.excess / int64(max(s.beyond, 1)))
		v.turns(&f, s.service)
		found = append(found, f)
	}
	return found
}

// before is what is in work, or waits to be, in front of a suspect: the requests that its service serves, or, on the way to it, the
// calls that its callers make.
func (v *view) before(s *suspect) *load {
	if s.segment == trace.SegNetwork && len(s.works) > 0 {
		_, span := v.span(s.works[0])
		return v.world.calls(span.Service, s.service)
	}
	return v.world.service(s.service)
}

// turns weighs a wait in front of a service against what its processes tell.
func (v *view) turns(f *Finding, service string) {
	calm := false
	for _, p := range v.facts.Of(service, "") {
		busy, told := p.Busy()
		f.Detail.Utilisation = max(f.Detail.Utilisation, busy)
		switch {
		case p.Runtime != nil && p.Runtime.SchedP99 != nil && *p.Runtime.SchedP99 >= 0.01:
			f.confirm(0.85, fmt.Sprintf("in %s work that is ready waits %.0f ms for a processor (p99)", process(p), *p.Runtime.SchedP99*1000))
		case told && busy >= queueBusy:
			f.confirm(0.85, fmt.Sprintf("%s kept %s of its processors busy", process(p), percent(busy)))
		case told && busy < cpuIdle:
			calm = true
		}
	}
	if calm && f.Verdict != Confirmed {
		f.doubt(0.1, "its processors were idle most of the time: what the requests wait for is a worker, a lock or a connection")
	}
	f.doubt(0, "what they wait for (a processor, a worker, a lock) is not in the traces")
}

// backlog is the messages of one destination.
type backlog struct {
	service, operation string
	waits, works       []int64
	at                 []queued
}

type queued struct{ sent, wait int64 }

// messages finds queues in which messages wait for long. They are off the path of the request, so their share of it is 0.
func (v *view) messages() (found []Finding) {
	all := make(map[string]*backlog)
	for n := range v.samples {
		s := &v.samples[n]
		for i := range s.tree.Spans {
			if got := &s.tree.Spans[i]; s.tree.Why(i) == Message {
				note(all, &s.tree.Spans[s.tree.Parent[i]], got)
			} else if i == s.root && got.Kind == trace.Consumer {
				note(all, nil, got)
			}
		}
	}
	for _, name := range ordered(all) {
		if f, ok := v.backlogFinding(name, all[name]); ok {
			found = append(found, f)
		}
	}
	return found
}

// note takes in one message; producer is nil where its span is in no trace.
func note(all map[string]*backlog, producer, consumer *trace.Span) {
	wait, _, ok := waitInQueue(producer, consumer)
	if !ok {
		return
	}
	name := ""
	if producer != nil {
		name = producer.Attr("messaging.destination.name", "messaging.destination", "message_bus.destination")
	}
	if name == "" {
		name = consumer.Attr("messaging.destination.name", "messaging.destination", "message_bus.destination")
	}
	if name == "" {
		name = consumer.Name
	}
	b := all[name]
	if b == nil {
		if len(all) >= maxQueueName {
			return
		}
		b = &backlog{service: consumer.Service, operation: consumer.Name}
		all[name] = b
	}
	wait = max(wait, 0)
	b.waits, b.works = append(b.waits, wait), append(b.works, consumer.End-consumer.Start)
	b.at = append(b.at, queued{minus(consumer.Start, wait), wait})
}

func (v *view) backlogFinding(name string, b *backlog) (Finding, bool) {
	slices.Sort(b.waits)
	slices.Sort(b.works)
	wait, work := quantile(b.waits, 0.5), quantile(b.works, 0.5)
	if len(b.waits) < 5 || wait < messageLong || wait < queueRatio*work {
		return Finding{}, false
	}
	f := Finding{
		Code: "LP107", Class: "queueing", Segment: trace.SegQueue, Service: b.service, Operation: b.operation, Verdict: Likely, Confidence: 0.7,
		Summary:  fmt.Sprintf("messages wait %s in %s (p50; p99 %s) for work of %s", waitedFor(wait), name, waitedFor(quantile(b.waits, 0.99)), waitedFor(work)),
		Evidence: []string{fmt.Sprintf("%d messages: from the end of sending to the start of processing", len(b.waits))},
		Detail:   Detail{Variant: "message", Wait: time.Duration(wait), Latency: time.Duration(work), Callees: []string{b.service}},
	}
	first, last, span := b.growth()
	if span > 0 {
		f.Detail.Arrival = float64(len(b.at)) / (float64(span) / 1e9)
	}
	switch {
	case last >= queueGrowth*first:
		f.Confidence += 0.1
		f.Evidence = append(f.Evidence, fmt.Sprintf("the wait grows from %s to %s: more comes in than is worked off", waitedFor(int64(first)), waitedFor(int64(last))))
	default:
		f.doubt(0, "the wait does not grow: a delay that is meant, a poll now and then, or a consumer that was away look the same")
	}
	return f, v.askQueue(&f, v.facts.Queue(name))
}

// growth is the mean wait of the first and of the last third of the messages, and over which time they were sent.
func (b *backlog) growth() (first, last float64, span int64) {
	slices.SortFunc(b.at, func(x, y queued) int {
		if x.sent != y.sent {
			return int(min(max(x.sent-y.sent, -1), 1))
		}
		return int(min(max(x.wait-y.wait, -1), 1))
	})
	third := len(b.at) / 3
	for i := range third {
		first += float64(b.at[i].wait)
		last += float64(b.at[len(b.at)-1-i].wait)
	}
	return first / float64(max(third, 1)), last / float64(max(third, 1)), b.at[len(b.at)-1].sent - b.at[0].sent
}

// askQueue weighs a finding against what the broker tells; it is false where the broker shows that nothing waits.
func (v *view) askQueue(f *Finding, q *evidence.QueueStats) bool {
	if q == nil {
		return true
	}
	if q.Arrival > 0 {
		f.Detail.Arrival = q.Arrival
	}
	f.Detail.ServiceRate, f.Detail.Utilisation = q.Service, q.Utilisation
	f.Detail.Workers = float64(q.MaxAckPending)
	switch {
	case q.NoWorkers:
		f.confirm(0.95, fmt.Sprintf("nobody works on %s: %d messages wait", q.Stream, q.Pending))
	case q.Known && q.Utilisation >= queueBusy:
		f.confirm(0.95, fmt.Sprintf("%.1f messages a second come in and %.1f are worked off; %d wait", q.Arrival, q.Service, q.Pending))
	case q.Pending > 0 && q.Wait >= time.Second:
		f.confirm(0.85, fmt.Sprintf("%d messages wait, which takes %s to work off", q.Pending, duration(q.Wait)))
	case q.Pending == 0 && q.Waiting > 0 || q.Known && q.Utilisation < queueCalm && q.Wait < time.Second:
		f.doubt(0.4, "the broker shows idle workers and no backlog: the messages are held back elsewhere")
		return f.Confidence >= 0.25
	}
	return true
}
