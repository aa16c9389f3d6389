// Package stats is the arithmetic that percentiles and verdicts rest on: a
// mergeable latency histogram with a bounded relative error, the tally of what
// an arm of a route did, and the tests that judge one arm against another.
//
// Everything here is told the time and owns no goroutine.
package stats
