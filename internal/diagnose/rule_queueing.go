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
	workerPart   = 0.3                // of a place's time, that waits for a worker must make up
)

// queueing finds LP107: requests that wait for their turn, before a busy service or in a queue.
func queueing(v *view) []Finding {
	return append(v.arrivals(), v.messages()...)
}

// arrivals finds services that take longer when more requests are in work, or whose workers are all taken; of each operation where
// most of the wait is.
func (v *view) arrivals() (found []Finding) {
	for _, s := range v.look().asked(trace.SegService, trace.SegGateway, trace.SegNetwork) {
		f, ok := v.arrivalFinding(s)
		if !ok || s.faint && f.Verdict != Confirmed {
			continue
		}
		same := slices.IndexFunc(found, func(g Finding) bool { return g.Service == f.Service && g.Operation == f.Operation })
		switch {
		case same < 0:
			found = append(found, f)
		case f.ShareP99 > found[same].ShareP99:
			found[same] = f
		}
	}
	return found
}

func (v *view) arrivalFinding(s *suspect) (Finding, bool) {
	l := v.before(s)
	f := v.finding("LP107", "queueing", s, 0.65)
	f.Summary = fmt.Sprintf("requests wait in front of %s %s for %s of the slow traces", s.service, s.operation, percent(f.ShareP99))
	f.Detail.Variant, f.Detail.Workers, f.Detail.Arrival = "arrival", float64(l.most()), l.rate()
	f.Detail.Wait = time.Duration(s.excess / int64(max(s.beyond, 1)))
	if s.constant {
		f.Detail.Wait = time.Duration(meanOf(s.works))
	}
	c := crowd{}
	if !s.constant {
		c = v.crowdAt(s, l)
	}
	taken, free := v.workers(&f, s)
	switch {
	case c.crowded() && (taken || !v.once(s)):
		f.Summary += ": they are slow when many are in work"
		f.Evidence = append(f.Evidence, fmt.Sprintf("when the slow ones began %.1f requests were in work there, otherwise %.1f (%.0f standard errors)", c.long, c.short, c.z))
		f.Detail.Concurrency = c.long
	case taken, !free && !s.faint && !v.once(s) && v.doorShut(&f, s):
		f.Summary += ": all its workers are taken"
	default:
		return f, false
	}
	v.turns(&f, s.service)
	return f, true
}

// workers asks the pools of workers of a suspect's processes: whether they were all taken while requests waited for about as long as
// the suspect takes, or were never all taken.
func (v *view) workers(f *Finding, s *suspect) (taken, free bool) {
	for _, p := range v.facts.Of(s.service, "") {
		for k := range p.Pools {
			switch x := &p.Pools[k]; {
			case !ofWorkers(x):
			case x.Exhausted() && v.waitExplains(x, s, workerPart):
				taken = true
				f.Detail.Pool, f.Detail.Workers = x.Name, x.Max
				f.confirm(0.9, poolLine(p, x, "workers"))
			case x.Free():
				free = true
			}
		}
	}
	return taken, free && !taken
}

// waitExplains reports whether the waits for a pool are that part of the time of a suspect. Of a suspect that is long by itself a pool
// that does not tell its waits is believed.
func (v *view) waitExplains(x *evidence.PoolStats, s *suspect, part float64) bool {
	if x.WaitMean == 0 && x.WaitP99 == 0 {
		return !s.faint
	}
	return float64(x.WaitMean) >= part*float64(meanOf(s.works)) || float64(x.WaitP99) >= part*float64(s.p99)
}

// workerWords are in the names of pools of workers, which serve requests, as opposed to those of connections.
var workerWords = words("worker workers thread threads threadpool executor executors tomcat jetty undertow nio puma unicorn gunicorn dispatcher")

func ofWorkers(x *evidence.PoolStats) bool { return anyWord(x.Name, workerWords) }

// doorShut reports whether the long calls wait before their callee's span begins, while as many of its spans are in work as ever are:
// what is slow then is no network, which does not know how many requests a callee works on.
func (v *view) doorShut(f *Finding, s *suspect) bool {
	if s.segment != trace.SegNetwork {
		return false
	}
	l := v.world.service(s.service)
	most := l.most()
	long, full := int64(0), int64(0) // ns
	for _, w := range s.works {
		if !s.long(w) {
			continue
		}
		long += w.self
		t, span := v.span(w)
		served, _ := calls(t, int(w.span))
		if served < 0 {
			continue
		}
		if begun := t.Spans[served].Start; 2*(begun-span.Start) >= w.self && float64(l.at(span.Start+(begun-span.Start)/2)) >= poolFull*float64(most) {
			full += w.self
		}
	}
	if most == 0 || float64(full) < poolBefore*float64(long) {
		return false
	}
	f.Detail.Workers, f.Detail.Concurrency = float64(most), float64(most)
	f.Evidence = append(f.Evidence, fmt.Sprintf("the calls wait before it begins with them, while %d requests are in work there: never are there more", most))
	return true
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
			got := &s.tree.Spans[i]
			from := v.passes.sentBy(s.tree, i)
			for _, x := range from {
				if sent := &x.tree.Spans[x.span]; sends(sent) {
					note(all, sent, got)
				}
			}
			switch {
			case s.tree.Why(i) == Message:
				note(all, &s.tree.Spans[s.tree.Parent[i]], got)
			case i == s.root && got.Kind == trace.Consumer && len(from) == 0:
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
	late, _ := slices.BinarySearch(b.waits, max(messageLong, queueRatio*work))
	f.harm = 1 - float64(late)/float64(len(b.waits))
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
