// Package offload is a durable work queue: it keeps requests that were answered before they were done, and delivers them.
//
// The queue lives in NATS JetStream: in a server embedded in this process that opens no port, or in one reached by URL
// that any number of gateways share. Each queue has two streams, of jobs and of dead letters; one more stream holds the
// newest state of each job.
//
//	Submit ──► jobs ──► Run: Deliver ──► done
//	            ▲  ▲        │    │
//	            │  └─ pause ┘    └─► dead letters ──┐
//	            └─────────────── Replay ────────────┘
//
// What it promises:
//
//   - Submit returns only when the store has the job: on disk (fsync) unless StoreConfig.SyncInterval says otherwise, and
//     on a majority of StoreConfig.Replicas. From then on the job is delivered at least once or is a dead letter,
//     whenever and however processes end.
//   - Every delivery of a job carries the same key. A receiver that heeds it does the work once.
//   - The order of jobs is not kept.
//
// A job leaves the stream of jobs in one place only: after its delivery succeeded, or after its dead letter was stored.
// Everything else, a crash included, lets it come again: at once after a restart with the embedded server, and after the
// lease of 30 s when another gateway takes it over. What is known of a job's attempts is kept outside of the stream, so
// that neither a crash nor a lost acknowledgement resets its schedule.
//
// Bounds: the number and size of jobs and of dead letters per queue, the body, the states that are kept, deliveries at
// once. What does not fit is refused with ErrFull before anything is acknowledged.
//
// Failure: a store that cannot be reached makes Submit fail with ErrUnreachable within StoreConfig.Timeout; workers come
// back by themselves.
package offload
