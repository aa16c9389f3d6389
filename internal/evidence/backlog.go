package evidence

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// backlogFamily is how one exporter names what waits in queues. Counters and gauges of partitions are added up.
type backlogFamily struct {
	stream, consumer []string // labels that name the queue, and who reads it
	pending          []string // gauges of what waits: the first that is there counts
	work             []string // gauges of what is delivered and not acknowledged
	workers          []string // gauges of consumers
	arrived, done    string   // counters; "" = not told. Those of a stream have no consumer
}

// backlogFamilies are read in this order.
//
// Sources: danielqsj/kafka_exporter; RabbitMQ's plugin rabbitmq_prometheus, by object and detailed; nats-io/prometheus-nats-exporter
// with -jsz=all, by either prefix.
var backlogFamilies = []backlogFamily{
	{
		stream: []string{"topic"}, consumer: []string{"consumergroup", "group"}, pending: []string{"kafka_consumergroup_lag"}, workers: []string{"kafka_consumergroup_members"},
		arrived: "kafka_topic_partition_current_offset", done: "kafka_consumergroup_current_offset",
	},
	{
		stream: []string{"queue"}, pending: []string{"rabbitmq_queue_messages_ready", "rabbitmq_detailed_queue_messages_ready"},
		work: []string{"rabbitmq_queue_messages_unacked", "rabbitmq_detailed_queue_messages_unacked"}, workers: []string{"rabbitmq_queue_consumers", "rabbitmq_detailed_queue_consumers"},
	},
	{
		stream: []string{"stream_name"}, consumer: []string{"consumer_name"}, pending: []string{"jetstream_consumer_num_pending", "nats_consumer_num_pending"},
		work: []string{"jetstream_consumer_num_ack_pending", "nats_consumer_num_ack_pending"}, done: "jetstream_consumer_ack_floor_stream_seq",
		arrived: "jetstream_stream_last_seq",
	},
}

// BacklogMetrics are the names of the metrics that [Backlogs] reads.
func BacklogMetrics() (names []string) {
	for _, f := range backlogFamilies {
		names = append(append(append(append(names, f.pending...), f.work...), f.workers...), f.arrived, f.done)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// figure is the first and the last value of a sum of series, and the least in between.
type figure struct {
	first, last, least float64
	told               bool
}

// follower reports whether a server of a JetStream cluster tells what another one, that leads, tells as well. Who leads a
// consumer need not lead its stream.
func follower(labels map[string]string) bool {
	return cmp.Or(labels["is_consumer_leader"], labels["is_stream_leader"]) == "false"
}

// byName is series by the names of their metrics.
type byName map[string][]Series

// sum adds up the series of the first of names that a queue has.
func (f backlogFamily) sum(all byName, names []string, stream, consumer string) (sum figure) {
	for _, name := range names {
		for _, s := range all[name] {
			of := oneOf(s.Labels, f.consumer)
			if name == "" || oneOf(s.Labels, f.stream) != stream || of != "" && of != consumer || len(s.Points) == 0 || follower(s.Labels) {
				continue
			}
			least := s.Points[0].Value
			for _, p := range s.Points {
				least = min(least, p.Value)
			}
			sum.first, sum.last, sum.least, sum.told = sum.first+s.Points[0].Value, sum.last+s.Points[len(s.Points)-1].Value, sum.least+least, true
		}
		if sum.told {
			break
		}
	}
	return sum
}

// Backlogs says what waits in each queue, from the series of [BacklogMetrics] over a window. Sorted by stream and consumer.
func Backlogs(list []Series, window time.Duration) []QueueStats {
	all := byName{}
	for _, s := range list {
		all[s.Name()] = append(all[s.Name()], s)
	}
	var out []QueueStats
	for _, f := range backlogFamilies {
		var seen [][2]string
		for _, s := range list {
			key := [2]string{oneOf(s.Labels, f.stream), oneOf(s.Labels, f.consumer)}
			if slices.Contains(f.pending, s.Name()) && key[0] != "" && !slices.Contains(seen, key) && len(seen) < MaxServices {
				seen = append(seen, key)
			}
		}
		for _, key := range seen {
			out = append(out, f.stats(all, key[0], key[1], window))
		}
	}
	slices.SortFunc(out, func(a, b QueueStats) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), strings.Compare(a.Consumer, b.Consumer))
	})
	return out
}

func (f backlogFamily) stats(list byName, stream, consumer string, window time.Duration) QueueStats {
	pending, work := f.sum(list, f.pending, stream, consumer), f.sum(list, f.work, stream, consumer)
	q := QueueStats{Stream: stream, Consumer: consumer, Span: window, Pending: whole(pending.last), AckPending: int(whole(min(work.last, 1e9)))}
	seconds := window.Seconds()
	arrived, done := f.sum(list, []string{f.arrived}, stream, consumer), f.sum(list, []string{f.done}, stream, consumer)
	if seconds > 0 && arrived.told && arrived.last >= arrived.first {
		q.Arrival, q.ArrivalExact = (arrived.last-arrived.first)/seconds, true
	}
	left := done.last - done.first
	if seconds > 0 && done.told && left >= 0 {
		q.Service = left / seconds
	}
	if q.Service > 1e-9 { // one in 30 years
		q.Wait = atMost((pending.last + work.last) / q.Service)
		if pending.least > 0 && q.ArrivalExact { // they were never short of work, so what they did is what they can
			q.Utilisation, q.Known = q.Arrival/q.Service, true
			if q.Service > q.Arrival {
				q.Drain = atMost((pending.last + work.last) / (q.Service - q.Arrival))
			}
		}
	}
	workers := f.sum(list, f.workers, stream, consumer)
	q.NoWorkers = workers.told && workers.first == 0 && workers.last == 0 && pending.first > 0 && pending.last > 0 && work.last == 0
	return q
}

// whole is v as a count.
func whole(v float64) uint64 {
	if !(v > 0) {
		return 0
	}
	return uint64(min(v, 1e18))
}
