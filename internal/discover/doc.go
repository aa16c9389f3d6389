// Package discover finds where an upstream's endpoints are: in DNS, in a file that is watched, or in the EndpointSlices
// of Kubernetes.
//
// A Source sends full sets, never differences, until its context ends, and only when a set differs from the one before.
// The rules that keep a gateway alive when the source of truth is not:
//
//   - What fails changes nothing. While a server does not answer, a file cannot be read or means nothing, or a watch is
//     broken, the last good set stays in force, however long that takes: endpoints that are gone are found by health
//     checks, endpoints that are forgotten are found by nobody.
//   - A set that is empty is believed only after Config.KeepEmpty, as most empty sets are accidents: a deployment that
//     restarts, a selector with a typing error, a zone that was reloaded half.
//   - A set has at most MaxEndpoints; what is beyond is dropped, counted and logged.
//   - Pauses after failures double up to a bound, and all pauses are spread by chance, so that a hundred gateways do not ask in step.
//
// The deciders (what an answer means, how long it holds, how long to pause) are pure and told the time; the loops around
// them are few lines.
package discover
