// Package longpole runs a call under a policy that protects its latency: deadline, cache and coalescing, retries
// within a budget, hedging, load balancing and circuit breaking, in one fixed order.
//
// A transport implements Work (and Storable, to be cached) once: how an attempt is made and judged. A Config says which
// protection a route gets; New compiles it to a Policy, which is shared by all calls of the route and can be
// reconfigured while they run. Do runs one call. The same Config is the gateway's file format, what the adviser
// proposes and what a rollout compares.
//
// Use it for calls over a network to something that has replicas or whose answers may be kept. Do not stack it: one
// layer of a call tree should retry, not each. Nothing here repeats a call that is not idempotent, unless the endpoint
// refused it before doing any work.
//
// The zero Config protects nothing and costs nothing; Config.Safe turns on what is safe for every call. What each part
// does, costs, and does on failure stands in its package and in docs/policies.
//
// # Concurrency
//
// Everything exported here and in the policies' packages is safe for concurrent use, balance.Check excepted. The
// deciders own no goroutine, timer or clock. Do starts goroutines for a hedged attempt (one for each half) and for a
// fetch for the cache (one, which belongs to the Policy and ends with Policy.Close); all of them end soon after their
// Work's Try returns, and Try returns soon after its context is done.
package longpole
