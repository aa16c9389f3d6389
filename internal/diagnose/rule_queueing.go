package diagnose

import (
	"cmp"
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
	queueRise    = 0.1                // of each second, by which the wait of messages grows; that of a queue 1.1 times its workers
	queueFew     = 5                  // messages, below which neither spans nor a broker's backlog tell
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
	f.Summary = fmt.Sprintf("requests wait in front of %s %s for %s", s.service, s.operation, s.part())
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
	switch {
	case f.Verdict == Confirmed:
	case calm:
		f.doubt(0.1, "its processors were idle most of the time: what the requests wait for is a worker, a lock or a connection")
	default:
		f.doubt(0, "what they wait for (a processor, a worker, a lock) is not in the traces")
	}
}

// backlog is the messages of one destination.
type backlog struct {
	service, operation string // of the consumer; "" = none is seen
	waits, works       []int64
	at                 []queued
	sent               int // producers of the route
}

type queued struct{ sent, wait int64 }

// messages finds queues in which messages wait for long. They are off the path of the request, so their share of it is 0.
// Of a queue that is far behind, the messages that these traces sent may all be waiting still: then its broker is asked.
func (v *view) messages() (found []Finding) {
	all := make(map[string]*backlog)
	for n := range v.samples {
		s := &v.samples[n]
		for i := range s.tree.Spans {
			got := &s.tree.Spans[i]
			if len(v.facts.Queues) > 0 && got.Kind == trace.Producer {
				if b := backlogOf(all, destination(got)); b != nil {
					b.sent++
				}
			}
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
		f, ok := v.backlogFinding(name, all[name])
		if !ok {
			f, ok = v.stuck(name, all[name])
		}
		if ok {
			found = append(found, f)
		}
	}
	return found
}

// backlogOf is the destination of that name; nil = it has none, or there are too many.
func backlogOf(all map[string]*backlog, name string) *backlog {
	b := all[name]
	if b == nil && name != "" && len(all) < maxQueueName {
		b = &backlog{}
		all[name] = b
	}
	return b
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
	b := backlogOf(all, name)
	if b == nil {
		return
	}
	if b.service == "" {
		b.service, b.operation = consumer.Service, consumer.Name
	}
	wait = max(wait, 0)
	b.waits, b.works = append(b.waits, wait), append(b.works, consumer.End-consumer.Start)
	b.at = append(b.at, queued{minus(consumer.Start, wait), wait})
}

func (v *view) backlogFinding(name string, b *backlog) (Finding, bool) {
	slices.Sort(b.waits)
	slices.Sort(b.works)
	wait, work := quantile(b.waits, 0.5), quantile(b.works, 0.5)
	if len(b.waits) < queueFew || wait < messageLong || wait < queueRatio*work {
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
	q := v.facts.Queue(name)
	rise := last - first // from the middle of the first third to that of the last
	switch {
	case last >= queueGrowth*first, rise >= float64(messageLong) && rise >= queueRise*float64(span)*2/3:
		f.Confidence += 0.1
		f.Evidence = append(f.Evidence, fmt.Sprintf("the wait grows from %s to %s: more comes in than is worked off", waitedFor(int64(first)), waitedFor(int64(last))))
	case q == nil || !q.Known || q.Utilisation <= 1:
		f.doubt(0, "the wait does not grow: a delay that is meant, a poll now and then, or a consumer that was away look the same")
	}
	return f, v.askQueue(&f, q)
}

// stuck finds a queue that is behind by the words of its broker alone: its workers have all that they may, or there are none, and what
// waits is several times what they hold, so that by J. D. C. Little's law a message waits that many times its work.
func (v *view) stuck(name string, b *backlog) (Finding, bool) {
	q := v.facts.Queue(name)
	if q == nil || b.sent == 0 || q.Pending < queueFew {
		return Finding{}, false
	}
	behind, work, wait := float64(q.Pending)+float64(q.AckPending), time.Duration(0), q.Span // nothing left all the time, if nothing did
	if q.Service > 0 {
		work, wait = time.Duration(float64(q.AckPending)/q.Service*1e9), q.Wait
	}
	limit := max(time.Duration(messageLong), queueRatio*work)
	busy := q.Known && q.Utilisation >= queueBusy || !q.Known && q.InWork >= 1
	left := q.AckPending == 0 && q.Waiting == 0 && q.Arrival >= queueGrowth*q.Service // nobody works, nor asks for work
	if !q.NoWorkers && (!busy && !left || wait < limit || behind < queueRatio*float64(q.AckPending)) {
		return Finding{}, false
	}
	f := Finding{
		Code: "LP107", Class: "queueing", Segment: trace.SegQueue, Service: cmp.Or(b.service, q.Consumer, name), Operation: cmp.Or(b.operation, name), Verdict: Likely, Confidence: 0.7,
		Summary:  fmt.Sprintf("messages that are sent to %s have to wait for %d others", name, q.Pending),
		Evidence: []string{fmt.Sprintf("%d messages were sent in these traces, and %d of them worked on", b.sent, len(b.waits))},
		Detail:   Detail{Variant: "message", Wait: wait, Latency: work},
		harm:     1,
	}
	f.Detail.Callees = []string{f.Service}
	if q.Service > 0 {
		f.harm = 1 - float64(limit)/float64(wait) // of messages whose wait has grown evenly, those that wait too long
	}
	if left {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d wait, while no worker holds one or asks for one", q.Pending))
	}
	if !q.NoWorkers && !left && q.Service == 0 {
		f.confirm(0.9, fmt.Sprintf("its workers hold %d messages, and finished none in %s", q.AckPending, duration(q.Span)))
	}
	return f, v.askQueue(&f, q)
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
