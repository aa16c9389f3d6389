// Package slo says how much may go wrong, how much of that is used up, and when a person must be told.
//
// An Objective promises that a share of a route's calls is good: answered, or answered within a threshold. What may be
// bad of a period is its error budget. Burn is how fast it is used: 1 uses it up in exactly one period. An alert fires
// when the burn of a long window and of a short one are both above a factor: the long one makes it significant, the
// short one makes it end soon after the trouble does. A guard for low traffic keeps an accident of few calls from waking
// anybody.
//
// A Book holds the objectives, their counts in buckets that get coarser as they age, and the alerts. It is told the time,
// owns no goroutine and reads no file; all of it is safe for concurrent use. Feed it each ten seconds or so:
//
//	book.Observe(now, o.Name, o.Count(route.Classes, latency))
//	for _, e := range book.Evaluate(now) { notify(e) }
//
// Use it for routes with calls to count. Do not use it for jobs that run once a day: a share of few events says little
// in any window. The trade-off: counts are kept by bucket, so a window may be up to one bucket short of its length.
//
// Sources: Google, The Site Reliability Workbook, chapter 5 (multi-window, multi-burn-rate alerts); the factors as Sloth
// computes them; the guard is a Poisson test.
package slo
