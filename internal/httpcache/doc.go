// Package httpcache is the rules of a shared HTTP cache, as pure functions: which answers may be kept and for how long,
// which of them answers a request, how a kept one is confirmed, brought up to date, cut into ranges, and dropped.
//
// It follows RFC 9111 (HTTP caching), RFC 5861 (stale-while-revalidate, stale-if-error), RFC 9211 (Cache-Status),
// RFC 9213 (CDN-Cache-Control), and RFC 9110 sections 13 (conditions) and 14 (ranges). Where these leave a choice, the
// careful one is taken:
//
//   - Errors are kept only when they are about the target and not about the request (404, 405, 410, 414, 451, 501), even if
//     they say otherwise: one request with a poisonous header would take a page away from everybody. Without a lifetime of
//     their own these are kept for Rules.NegativeTTL.
//   - An answer that sets a cookie is kept only when it says public or s-maxage, and then without the cookie.
//   - An answer to a request with Authorization is kept, and a kept one is given to such a request, only when it says
//     public, s-maxage or must-revalidate. With Cookie, only when it says itself how long it is fresh.
//   - An answer that has a Content-Encoding, or allows one origin (Access-Control-Allow-Origin), is taken to vary on the
//     request field that it depends on, also when it forgets to say so.
//
// Nothing here does any work beside the text at hand: there is no clock, no store and no goroutine. What a peer sends is
// bounded by the size of its head. All functions are safe for concurrent use; they do not change their arguments unless
// they say so.
package httpcache
