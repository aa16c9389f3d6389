// Package httppolicy brings a longpole.Policy to net/http: a RoundTripper for the side that calls, and a handler for the
// side that answers.
//
// # Calling
//
// Transport makes each request a call under the policy. The endpoint that the policy picked replaces the host of the
// request's URL, while the Host header stays; a policy without endpoints goes where the URL says. A request is repeated
// or hedged only when its method is idempotent (RFC 9110 section 9.2.2) or it has an Idempotency-Key, and its body can
// be had again: from GetBody, or because it is of a known length up to Options.ReplayBytes and was kept. One whose
// connection could not be made is repeated whatever it is. Retry-After is honoured. Trace headers are left as they are.
//
// # Answering
//
// Handler admits requests by a limit.Limiter, takes the caller's deadline into the request's context, refuses what
// cannot end in time, and reports the server's load, for Prequal, in a header of each answer and at a path of its own.
//
// # Deadlines
//
// What is left of a call's time travels as a duration in X-Request-Timeout-Ms, whole milliseconds, so that clocks need
// not agree. Each Transport writes what is left when it sends, so that the value shrinks from hop to hop. Handler also
// reads Grpc-Timeout (the format of gRPC over HTTP/2: at most eight digits and one of H M S m u n) and
// X-Envoy-Expected-Rq-Timeout-Ms; the shortest holds.
package httppolicy
