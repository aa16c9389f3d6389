package ingest

import "sync/atomic"

// Received counts what a Receiver did with the requests of one protocol since it was made. Items are spans, log
// records or points.
type Received struct {
	Protocol string            `json:"protocol"` // otlp_traces, otlp_logs, otlp_metrics, jaeger or zipkin
	Requests uint64            `json:"requests"` // taken, at least in part
	Accepted uint64            `json:"accepted"` // items
	Dropped  map[string]uint64 `json:"dropped"`  // items by reason: invalid, excess, rejected (by the sink), minor (in severity), absent (no value)
	Refused  map[string]uint64 `json:"refused"`  // requests by reason: full, too_large, malformed, unsupported
	Cut      uint64            `json:"cut"`      // texts shortened and attributes left out
}

// tally is the counters behind Received.
type tally struct {
	requests, accepted, cut                  atomic.Uint64
	invalid, excess, rejected, minor, absent atomic.Uint64
	full, tooLarge, malformed, unsupported   atomic.Uint64
}

func (t *tally) add(k *taken, rejected int) {
	t.requests.Add(1)
	t.accepted.Add(uint64(max(k.taken-rejected, 0)))
	t.rejected.Add(uint64(max(rejected, 0)))
	t.invalid.Add(uint64(k.counts.Invalid))
	t.excess.Add(uint64(k.counts.Excess))
	t.cut.Add(uint64(k.counts.CutText))
	t.minor.Add(uint64(k.minor))
	t.absent.Add(uint64(k.absent))
}

func (t *tally) refuse(why *refusal) {
	switch why.reason {
	case "full":
		t.full.Add(1)
	case "too_large":
		t.tooLarge.Add(1)
	case "malformed":
		t.malformed.Add(1)
	default:
		t.unsupported.Add(1)
	}
}

// Received returns what was taken and what was not, one entry a protocol, always in the same order and with the same
// reasons.
func (r *Receiver) Received() []Received {
	all := make([]Received, protocols)
	for p := range all {
		t := &r.tallies[p]
		all[p] = Received{
			Protocol: protocol(p).String(), Requests: t.requests.Load(), Accepted: t.accepted.Load(), Cut: t.cut.Load(),
			Dropped: map[string]uint64{
				"invalid": t.invalid.Load(), "excess": t.excess.Load(), "rejected": t.rejected.Load(), "minor": t.minor.Load(), "absent": t.absent.Load(),
			},
			Refused: map[string]uint64{
				"full": t.full.Load(), "too_large": t.tooLarge.Load(), "malformed": t.malformed.Load(), "unsupported": t.unsupported.Load(),
			},
		}
	}
	return all
}
