// Package longpole runs a call under a policy that protects its latency: deadline, cache and coalescing, admission,
// retries within a budget, hedging, load balancing, circuit breaking and fallback, in one fixed order.
//
// A transport implements Work (and Storable, to be cached) once: how an attempt is made and judged. A Config says which
// protection a route gets; New compiles it to a Policy, which is shared by all calls of the route and can be
// reconfigured while they run. Do runs one call; Begin is for streams, whose attempt their owner makes. Packages
// httppolicy and grpcpolicy are the transports for net/http and grpc-go. The same Config is the gateway's file format, what the adviser
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
// deciders own no goroutine, timer or clock, and never block, so that a loop of events can drive them without Do. Do
// starts goroutines for a hedged attempt (one for each half), for a fetch for the cache and for a probe of an endpoint
// (one each, which belong to the Policy and end with Policy.Close); all of them end soon after their Work's Try or
// their Prober returns, and these return soon after their context is done.
package longpole
