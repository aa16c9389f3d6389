// Package call describes one unit of work sent to a dependency and how it
// ended. It is the vocabulary that all policies share: small values, no behaviour.
package call

import "time"

// Class is the reason why an attempt, or a whole call, ended.
type Class uint8

// The classes, from good to not even tried.
const (
	OK       Class = iota // answered, and the answer is a success
	Client                // the caller is at fault (HTTP 4xx); never retried
	Server                // the dependency failed (HTTP 5xx)
	Refused               // no work was done (connection refused): a second attempt is always safe
	Timeout               // the deadline passed
	Canceled              // the caller went away, or a hedge's other half was faster
	Shed                  // a policy of ours refused the call
	classes
)

// String is the lower-case name used in metrics and logs.
func (c Class) String() string {
	if c >= classes {
		return "unknown"
	}
	return [classes]string{"ok", "client", "server", "refused", "timeout", "canceled", "shed"}[c]
}

// Failed reports whether the dependency is to blame.
func (c Class) Failed() bool { return c == Server || c == Refused || c == Timeout }

// Outcome is what a policy may know about a finished attempt.
type Outcome struct {
	Class    Class
	Latency  time.Duration // from the start of the attempt to the head of its answer
	Pushback time.Duration // the server's Retry-After; 0 = none, negative = never
	// Overtaken: a copy that was sent later, to another endpoint, was answered first. Class is Canceled then. Unlike other
	// cancellations this one tells something of the endpoint.
	Overtaken bool
}

// Priority orders calls by how much their failure would hurt: under overload the lowest go first. The zero value is Normal.
type Priority int8

// The six tiers of Uber's Cinnamon, from the last to be shed to the first.
const (
	Critical    Priority = 2  // a person waits for it, and the business stops without it
	Important   Priority = 1  // a person waits for it
	Normal      Priority = 0  // the default
	Deferrable  Priority = -1 // may be asked again later
	Background  Priority = -2 // nobody waits
	Speculative Priority = -3 // a hedge, a refresh ahead: done only where there is room
)

// Info is what a policy may know about a call before it starts.
type Info struct {
	Route      string   // names the call in messages
	Idempotent bool     // doing it twice does no harm (RFC 9110 section 9.2.2)
	Key        string   // equal keys have equal answers; "" = neither cached nor coalesced
	Priority   Priority // which calls are shed first
	Cohort     uint8    // 0..127, of the caller: within a tier, higher cohorts are shed first, so that few callers lose much instead of all a little
	Tenant     string   // capacity is shared fairly between tenants; "" = one tenant of its own
}

// CacheState says what the cache did for a call.
type CacheState uint8

// The states, as they appear in metrics.
const (
	Uncached    CacheState = iota // no cache, or the call has no key
	Miss                          // fetched by this call
	Hit                           // answered with a fresh entry
	Stale                         // answered with an expired entry: while it is refreshed, or because the refresh failed
	Coalesced                     // waited for another call's fetch
	Revalidated                   // fetched by this call, and the answer was that what was kept still holds
	cacheStates
)

// String is the lower-case name used in metrics and logs.
func (s CacheState) String() string {
	if s >= cacheStates {
		return "unknown"
	}
	return [cacheStates]string{"uncached", "miss", "hit", "stale", "coalesced", "revalidated"}[s]
}

// MaxAttempts bounds the attempts of one call, hedges included.
const MaxAttempts = 10

// Attempt is one try, as it stands in a Record.
type Attempt struct {
	Endpoint string        // "" when the policy does not balance
	Hedge    bool          // sent while an earlier attempt was still running
	Start    time.Duration // since the call's start
	Latency  time.Duration // to the head of the answer; for a Canceled attempt, its age when it was given up (a lower bound)
	Class    Class
	Won      bool // its answer is the call's answer
}

// Record is the one wide event of a call. Metrics, spans, logs and the canary's
// arms are all fed from it, and from nothing else.
type Record struct {
	Route, Arm    string
	Start         time.Time
	Latency       time.Duration // to the head of the answer, or to the error
	Total         time.Duration // to the end of the body; equals Latency when there is none
	Class         Class
	Cache         CacheState
	QueueWait     time.Duration // before a permit of the limiter; part of Latency
	Fallback      bool          // the answer is not the dependency's: Class says how the call itself ended
	Fault         string        // name of the fault that was injected into the call, on purpose; "" = none
	Count         int           // attempts made; those beyond MaxAttempts are counted but not kept
	Attempts      [MaxAttempts]Attempt
	RequestBytes  int64
	ResponseBytes int64
}

// Add appends an attempt and returns its index, or -1 when it was only counted.
func (r *Record) Add(a Attempt) int {
	r.Count++
	if r.Count > MaxAttempts {
		return -1
	}
	r.Attempts[r.Count-1] = a
	return r.Count - 1
}

// Kept is the part of Attempts that is filled.
func (r *Record) Kept() []Attempt { return r.Attempts[:min(r.Count, MaxAttempts)] }
