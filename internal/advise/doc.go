// Package advise turns findings into actions, each with its effect foretold: what p50, p95 and p99 will become, what it
// costs and what it risks. It is pure: traces and policies in, a [Report] out. [WhatIf] forecasts a change that a person
// thinks of.
//
// # The playbook
//
// Every kind of action is one file, one entry of the playbook and one page in docs/actions. Work that is gone comes before work
// that is moved, fewer calls before caching, caching before tuning, tuning before scaling, and guards last; within a step
// the greater gain at p99 comes first. A cure that is ours carries the edit of a policy; the others carry the exact text to
// run or the shape of the code, and settings for other proxies and libraries where they map.
//
// # The forecast
//
// A change is tried on the recorded traces themselves, one by one, and the quantiles are read from what comes out; a mean
// is never moved. A trace is timed again from the calls that change up to its root: who waited for whom, and the own time of
// each span between its calls, stay as recorded. So a faster call off the critical path gains nothing, and the effect on a
// route of the gateway is carried to every route that calls it, however often and through whatever lies between. A sampled
// trace counts for as many as it stands for.
//
// What a change does to a single call:
//
//   - speed-up: its own time, in which it waits for nobody, is divided, or cut. A database's round trip is not work.
//   - hedge, drain, time-out: an attempt gets a latency drawn from other attempts; from those in traces that are as slow
//     elsewhere, where that makes a difference.
//   - cache: the recorded reads run through a simulated cache in their order; a hit leaves the caller's own time. The lifetime
//     is the shortest whose p99 lies among the hits in a canary too, where the cache sees half of the calls.
//   - parallelise: calls of a chain start when the first of them did; those of one kind still follow each other.
//   - batch: one call of the loop stays, as long as the p80 of that loop's calls.
//   - a pool's size: the recorded statements run again with more connections, each from when it was asked for.
//   - a lock of a process: a call that met others of its kind takes what those that met none do.
//   - replicas, shed: the wait between the caller's span and the callee's is mapped, rank by rank, to that of
//     a queue with the measured rate, service times and their variation.
//   - payload: the slope of latency over size, times the bytes that go.
//   - breaker: the recorded outcomes run through the real one.
//
// # What it leaves out
//
// Load, apart from queues that the traces show: that an upstream with fewer calls gets faster, and one with more slower. Causes
// that strike all endpoints at once. Who may see a cached answer. Each action says so where it matters. An interval speaks of
// the sample's luck, of bursts, and of a part of the change itself for the model; docs/bench/whatif.md says how often it held.
// Where rollouts measured that the intervals for a kind of action hold too seldom, [Report.Widen] widens them.
//
// # When it is silent
//
// Below 50 recorded calls, and for a gain under 10 %, there is no action; the finding's counter-evidence says why. Guards,
// and what finds out more, may be proposed without a forecast, and then promise none.
//
// Sources: virtual speed-up after Curtsinger and Berger, COZ (SOSP 2015), here over many processes; re-timing of traces
// after Uber's CRISP; the sources of each model stand beside it.
package advise
