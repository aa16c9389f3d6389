// Package gateway is the net/http data plane: it takes calls in, finds their route, and makes them under the route's
// policy against the route's upstream.
//
// A call passes these steps:
//
//  1. A listener accepts HTTP/1.1, HTTP/2 in the clear (prior knowledge) or, with a certificate, both over TLS.
//  2. The table, an immutable value behind an atomic pointer, gives the first route in the order of the file that matches.
//  3. The route answers by itself, or draws one of its versions, and an arm: baseline, or a rollout's candidate. What it
//     rewrites is rewritten once, for all attempts.
//  4. longpole.Do runs the exchange under the arm's policy. Each attempt is a request of its own on the upstream's
//     http.Transport, in the protocol that the upstream is set to; auto is HTTP/1.1, HTTP/2 where an https endpoint offers
//     it, and HTTP/2 for gRPC wherever it goes. One over HTTP/1.1 in the clear whose request is in memory takes the
//     endpoint's lane instead: the goroutine of the call writes and reads by itself, which costs a third less.
//  5. The answer is streamed to the client, its trailers included, and flushed as it comes.
//  6. One call.Record feeds the histograms, the arm's tally, and the spans.
//
// What is changed on the way: hop-by-hop fields are removed, and those that Connection names (RFC 9110 section 7.6.1).
// X-Forwarded-For, -Host and -Proto say what this gateway saw; what the client sent under these names, in any spelling, and
// under Forwarded and X-Real-IP, is dropped, because the gateway is taken to be the edge, unless the connection is one of
// Config.Trust: then the chain is appended to, and the others are kept. Via is appended to. Host is the client's unless the
// upstream says rewrite_host. traceparent names the attempt as the parent. Up to eight informational answers (103) of a call
// pass to clients of HTTP/1.1 and later; whether a body that waits for 100 is sent is for the endpoint to say.
//
// A request body of up to Limits.ReplayBytes is kept, so that an idempotent call (by its method, or by Idempotency-Key) can
// be tried again or hedged; all kept bodies together have Limits.ReplayTotal. A longer body is streamed to a single attempt,
// which is repeated only when no connection was made. One of unknown length is streamed too, and kept as it passes, so that
// the next attempt can begin with what the first has read; only where a hedge may want a copy it is read ahead. Nothing is
// read ahead of a sender that may wait: gRPC, and Expect: 100-continue. Within one attempt a call goes to another connection
// only when the endpoint has seen nothing of it on the first, or says that it did not look at it (HTTP/2).
//
// Streams: the policy's timeout covers the head of every answer, and the body of most. Server-sent events, gRPC, switched
// connections, and routes with stream: true go on for as long as they move: Limits.StreamIdle of silence, both ways, ends
// them, and so does a deadline that the client itself sent. What comes is flushed as it comes.
//
// gRPC: grpc-status decides how a call ended, in the head of an answer without messages or in its trailers;
// grpc-timeout is read as the deadline, and sent on as what is left of it. What is refused here is refused with a status, and
// a stream that the upstream resets ends with one, by the table of the gRPC protocol. An UNAVAILABLE is repeated only for a
// call with an Idempotency-Key, a stream that the endpoint did not look at always.
//
// Another protocol than HTTP, such as WebSocket, is a tunnel once the endpoint has agreed with 101: bytes are copied both
// ways and not looked at. It counts with its head only, is left Limits.DrainTimeout when the gateway stops, and then broken
// off. A 101 that was not asked for is a 502. Upgrade: h2c is ignored. CONNECT is refused, in its extended form (RFC 8441)
// too: net/http does not offer that. Over HTTP/2 a WebSocket client falls back to HTTP/1.1, as its rules say.
//
// What is refused as malformed, beyond what net/http refuses: a target with a space, fragment, control or non-ASCII
// character, dot segments (also encoded, behind a backslash or with a parameter), NUL; a user in the target; a host that is
// none, or another one than :authority; more than 256 fields. Encoded slashes and // pass as they are. The connection ends
// with such a call, as it does when a body turns out to be none, so that nothing after it is taken for a request. Where
// net/http lets Content-Length stand beside Transfer-Encoding, and where equal lengths are repeated, the call is framed
// anew, once.
//
// What a client can hold is bounded: a head by Limits.HeaderTimeout, HeaderBytes and 256 fields; a body by its stall and by
// Limits.BodyRate; an answer by the time in which it must take each 32 KiB; a connection of HTTP/2 by 250 streams and frames
// of 16 KiB. Floods of resets, CONTINUATION, SETTINGS and PING are held off by the HTTP/2 server of net/http.
//
// An answer that the gateway makes itself carries X-Longpole-Error with the reason, and says it in JSON:
//
//	no_route 404 · bad_request 400 · malformed 400 · loop 508 · body_too_large 413 · body_timeout 408 · not_supported 501
//	no_endpoint 503 · breaker_open 503 · shed 503 · draining 503
//	refused 502 · upstream_error 502 · answer_too_large 502 · timeout 504 · fault (injected on purpose, with its own status)
//
// A client that went away before the head of its answer is recorded as 499.
//
// Failure: when all endpoints of an upstream are unfit the route fails closed, with 503 and Retry-After; one endpoint is
// tried again as its active check or its breaker's probe finds it well. A reload that is faulty changes nothing.
package gateway
