// Package gateway is the net/http data plane: it takes calls in, finds their route, and makes them under the route's
// policy against the route's upstream.
//
// A call passes these steps:
//
//  1. A listener accepts HTTP/1.1, HTTP/2 in the clear (prior knowledge) or, with a certificate, both over TLS.
//  2. The table, an immutable value behind an atomic pointer, gives the first route in the order of the file that matches.
//  3. The route answers by itself, or draws one of its versions, and an arm: baseline, or a rollout's candidate. What it
//     rewrites is rewritten once, for all attempts.
//  4. longpole.Do runs the exchange under the arm's policy. Each attempt is a request of its own on a shared
//     http.Transport: HTTP/1.1, or HTTP/2 where an https endpoint offers it.
//  5. The answer is streamed to the client, its trailers included, and flushed as it comes.
//  6. One call.Record feeds the histograms, the arm's tally, and the spans.
//
// What is changed on the way: hop-by-hop fields are removed, and those that Connection names (RFC 9110 section 7.6.1).
// X-Forwarded-For, -Host and -Proto say what this gateway saw; what the client sent under these names, and under
// Forwarded and X-Real-IP, is dropped, because the gateway is taken to be the edge. Via is appended to. Host is the
// client's unless the upstream says rewrite_host. traceparent names the attempt as the parent. Informational (1xx)
// answers are not passed on.
//
// A request body of up to Limits.ReplayBytes is kept, so that an idempotent call (by its method, or by Idempotency-Key) can
// be tried again or hedged; a longer one is streamed to a single attempt, which is repeated only when no connection was
// made. Within one attempt the transport itself repeats such a call when a kept connection turns out to be closed.
//
// Not supported: protocol upgrades (WebSocket) and CONNECT are refused with 501.
//
// An answer that the gateway makes itself carries X-Longpole-Error with the reason, and says it in JSON:
//
//	no_route 404 · bad_request 400 · loop 508 · body_too_large 413 · body_timeout 408 · not_supported 501
//	no_endpoint 503 · breaker_open 503 · shed 503 · draining 503
//	refused 502 · upstream_error 502 · answer_too_large 502 · timeout 504 · fault (injected on purpose, with its own status)
//
// A client that went away before the head of its answer is recorded as 499.
//
// Failure: when all endpoints of an upstream are unfit the route fails closed, with 503 and Retry-After; one endpoint is
// tried again as its active check or its breaker's probe finds it well. A reload that is faulty changes nothing.
package gateway
