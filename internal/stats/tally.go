package stats

import "time"

// Tally is what one arm of a route has done since it began. All fields only grow. It is a value: copies share nothing
// that changes.
type Tally struct {
	// Latency is of the calls, to the head of the answer or to the error. An arm that is compared with another has those
	// alone that were answered or timed out: a quick refusal is no quick answer.
	Latency Snapshot
	// FailedLatency is of the calls of such an arm that failed otherwise than by a timeout.
	FailedLatency Snapshot

	Calls     uint64 // ended calls, whatever their class
	Failed    uint64 // calls whose dependency failed; TimedOut is part of it
	TimedOut  uint64
	Shed      uint64 // calls that a policy refused
	Attempts  uint64 // sent to the dependency: first ones, retries and hedges
	Hedges    uint64
	HedgesWon uint64 // of Hedges: those whose answer was the call's
	Retries   uint64
	CacheHits uint64 // answered without waiting for the dependency

	CPU         time.Duration // processor time spent on the calls, wherever it was measured; 0 = not measured
	Bytes       uint64        // of bodies to and from the dependency; 0 = not measured
	Downstreams []Downstream  // what the calls caused behind the route, in ascending order of Name; never written to
}

// Downstream is what one arm's calls caused at a system behind the route.
type Downstream struct {
	Name          string
	Latency       Snapshot // as a Tally's
	FailedLatency Snapshot // as a Tally's
	Calls         uint64   // ended ones
	Failed        uint64
}

// Sub is what was done since earlier, a Tally of the same arm. A count that
// shrank, because the arm began anew, gives 0.
func (t Tally) Sub(earlier Tally) Tally {
	return Tally{
		Latency:       t.Latency.Sub(earlier.Latency),
		FailedLatency: t.FailedLatency.Sub(earlier.FailedLatency),
		Calls:         since(t.Calls, earlier.Calls),
		Failed:        since(t.Failed, earlier.Failed),
		TimedOut:      since(t.TimedOut, earlier.TimedOut),
		Shed:          since(t.Shed, earlier.Shed),
		Attempts:      since(t.Attempts, earlier.Attempts),
		Hedges:        since(t.Hedges, earlier.Hedges),
		HedgesWon:     since(t.HedgesWon, earlier.HedgesWon),
		Retries:       since(t.Retries, earlier.Retries),
		CacheHits:     since(t.CacheHits, earlier.CacheHits),
		CPU:           since(t.CPU, earlier.CPU),
		Bytes:         since(t.Bytes, earlier.Bytes),
		Downstreams:   join(t.Downstreams, earlier.Downstreams, Downstream.sub),
	}
}

// Merge is both together, as of two gateways that serve the same arm.
func (t Tally) Merge(o Tally) Tally {
	return Tally{
		Latency:       t.Latency.Merge(o.Latency),
		FailedLatency: t.FailedLatency.Merge(o.FailedLatency),
		Calls:         t.Calls + o.Calls,
		Failed:        t.Failed + o.Failed,
		TimedOut:      t.TimedOut + o.TimedOut,
		Shed:          t.Shed + o.Shed,
		Attempts:      t.Attempts + o.Attempts,
		Hedges:        t.Hedges + o.Hedges,
		HedgesWon:     t.HedgesWon + o.HedgesWon,
		Retries:       t.Retries + o.Retries,
		CacheHits:     t.CacheHits + o.CacheHits,
		CPU:           t.CPU + o.CPU,
		Bytes:         t.Bytes + o.Bytes,
		Downstreams:   join(t.Downstreams, o.Downstreams, Downstream.merge),
	}
}

func since[N uint64 | time.Duration](now, then N) N { return now - min(now, then) }

func (d Downstream) sub(earlier Downstream) Downstream {
	d.Latency, d.FailedLatency = d.Latency.Sub(earlier.Latency), d.FailedLatency.Sub(earlier.FailedLatency)
	d.Calls, d.Failed = since(d.Calls, earlier.Calls), since(d.Failed, earlier.Failed)
	return d
}

func (d Downstream) merge(o Downstream) Downstream {
	d.Latency, d.FailedLatency = d.Latency.Merge(o.Latency), d.FailedLatency.Merge(o.FailedLatency)
	d.Calls, d.Failed = d.Calls+o.Calls, d.Failed+o.Failed
	return d
}

// join pairs two lists by name. What stands in one alone is paired with one that did nothing.
func join(a, b []Downstream, with func(a, b Downstream) Downstream) (all []Downstream) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			all, a = append(all, with(a[0], Downstream{Name: a[0].Name})), a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			all, b = append(all, with(Downstream{Name: b[0].Name}, b[0])), b[1:]
		default:
			all, a, b = append(all, with(a[0], b[0])), a[1:], b[1:]
		}
	}
	return all
}
