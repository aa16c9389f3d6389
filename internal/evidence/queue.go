package evidence

import (
	"slices"
	"time"
)

// QueueLook is one look at the streams of a JetStream server.
type QueueLook struct {
	At      time.Time
	Streams []Stream
	Gaps    []Gap
}

// Stream is a stream at one moment.
type Stream struct {
	Name      string
	Created   time.Time
	Messages  uint64 // kept
	Bytes     uint64
	LastSeq   uint64 // messages ever stored, those that are gone too
	MaxMsgs   int64  // 0 or less = no bound
	MaxBytes  int64
	Discard   string // old or new: what happens at the bound
	WorkQueue bool   // a message leaves when it is acknowledged
	Consumers []Consumer
}

// Consumer is one consumer of a stream at one moment: a group of workers that share its messages.
type Consumer struct {
	Name          string
	Created       time.Time
	Filtered      bool   // it takes some subjects only
	Delivered     uint64 // deliveries ever made, redeliveries too
	AckFloor      uint64 // deliveries below and at which all are acknowledged
	Pending       uint64 // not yet delivered
	AckPending    int    // delivered, not yet acknowledged
	MaxAckPending int    // 0 or less = no bound; at the bound no more is delivered
	Redelivered   int    // of those in AckPending, delivered more than once
	Waiting       int    // requests of workers that wait for a message
	AckWait       time.Duration
	Push          bool
	Bound         bool // a push consumer has someone who listens
}

// QueueStats is what a consumer did between two looks. Rates are per second and 0 where Span is 0.
type QueueStats struct {
	Stream        string        `json:"stream"`
	Consumer      string        `json:"consumer"`
	Span          time.Duration `json:"span_ns"`
	Pending       uint64        `json:"pending"`
	AckPending    int           `json:"ack_pending"`
	MaxAckPending int           `json:"max_ack_pending"`
	Redelivered   int           `json:"redelivered"`
	Waiting       int           `json:"waiting_requests"` // more than 0: a worker is idle
	Arrival       float64       `json:"arrival_per_second"`
	ArrivalExact  bool          `json:"arrival_exact"` // false: from deliveries, in which redeliveries count twice
	Delivery      float64       `json:"delivery_per_second"`
	Service       float64       `json:"service_per_second"`       // what left: acknowledged, given up, or dropped by a bound
	Utilisation   float64       `json:"utilisation"`              // arrival by capacity; above 1 the backlog grows
	Known         bool          `json:"utilisation_known"`        // capacity shows only while there is a backlog; else Utilisation is 0
	Drain         time.Duration `json:"drain_ns,omitempty"`       // until the backlog is gone at these rates; 0 = never, or none
	Wait          time.Duration `json:"wait_ns"`                  // of a message that arrives now, by Little's law: backlog / service
	InWork        float64       `json:"in_work"`                  // share of MaxAckPending that is taken; 1 = workers hold all they may
	NoWorkers     bool          `json:"no_workers,omitempty"`     // a backlog, nobody waits, nothing in work, nothing delivered
	StreamFull    float64       `json:"stream_full"`              // of its tightest bound, 0..1; 0 without one
	FullDiscards  string        `json:"full_discards,omitempty"`  // old or new
	AckWaitNearly bool          `json:"ack_wait_short,omitempty"` // more than a tenth of what is in work was redelivered: AckWait may be shorter than the work
	Gaps          []Gap         `json:"gaps,omitempty"`
}

// QueueBetween says what each consumer did between two looks; the earlier may be the zero value. A stream or consumer made anew in
// between counts as new.
func QueueBetween(before, after QueueLook) []QueueStats {
	var out []QueueStats
	for _, s := range after.Streams {
		var was Stream
		if i := slices.IndexFunc(before.Streams, func(o Stream) bool { return o.Name == s.Name && o.Created.Equal(s.Created) }); i >= 0 {
			was = before.Streams[i]
		}
		for _, c := range s.Consumers {
			var o Consumer
			span := time.Duration(0)
			if i := slices.IndexFunc(was.Consumers, func(o Consumer) bool { return o.Name == c.Name && o.Created.Equal(c.Created) }); i >= 0 {
				o, span = was.Consumers[i], after.At.Sub(before.At)
			}
			out = append(out, consumerBetween(was, s, o, c, span))
		}
	}
	return out
}

func consumerBetween(was, s Stream, o, c Consumer, span time.Duration) QueueStats {
	q := QueueStats{
		Stream: s.Name, Consumer: c.Name, Span: max(span, 0), Pending: c.Pending, AckPending: c.AckPending, MaxAckPending: c.MaxAckPending,
		Redelivered: c.Redelivered, Waiting: c.Waiting, StreamFull: full(s), FullDiscards: s.Discard,
	}
	if c.MaxAckPending > 0 {
		q.InWork = float64(c.AckPending) / float64(c.MaxAckPending)
	}
	q.AckWaitNearly = c.AckPending > 0 && float64(c.Redelivered) > 0.1*float64(c.AckPending)
	if span <= 0 {
		q.Gaps = append(q.Gaps, Gap{"rates", "there is no earlier look at this consumer"})
		return q
	}
	seconds := span.Seconds()
	backlog, backlogWas := float64(c.Pending)+float64(c.AckPending), float64(o.Pending)+float64(o.AckPending)
	delivered := float64(c.Delivered) - float64(o.Delivered)
	arrived := float64(c.Pending) - float64(o.Pending) + delivered
	if !c.Filtered {
		arrived, q.ArrivalExact = float64(s.LastSeq)-float64(was.LastSeq), true
	}
	arrived = max(arrived, 0)
	left := max(arrived-(backlog-backlogWas), 0)
	q.Arrival, q.Delivery, q.Service = arrived/seconds, max(delivered, 0)/seconds, left/seconds
	if c.Pending > 0 && o.Pending > 0 && left > 0 { // the workers were never short of work, so what they did is what they can
		q.Utilisation, q.Known = arrived/left, true
		if left > arrived {
			q.Drain = atMost(backlog / (left - arrived) * seconds)
		}
	}
	if left > 0 {
		q.Wait = atMost(backlog / left * seconds)
	}
	q.NoWorkers = c.Pending > 0 && o.Pending > 0 && c.Waiting == 0 && delivered == 0 && c.AckPending == 0
	return q
}

func atMost(s float64) time.Duration { return time.Duration(min(s, 1e9) * float64(time.Second)) }

func full(s Stream) float64 {
	f := 0.0
	if s.MaxMsgs > 0 {
		f = float64(s.Messages) / float64(s.MaxMsgs)
	}
	if s.MaxBytes > 0 {
		f = max(f, float64(s.Bytes)/float64(s.MaxBytes))
	}
	return min(f, 1)
}
