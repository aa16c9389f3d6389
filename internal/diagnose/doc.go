// Package diagnose says from traces where the time of requests goes, and why.
//
// # One trace
//
// [Build] makes a [Tree] of a trace: spans that cannot be are dropped, each span is there once, clocks that are off are
// corrected, and everything stands in an order that does not depend on the input's. [Tree.Path] is the critical path:
// which span held up the request, moment by moment. By definition:
//
//  1. The path of a root partitions its duration exactly.
//  2. From the end backwards, the blocking child that ends last holds up its parent. The parent owns the gaps. Calls may
//     follow each other without a gap.
//  3. Of children that end together the one that starts first counts, then the one whose ID is first.
//  4. Non-blocking are: producer to consumer; FOLLOWS_FROM; a child that starts when its parent has ended; a child that
//     ends after its parent by the same clock, by more than its step and 1 % of the parent, unless it is the server of a
//     client. They have paths of their own: [Tree.Async].
//     Canceled children are off the path when a sibling beside them finished first: the losers of hedges.
//  5. Any other child is cut to its parent, and its children with it: a wrong clock, or a caller that gave up.
//  6. Children that overlap by less than 1 % of their parent, or by one step of the clock, follow each other if no third
//     one starts or ends meanwhile.
//  7. Clocks are corrected first, between hosts that are known and differ: [CentreSkew].
//  8. Spans whose parent is missing are reported, and make the trace incomplete; without any root, spans that miss the
//     same parent get a synthetic one.
//  9. Cycles, IDs that are there twice, and ends before starts are dropped and counted.
//
// Where spans do not tell their kind, a change of service is taken for a call, and names that end in "send" and "process"
// for a message.
//
// One trace cannot tell a child that was waited for from one that ran beside the work and happened to end just then;
// the path of a trace on its own takes them all for waited for. [Tree.Floats] is how much room each span has.
//
// # Many traces
//
// [Trees] makes the trees of traces of one system, which correct each other: what the clocks of its hosts show, and which
// siblings wait for each other.
//
// [Run] puts the paths of many traces together: per route, what the slow ones spend their time on and the fast ones do
// not, and what is known causes of that. Compare finds which service makes suspect traffic slower than healthy traffic.
//
// The package is pure: it reads no clock, starts no goroutine, and the same traces give the same report.
//
// Sources: Jaeger's UI (critical path by the child that ends last), Uber's CRISP (overlapping siblings), Jaeger's and
// Zipkin's clock skew adjusters, Marzullo's algorithm (clocks over many traces), The Mystery Machine (orders over many
// traces), Honeycomb's BubbleUp (what slow traces have).
package diagnose
