// Package fault decides which call suffers what, on purpose: an experiment that shows whether the policies hold what
// they promise, before an accident does.
//
// A [Set] holds the faults of one route. Each fault has conditions (share, method, header, range of trace-id hashes), one
// or several effects (delay, abort, reset, bandwidth, silence) and an end: its TTL is mandatory, and a stop condition may
// end it earlier. At most one fault hits a call, the oldest of those that would.
//
// What is hit is a function of the seed and of the order in which calls come, so that an experiment can be repeated. A
// range of trace-id hashes needs no seed: each gateway and each of a trace's calls gives the same answer, and a trace is
// hit along its whole path or not at all.
//
// Everything here is pure: it is told the time and the call, and does nothing itself. What is not running costs nothing;
// a Set without a fault answers after one atomic load.
//
// Source: the fault filter of Envoy (delay, abort, rate limit, max_active_faults) and Chaos Engineering (Basiri et al.,
// IEEE Software 2016) for hypothesis, blast radius and stop condition.
package fault
