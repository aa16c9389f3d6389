// Package advise turns findings into actions, each with its effect foretold: what p50, p95 and p99 will become, what it
// costs and what it risks. It is pure: traces and policies in, a [Report] out.
//
// # The forecast
//
// A change is tried on the recorded traces themselves, one by one, and the quantiles are read from what comes out; a mean
// is never moved. A trace is timed again from the calls that change up to its root: who waited for whom, and the own time of
// each span between its calls, stay as recorded. So a faster call off the critical path gains nothing, and the effect on a
// route of the gateway is carried to every route that calls it, however often and through whatever lies between.
//
// What a change does to a single call:
//
//   - hedge: a late attempt gets a copy with a latency drawn from the other endpoints; the faster of the two counts.
//   - cache: the recorded reads run through a simulated cache in their order; a hit leaves the caller's own time. The lifetime
//     is the shortest whose p99 lies among the hits in a canary too, where the cache sees half of the calls.
//   - drain: attempts at the slow endpoint get a latency drawn from the others.
//   - parallelise: calls of a chain start when the first of them did; those of one kind still follow each other.
//   - batch: one call of the loop stays, as long as the p95 of that loop's calls.
//
// # What it leaves out
//
// Load: that an upstream with fewer calls gets faster, and one with more slower. Causes that strike all endpoints at once.
// Who may see a cached answer. Each action says so where it matters. Intervals speak of the sample's luck only.
//
// # When it is silent
//
// Below 50 recorded calls, and for a gain under 10 %, there is no action; the finding's counter-evidence says why.
//
// Sources: virtual speed-up after Curtsinger and Berger, COZ (SOSP 2015), here over many processes; re-timing of traces
// after Uber's CRISP; order of the actions after the playbook "remove work, fewer calls, cache, tune, scale".
package advise
