package diagnose

// Cause is one kind of finding: its code, the name that its page in docs/findings has, and the class of what it finds.
type Cause struct {
	Code  string // as LP103
	Name  string // as slow_endpoint
	Class string // as dependency
}

// Causes is every kind of finding that names a cause, by code. LP105 names none: it says where the time is, and guesses the class by that.
func Causes() []Cause {
	return []Cause{
		{"LP101", "serial_calls", "serial_calls"},
		{"LP102", "n_plus_one", "n_plus_one"},
		{"LP103", "slow_endpoint", "dependency"},
		{"LP104", "repeated_reads", "repeated_reads"},
		{"LP106", "cpu", "cpu"},
		{"LP107", "queueing", "queueing"},
		{"LP108", "network", "network"},
		{"LP109", "database", "database"},
		{"LP110", "lock", "lock"},
		{"LP111", "pool_exhaustion", "pool_exhaustion"},
		{"LP112", "retry_storm", "retry_storm"},
		{"LP113", "hedge_loser", "hedge_loser"},
		{"LP114", "oversize_payload", "oversize_payload"},
		{"LP115", "cache_miss", "cache_miss"},
		{"LP116", "cold_start", "cold_start"},
		{"LP117", "gc_pause", "gc_pause"},
		{"LP118", "timeout_too_long", "timeout_too_long"},
		{"LP119", "timeout_too_short", "timeout_too_short"},
		{"LP120", "dependency", "dependency"},
		{"LP121", "fan_out", "fan_out"},
		{"LP122", "grey_failure", "grey_failure"},
		{"LP123", "overload", "overload"},
		{"LP124", "clock", "clock"},
		{"LP125", "sync_work", "sync_work"},
	}
}
