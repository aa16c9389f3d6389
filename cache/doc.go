// Package cache keeps answers for a while, and lets calls that ask the same at the same time share one fetch.
//
// Use it for answers that many callers ask for, that depend on nothing but the key, and that may be a little old. Do
// not use it for answers that belong to one user unless the user is in the key, nor to hide a dependency that cannot
// serve the load after a restart: the cache starts empty.
//
// What goes wrong with such caches, and what is done here:
//   - Many calls miss at once: they share one fetch, a Flight. It belongs to no caller; the one who began it may leave.
//   - The fetch fails: nothing is stored, its followers fetch for themselves or use the stale answer (RFC 5861).
//   - The answer may not be stored: its followers are let go at once, and the key is remembered for a while, so that
//     its calls do not queue behind each other ("hit-for-miss").
//   - Answers that came together expire together: each is kept for a little less, at random (Config.Jitter), and an answer
//     that is asked for often is fetched anew before its end, by chance (Config.EarlyRefresh) or by a list (Warm, Due).
//   - Many ask for what is not there: that too is kept, briefly (Negative).
//   - The process restarts with an empty cache: a second Tier, such as Redis, keeps what was there.
//   - Keys or answers grow without end: the store is bounded by weight (otter, W-TinyLFU), the memory of keys by number.
//
// A Cache is told the time. It owns no goroutine, timer or clock, and any number of goroutines may use it. It fails
// open: whatever it cannot answer is fetched.
package cache
