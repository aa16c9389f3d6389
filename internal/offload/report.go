package offload

import (
	"context"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// QueueStatus is what a queue holds and does. Its counts only grow while the process runs, and are of this gateway.
type QueueStatus struct {
	Queue     string  `json:"queue"`
	Reachable bool    `json:"reachable"` // false: the first five figures are not known
	Queued    uint64  `json:"queued"`    // jobs that wait, for their first attempt or another one
	Running   uint64  `json:"running"`   // in this gateway
	Dead      uint64  `json:"dead"`      // letters
	Bytes     uint64  `json:"bytes"`     // of jobs
	OldestMS  float64 `json:"oldest_ms"` // age of the oldest job; 0 = there is none

	Accepted       uint64 `json:"accepted"`
	Duplicates     uint64 `json:"duplicates"`     // calls answered with a job that was there already
	Full           uint64 `json:"full"`           // calls refused because the queue was full
	Unreachable    uint64 `json:"unreachable"`    // calls whose job could not be stored
	Undeduplicated uint64 `json:"undeduplicated"` // jobs whose key was not remembered, because there were too many
	Delivered      uint64 `json:"delivered"`
	Retried        uint64 `json:"retried"`  // attempts that failed
	Unsent         uint64 `json:"unsent"`   // attempts that a policy held back
	Buried         uint64 `json:"buried"`   // jobs that became dead letters
	Stuck          uint64 `json:"stuck"`    // jobs that could not, for want of room
	Replayed       uint64 `json:"replayed"` // dead letters

	WaitMS     Quantiles `json:"wait_ms"`     // from acceptance to the first attempt
	DeliveryMS Quantiles `json:"delivery_ms"` // of one attempt, the retries of the route's policy included
}

// Quantiles of a time, in milliseconds; all 0 without any.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

func quantiles(s stats.Snapshot) Quantiles {
	ms := func(q float64) float64 { return float64(s.Quantile(q)) / float64(time.Millisecond) }
	return Quantiles{P50: ms(0.5), P95: ms(0.95), P99: ms(0.99)}
}

// Status is the state of the queue; it asks the store, for up to StoreConfig.Timeout.
func (q *Queue) Status(ctx context.Context) QueueStatus {
	c := &q.counts
	s := QueueStatus{
		Queue: q.name, Running: uint64(max(q.running.Load(), 0)), Accepted: c.accepted.Load(), Duplicates: c.duplicates.Load(), Full: c.full.Load(),
		Unreachable: c.unreachable.Load(), Undeduplicated: c.undeduplicated.Load(), Delivered: c.delivered.Load(), Retried: c.failed.Load(),
		Unsent: c.unsent.Load(), Buried: c.buried.Load(), Stuck: c.stuck.Load(), Replayed: c.replayed.Load(),
		WaitMS: quantiles(c.wait.Snapshot()), DeliveryMS: quantiles(c.delivery.Snapshot()),
	}
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	in, err := q.reach(ctx)
	if err != nil {
		return s
	}
	jobs, err := in.jobs.Info(ctx)
	if err != nil {
		return s
	}
	dead, err := in.dead.Info(ctx)
	if err != nil {
		return s
	}
	s.Reachable = true
	s.Queued, s.Bytes, s.Dead = jobs.State.Msgs-min(s.Running, jobs.State.Msgs), jobs.State.Bytes, dead.State.Msgs
	if jobs.State.Msgs > 0 {
		s.OldestMS = float64(time.Since(jobs.State.FirstTime)) / float64(time.Millisecond)
	}
	return s
}
