// Package balance chooses the endpoint that a call goes to, and knows which endpoints are fit to serve.
//
// A Set holds the endpoints of one upstream with their load and their health, and is shared by everything that calls
// them. A Balancer chooses among them by one algorithm. A Check turns the results of active health checks into health.
//
// Use P2C (the default) unless all endpoints are alike and all calls cost the same: round robin does not see that an
// endpoint is slow. P2C sees only the calls of this process; many small clients in front of a few endpoints need more.
//
// Nothing here owns a goroutine, a timer or a clock, and any number of goroutines may use it.
package balance
