// Package review says which optimisations still help, what has gone stale, and what the new long pole is.
//
// A change that helped when it was made need not help for ever: the traffic moves, the dependency is mended, the cache no
// longer hits. So each promoted change keeps a small share of the calls on the policy without it, and Watch judges the two for as
// long as it is in force, by the test that judged the rollout:
//
//	still helps   better than the policy before on the target that it was promoted for
//	decayed       better still, but by less than half of what it was
//	no effect     a whole window of evidence shows no difference: propose to remove it
//	now harmful   worse than the policy before
//
// Run puts that together with the ledger of all changes, lints of settings that no longer fit what is measured (LP3xx, one
// file each), what became of the segments' shares of p99, the score of the adviser's predictions, and which faults were
// ever exercised. Everything is pure: told the time, reading nothing, starting nothing.
//
// Do not read "no effect" as a proof: the holdback is a small share of the calls, and Standing says how many they were.
package review
