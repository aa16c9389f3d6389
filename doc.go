// Package longpole runs a call under a policy that protects its latency: deadline, cache and coalescing, retries
// within a budget, hedging, load balancing and circuit breaking, in one fixed order.
package longpole
