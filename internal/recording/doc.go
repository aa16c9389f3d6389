// Package recording keeps sampled traffic in files, scrubbed, so that it can be sent again: against staging, against the
// next version, or faster than it came.
//
// A file is JSON, a line an entry, in a series of zstd frames (RFC 8878); `zstdcat` reads it. The first line says what it
// is. Each frame is whole in itself, so a file that was cut off, by a crash or a full disk, is readable up to its last
// whole frame. Files are named by the moment of their beginning, and end by size or age; at most so many are kept.
//
//	{"format":"longpole-recording","version":1,"start":"2026-01-01T00:00:00Z"}
//	{"at":1250000,"method":"GET","host":"shop.example","path":"/orders/8013","query":"page=2", ...}
//
// What is personal is not written at all, or not as it was:
//
//   - of header fields only those on a list are kept, and those that carry credentials never, whatever the list says;
//   - values of query parameters that carry credentials, or are listed, are replaced by a keyed hash;
//   - path segments that look like identifiers are replaced by others of the same shape, when asked;
//   - bodies are left out unless asked for: nobody can scrub what he cannot read.
//
// The key of the hashes is drawn anew for each file and kept nowhere: equal values stay equal within a file, so that
// caches and hot keys behave as they did, and cannot be told across files or be found by trial later.
//
// [Writer] blocks on the disk: its caller puts a bounded queue before it. [Reader] bounds what a hostile file can make
// it hold.
package recording
