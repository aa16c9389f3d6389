package offload

import (
	"math/rand/v2"
	"time"
)

// pause is how long a job waits after its n-th failed attempt: exponential, drawn from the upper half below its ceiling,
// so that jobs that failed together do not come back together and none comes back at once. after is the receiver's wish
// (Retry-After), which lengthens the pause, up to MaxDelay.
func (c *QueueConfig) pause(n int, after time.Duration) time.Duration {
	ceiling := c.MaxDelay
	if shift := max(n, 1) - 1; shift < 32 && c.BaseDelay<<shift > 0 && c.BaseDelay<<shift>>shift == c.BaseDelay {
		ceiling = min(ceiling, c.BaseDelay<<shift)
	}
	return max(ceiling/2+rand.N(ceiling/2+1), min(after, c.MaxDelay))
}

// next is what shall become of a job.
type next uint8

const (
	nextDeliver next = iota
	nextWait         // until Record.Next
	nextFinish       // it is done, and only its acknowledgement was lost
	nextBury
)

// interruptions is how often the end of a process may cut an attempt short before the job is taken for the reason.
const interruptions = 10

// decide says what to do with a job that comes from the stream, and why when it is to be buried.
func (c *QueueConfig) decide(now time.Time, j *Job, r *record) (n next, reason string) {
	switch {
	case r.State == Done:
		return nextFinish, ""
	case now.Sub(j.At) > c.MaxAge:
		return nextBury, reasonExpired
	case r.Failures >= c.MaxAttempts || r.Attempts >= r.Failures+r.Unsent+interruptions+c.MaxAttempts:
		return nextBury, reasonExhausted
	case r.Next.After(now):
		return nextWait, ""
	}
	return nextDeliver, ""
}
