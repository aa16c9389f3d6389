// Package lab is a small distributed system to try Longpole on, with problems that can be planted and removed while
// it runs, the traffic for it, and the report of a demonstration.
//
// A [System] is built from a scenario; docs/lab.md says of it what is real. A [Lab] is the one system of the demonstration,
// which the rest of this page is about. Both are instrumented by the OpenTelemetry SDK.
//
// All services run in this process, each on a loopback listener of its own, and talk real HTTP. Every call between
// them goes through the gateway, so the gateway's policies act inside the system and not only at its edge:
//
//	client -> gateway -> frontend GET /checkout -> gateway -> orders (3 replicas), then pricing, then inventory
//	                     frontend GET /browse   -> gateway -> catalogue -> SQLite
//
// # What is real and what is simulated
//
// Real: listeners, connections, HTTP, trace context, spans over OTLP/HTTP, the catalogue's SQL and its table, and
// the fact that frontend makes its three calls one after the other.
//
// Simulated: the working time of frontend, orders, pricing and inventory, which are timers drawn from seeded lognormal
// distributions; and the disk under the catalogue. The expensive read scans and aggregates its whole table for real
// (some milliseconds of CPU), then waits as a table much larger than memory would make it wait. That wait lies inside
// the database span and is written into it as lab.simulated_wait_ms. The reason is that the whole system, the gateway
// and the analysis share one small machine: burnt CPU would slow all of them and measure nothing.
//
// Distributions are seeded by service instance. The order in which concurrent calls draw from them is not, so two
// runs agree in distribution and not call by call.
//
// # Problems
//
// A [Fault] is a value; [Lab.Plant] and [Lab.Remove] take effect with the next call. [Afflictions] are the two that
// a lab starts with: one of three replicas of orders is slow at times (a grey failure: healthy by its health check and by
// its median), and the catalogue's read scans its table although a prepared summary would do.
package lab
