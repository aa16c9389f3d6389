// Package scale says how many replicas a workload needs, in time for them to start, and why.
//
// The need follows from Little's law: calls per second times the time that each takes in a replica is how many are at work
// at once; a replica holds as many as the limiter found at its knee. What is expected is the highest of a slow average, of
// the fastest six seconds of the last minute, and of a straight line drawn to the moment at which a replica ordered now
// would be ready. Replicas are taken away only if a queueing model says that the p99 would hold without them, and only
// when that has been so for a while. CPU and memory can ask for more, never for less.
//
// A Decider is pure: it is told the time and what was counted, starts nothing, and stops nothing. Who acts on its
// Recommendation is its owner's choice; with DryRun nobody should.
//
// Use it for replicas that serve calls as they come. Do not use it for work that waits in a queue by design: scale that by
// the age of its oldest job. The trade-off: a spike is answered at once and paid for until ScaleInAfter is over.
//
// Sources: Little 1961; Erlang C with the correction of Allen and Cunneen; Knative's panic window of 6 s; the stabilisation
// window of Kubernetes' horizontal autoscaler.
package scale
