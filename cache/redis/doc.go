// Package redis is the cache's second tier in Redis: answers that several processes share and that outlive them.
//
// It keeps what it read in the process as long as Redis does not say that it changed (client-side caching, RESP3
// tracking), so a key that is read again and again costs no round trip. Concurrent commands share a connection
// (pipelining).
//
// It fails open, and fast: no call waits for Redis longer than Config.Timeout to connect and as long for an answer. When
// half of at least five lately failed, Redis is not asked at all for Config.Pause; then one call tries again. So it
// recovers by itself, and a Redis that is down at the start is no error.
//
// Use it where a fetch costs much more than a round trip to Redis, or where a restarted process must not ask for
// everything again. Do not use it as a store: what is in it may be gone at any time.
package redis
