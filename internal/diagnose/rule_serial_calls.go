package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	serialGapRatio = 0.25 // of the two calls around it, up to which a pause between them is no work of its own
	serialGap      = int64(time.Millisecond)
	serialTraces   = 0.5  // of the traces in which the span waits for anything
	serialOptional = 0.2  // of the traces with the first call, that lack the others, from where what it answers may decide about these
	serialUnproven = 0.15 // of the slow band, that must be saved where nothing proves that the calls do not need each other
)

// serial is what a span was seen to call one after the other.
type serial struct {
	traces, chained int            // traces in which the span waits for calls; in which at least two of them form a chain
	saved, total    int64          // ns of the slow band: what running the chain at once would save; what it takes
	orders          map[string]int // orders in which the chain was seen -> traces, bounded
	longest, last   chain
	order           string // of last
	overlapped      int    // traces in which calls of this span did run at once
	gaps, gapCount  int64
	alone           map[call]int // traces with calls of one kind only, by that, bounded
}

// chain is calls that follow each other.
type chain struct {
	calls         []remote
	total, saving int64
}

// maxOrders bounds how many orders of a chain are remembered.
const maxOrders = 50

// serialCalls finds LP101: different calls of one span that follow each other although nothing shows that one
// needs the other's answer.
func serialCalls(v *view) []Finding {
	at, known := make(map[spot]*serial), make(map[int32]*serial) // known is at by the number that the set has for the operation
	for i := range v.samples {
		v.rest()
		t := v.samples[i].tree
		for parent, list := range v.remotes(i) {
			// Handing over a message is no call: it tells nobody anything. And what comes before or after a write mostly does so on purpose.
			apart := func(r remote) bool {
				return t.Spans[r.leaf].Kind == trace.Producer || r.served >= 0 && t.Why(r.served) == Message || t.writes(r.leaf)
			}
			if slices.ContainsFunc(list, apart) {
				list = slices.DeleteFunc(slices.Clone(list), apart)
			}
			if len(list) == 0 {
				continue
			}
			s := known[t.spots[parent]]
			if s == nil {
				key := v.spot(&t.Spans[parent])
				if s = at[key]; s == nil {
					s = &serial{orders: make(map[string]int), alone: make(map[call]int)}
					at[key] = s
				}
				known[t.spots[parent]] = s
			}
			s.add(list, v.isSlow(i))
		}
	}
	return findingsBySpot(at, func(key spot, s *serial) (Finding, bool) { return v.serialFinding(key, s) })
}

func (s *serial) add(list []remote, slow bool) {
	if k, ok := only(list); ok && (s.alone[k] > 0 || len(s.alone) < maxOrders) {
		s.alone[k]++
	}
	if len(list) == 1 {
		return
	}
	s.traces++
	c, overlapped := chainOf(list)
	if overlapped {
		s.overlapped++
	}
	if len(c.calls) < 2 {
		return
	}
	s.chained++
	for i := range c.calls[1:] {
		s.gaps += c.calls[i+1].start - c.calls[i].end
		s.gapCount++
	}
	if !slices.EqualFunc(s.last.calls, c.calls, func(a, b remote) bool { return a.key == b.key }) {
		s.last, s.order = c, c.order()
	}
	if s.orders[s.order] > 0 || len(s.orders) < maxOrders {
		s.orders[s.order]++
	}
	if slow {
		s.saved += c.saving
		s.total += c.total
	}
	if c.saving > s.longest.saving {
		s.longest = c
	}
}

// only is what all calls of list are of that chains are made of; false = they are of several kinds, or there is none.
func only(list []remote) (k call, ok bool) {
	for _, r := range list {
		switch {
		case !chainable(r):
		case ok && r.key != k:
			return call{}, false
		default:
			k, ok = r.key, true
		}
	}
	return k, ok
}

// chainable reports whether a call can be one of a chain. What a cache answers decides what is asked next.
func chainable(r remote) bool { return r.critical > 0 && r.key.segment != trace.SegCache }

// chainOf is the longest chain of different calls in list, which is in time order. Calls of one kind count once,
// as a single call: their number is another finding's matter.
func chainOf(list []remote) (best chain, overlapped bool) {
	var current []remote
	flush := func() {
		if len(current) > 1 { // else there is nothing to save
			if c := distinct(current); c.saving > best.saving {
				best = c
			}
		}
		current = current[:0]
	}
	for _, r := range list {
		if !chainable(r) {
			continue
		}
		if n := len(current); n > 0 {
			last := current[n-1]
			gap := r.start - last.end
			if gap < 0 && -gap > (r.end-r.start)/10 {
				overlapped = true
			}
			if limit := max(serialGap, int64(serialGapRatio*float64(min(last.end-last.start, r.end-r.start)))); gap > limit || -gap > (r.end-r.start)/10 {
				flush()
			}
		}
		current = append(current, r)
	}
	flush()
	return best, overlapped
}

// distinct keeps of each kind of call the one that took longest.
func distinct(calls []remote) (c chain) {
	for _, r := range calls {
		i := slices.IndexFunc(c.calls, func(x remote) bool { return x.key == r.key })
		switch {
		case i < 0:
			c.calls = append(c.calls, r)
		case r.critical > c.calls[i].critical:
			c.calls[i] = r
		}
	}
	longest := int64(0)
	for _, r := range c.calls {
		c.total += r.critical
		longest = max(longest, r.critical)
	}
	c.saving = c.total - longest
	return c
}

func (c chain) order() string {
	var b strings.Builder
	for _, r := range c.calls {
		b.WriteString(r.key.label())
		b.WriteByte('\n')
	}
	return b.String()
}

func (v *view) serialFinding(key spot, s *serial) (Finding, bool) {
	share := v.share(s.saved)
	proven := s.overlapped > 0 || len(s.orders) > 1 && swapped(s.orders)
	if float64(s.chained) < serialTraces*float64(s.traces) || share < leastShare || !proven && share < serialUnproven {
		return Finding{}, false
	}
	if alone := s.alone[s.longest.calls[0].key]; !proven && float64(alone) > serialOptional*float64(alone+s.chained) {
		return Finding{}, false
	}
	var names, callees []string
	for _, r := range s.longest.calls {
		names = append(names, r.key.label())
		callees = append(callees, r.key.service)
	}
	const shown = 5
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("%d more", more))
	}
	gap := time.Duration(s.gaps / max(s.gapCount, 1))
	f := Finding{
		Code: "LP101", Class: "serial_calls", Segment: s.longest.calls[0].key.segment, Service: key.service, Operation: key.operation,
		Verdict: Likely, Confidence: 0.6, ShareP99: share,
		Summary: fmt.Sprintf("%s %s makes %d different calls one after the other; at once they would take %s less in the slow traces (%s of their time)",
			key.service, key.operation, len(s.longest.calls), duration(v.perSlow(s.saved)), percent(share)),
		Evidence: []string{
			fmt.Sprintf("in %d of %d traces the calls do not overlap: %s", s.chained, s.traces, strings.Join(names, ", ")),
			fmt.Sprintf("the pause between them is %s on average: too short for work that needs the answer before", duration(gap)),
		},
		Detail: Detail{Callees: callees, Calls: float64(len(s.longest.calls)), Saved: v.perSlow(s.saved)},
	}
	switch {
	case s.overlapped > 0:
		f.Evidence = append(f.Evidence, fmt.Sprintf("in %d traces some of them do overlap", s.overlapped))
		f.Confidence = 0.8
	case len(s.orders) > 1 && swapped(s.orders):
		f.Evidence = append(f.Evidence, "the order changes between traces, so no call waits for another's answer")
		f.Confidence = 0.85
	default:
		f.CounterEvidence = append(f.CounterEvidence, "the order is always the same: a call may need the answer of the one before it, which traces do not show")
	}
	return f, true
}

// swapped reports whether two calls were seen in both orders.
func swapped(orders map[string]int) bool {
	before := make(map[[2]string]bool)
	for _, order := range ordered(orders) {
		names := strings.Split(strings.TrimSuffix(order, "\n"), "\n")
		for i := range names {
			for j := i + 1; j < len(names); j++ {
				if before[[2]string{names[j], names[i]}] {
					return true
				}
				before[[2]string{names[i], names[j]}] = true
			}
		}
	}
	return false
}
