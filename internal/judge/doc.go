// Package judge says whether a candidate is worse than, no worse than, or better than the baseline that ran beside it,
// from what both did slice by slice. It may be asked after every slice: its error rates hold for the first
// time that it says something, not only for one look at the end.
//
// Two tiers share one budget of error, AlphaWorse. The fast tier looks every second for what nobody should wait for:
// errors, timeouts, and calls more than four times as slow as p99. It counts at most one such event per second, arm and
// instance, so that a burst is one event, and asks whether the arms have them equally often. The main tier takes
// slices of ten seconds and asks, for every metric, whether the candidate is beyond a margin of the baseline.
//
//	metric                    worse beyond              no worse within
//	p50, p95, p99, p99.9      1.03 1.06 1.10 1.26       1.06 1.10 1.26 1.49   times the baseline's
//	errors, timeouts          +0.1 % of calls           +0.5 % of calls
//	attempts per call         1.25 times (by Config)    the same
//	cost per call             1.10 times (by Config)    1.25 times
//	a downstream's calls      as attempts               the same
//	a downstream's p95        1.10 times                1.26 times
//	a downstream's errors     +0.1 % of its calls       +0.5 %
//	shed                      the price of Config       2 % of calls more than that
//
// Latencies are of calls that were served. A call that a policy refused is an error unless Config.Shed states a price: then
// the share of refused calls is a metric of its own and all others are judged per call that was served.
//
// Beside the slices' differences, NO WORSE and IMPROVED go by what each arm's calls say alone, see trials: where hardly a slice
// has a slow call or an error, that tells a big improvement sooner.
//
// Everything is pure: told the time where it needs one, owning no goroutine and no clock.
//
// Do not use it to compare one day with another, or one machine with another: what differs between them besides the
// change is in the difference as well. Use cohorts drawn at random from the same traffic or, for a change that both
// would feel, a Switchback.
//
// Sources: Lindon, Ham, Tingley, Bojinov 2022 (arXiv 2210.08589) for the main tier; Lindon, Malek 2022 (arXiv
// 2011.03567) for the fast one; Newey, West 1987 for slices that resemble their neighbours; Wald 1945 for one arm's
// calls alone.
package judge
