// Package evidence holds what was read from the systems behind a trace, and the pure functions that make sense of it: PostgreSQL
// plans, statements, locks and indexes, profiles, Redis, queues, and the runtime of a process.
//
// It gives numbers and texts, never a verdict: what a number means for a slow trace is for the rules that weigh it against the
// trace. It reads nothing by itself; what does is internal/probe. What could not be read stands beside what was, as a Gap.
//
// All types are plain values and safe to read from several goroutines as long as nobody changes them. Their zero values mean
// "nothing read".
package evidence

// Gap is something that could not be read, and why; what a rule must not take for "there is none".
type Gap struct {
	What string `json:"what"` // "pg_stat_statements", "query texts of other users"
	Why  string `json:"why"`  // "the extension is not installed in this database"
}
