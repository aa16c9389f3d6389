// Package rollout tries a change of a route's policy on a part of its traffic, judges it against an equal part that
// keeps the old policy, and promotes it or drops it.
//
// It has three parts. The Judge turns what the two cohorts did, slice by slice, into a verdict that may be read at any
// time. The machine (machine.go) decides from verdicts how far to ramp and when to end. Both are pure: they are told
// the time and start nothing. The Controller drives them against a Target, which moves the traffic.
//
// The baseline is what every doubt falls back to: with little traffic, without data, with an uneven split, with a Target
// that errs, at the end of the program, the candidate is dropped and the old policy stays.
//
// What was promoted is not out of sight: each promoted change keeps a few calls on today's policy without it, so that a review can
// tell whether it still helps, and each can be taken back alone.
//
// A change that both cohorts would feel, such as a smaller shared cache or a limit on shared connections, needs a switchback:
// side by side the baseline would suffer with the candidate, and the comparison would not show it.
package rollout
