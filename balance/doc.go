// Package balance chooses the endpoint that a call goes to, and knows which endpoints are fit to serve.
//
// A Set holds the endpoints of one upstream with their load and their health by active checks, and is shared by
// everything that calls them. A Balancer chooses among them by one algorithm, learns from how calls end, and takes out
// for a while those that do worse than the others. A Check turns the results of active health checks into health. A ServerLoad
// is the other side of Prequal: what a server says when it is asked for its load.
//
// Which algorithm: P2C (the default) when little is known. PeakEWMA when endpoints differ in speed or get slow at times.
// Weighted when their capacities are known and calls are alike. Prequal when many clients share the
// endpoints and those can be asked: the others see only the calls of this process. RoundRobin sees nothing, and is for tests.
//
// Nothing here owns a goroutine, a timer or a clock, and any number of goroutines may use it.
package balance
