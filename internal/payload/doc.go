// Package payload decides how the bytes of an answer travel: with which content coding, under which entity tag, and how
// many of them at most. It also measures sizes.
//
// An answer is compressed when all of this holds:
//
//   - the client takes a coding that the route has (Accept-Encoding, RFC 9110 section 12.5.3),
//   - the answer is of a listed type and not known to be smaller than the minimum,
//   - it is whole (no 204, 205, 206, 304, no Content-Range) and not encoded yet,
//   - neither side says no-transform, and no digest in its fields speaks of the bytes as they are,
//   - it is no event stream, unless the route asks for that.
//
// Then Content-Encoding is set, Content-Length and Accept-Ranges go, and a strong ETag becomes a weak one, because the
// bytes are no longer those that it named (RFC 9110 section 8.8.3.3). Vary: Accept-Encoding stands on every answer that
// another client might have got encoded, HEAD and 304 included.
//
// Encoders are pooled, and at most so many run at once: an answer beyond that goes out as it is, and is counted. So what
// clients can make compression cost is bounded in memory, and bodies never wait for it.
//
// When not: with answers that hold a secret beside text that an attacker chooses, the compressed length tells the secret
// byte by byte (BREACH). Leave compression off for such routes.
//
// Nothing here decodes: bodies that come encoded pass as they are, so that there is no decompression bomb to defuse.
// [Read] is for those who must, with a bound.
package payload
