// Package load sends open-loop traffic over HTTP and says what came of it.
//
// Open loop means that calls arrive at their own times, whatever the system answers. A closed loop (N workers that
// each wait for their answer) slows down together with the system under test and so leaves out exactly the calls
// that would have been slow: coordinated omission. Here each arrival has an intended start, drawn from a seeded
// Poisson or uniform process, and
//
//	response time = end of the answer's body - intended start
//	service time  = end of the answer's body - moment of sending
//	lag           = moment of sending - intended start
//
// Response time is what a user would have felt and is the figure to quote; service time stands beside it. Lag is
// the generator's own fault. When it is large the machine was too busy to generate the traffic, the run measures
// the generator, and [Result.Doubt] says so.
//
// Each target has a bound on its calls in flight. An arrival beyond it is not sent late: it is dropped, and
// counted, for an unbounded queue inside the generator would only hide the overload.
//
// Instead of being generated, a target's calls may be those of a recording: [Replay].
//
// One Generator runs one continuous stream. [Generator.Begin] names the phase that arrivals belong to from then on,
// so that the same traffic can be read before, during and after a change. A call belongs to the phase in which it
// was due, however long it takes.
//
// Sources: Gil Tene, "How NOT to Measure Latency" (coordinated omission); Schroeder, Wierman, Harchol-Balter, "Open
// Versus Closed: A Cautionary Tale", NSDI 2006; the pacing decider follows vegeta's lib/pacer.go.
package load
