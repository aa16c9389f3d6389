// Package limit keeps a dependency from being given more than it can do, and decides whose call waits and whose is
// refused meanwhile.
//
// A Limiter holds a number of calls that may be in flight at once. It is fixed, or learned from how calls end (see
// Config.Algorithm). Calls beyond it wait in one queue, or are refused when there is none. The queue is bounded by
// length and by age; it serves higher tiers first, tenants in turn, and the newest first when it is deep. Under
// lasting overload a controller raises the priority below which calls are refused on arrival, before they cost
// anything. A call whose deadline is nearer than the dependency usually takes is refused whatever its priority. A rate
// limit, for all or for each tenant, stands in front of all that.
//
// It is told the time, owns no goroutine and no timer, and never blocks: a call that must wait gets a Ticket with a
// channel, which is closed when the call is decided, and the time at which to ask again.
package limit
