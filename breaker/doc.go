// Package breaker stops calling what keeps failing, and finds out when it works again.
//
// Use one breaker for each endpoint, so that calls can go to the others meanwhile. Do not use one for a dependency
// that fails only for some callers or some arguments: it would cut off the rest. While it is open calls fail fast, so
// have something to answer them with: another endpoint, a stale answer, an honest error.
//
//	closed ──too many failed or slow──> open ──OpenFor passed──> half-open ──all probes good──> closed
//	                                     ^───────one probe failed───────┘
//
// A Breaker is told the time. It owns no goroutine, timer or clock, and any number of goroutines may use it.
package breaker
