package stats

// Tally is what one arm of a route has done since it began. All fields only grow. It is a value: copies share nothing
// that changes.
type Tally struct {
	Latency   Snapshot // of the calls, to the head of the answer or to the error
	Calls     uint64   // ended calls, whatever their class
	Failed    uint64   // calls whose dependency failed; TimedOut is part of it
	TimedOut  uint64
	Shed      uint64 // calls that a policy refused
	Attempts  uint64 // sent to the dependency: first ones, retries and hedges
	Hedges    uint64
	Retries   uint64
	CacheHits uint64 // answered without waiting for the dependency
}

// Sub is what was done since earlier, a Tally of the same arm. A count that
// shrank, because the arm began anew, gives 0.
func (t Tally) Sub(earlier Tally) Tally {
	since := func(now, then uint64) uint64 { return now - min(now, then) }
	return Tally{
		Latency:   t.Latency.Sub(earlier.Latency),
		Calls:     since(t.Calls, earlier.Calls),
		Failed:    since(t.Failed, earlier.Failed),
		TimedOut:  since(t.TimedOut, earlier.TimedOut),
		Shed:      since(t.Shed, earlier.Shed),
		Attempts:  since(t.Attempts, earlier.Attempts),
		Hedges:    since(t.Hedges, earlier.Hedges),
		Retries:   since(t.Retries, earlier.Retries),
		CacheHits: since(t.CacheHits, earlier.CacheHits),
	}
}

// Merge is both together, as of two gateways that serve the same arm.
func (t Tally) Merge(o Tally) Tally {
	return Tally{
		Latency:   t.Latency.Merge(o.Latency),
		Calls:     t.Calls + o.Calls,
		Failed:    t.Failed + o.Failed,
		TimedOut:  t.TimedOut + o.TimedOut,
		Shed:      t.Shed + o.Shed,
		Attempts:  t.Attempts + o.Attempts,
		Hedges:    t.Hedges + o.Hedges,
		Retries:   t.Retries + o.Retries,
		CacheHits: t.CacheHits + o.CacheHits,
	}
}
