package advise

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
)

// bodySize is the bytes that a call carried, by the spans of both sides; 0 = unknown.
func (t *timeline) bodySize(i int) float64 {
	size := 0.0
	for _, k := range []int{i, t.servedBy(i)} {
		s := &t.spans[k]
		answer, _ := strconv.ParseFloat(s.Attr("http.response.body.size", "http.response_content_length", "http.response_content_length_uncompressed",
			"rpc.response.size", "messaging.message.body.size", "messaging.message_payload_size_bytes"), 64)
		request, _ := strconv.ParseFloat(s.Attr("http.request.body.size", "http.request_content_length", "rpc.request.size"), 64)
		size = max(size, answer+request)
	}
	return size
}

// transfer is how long a byte takes.
type transfer struct {
	perByte float64 // ns
	sizes   map[ref]float64
}

// transferOf estimates, from how the latency of calls grows with their size, what a byte costs: the median slope over
// pairs of calls, which outliers do not move. ok is false when sizes are unknown or differ too little.
//
// Source: Theil (1950), Sen (1968), on a random part of the pairs.
func (c *corpus) transferOf(calls []ref) (tr transfer, ok bool) {
	tr.sizes = make(map[ref]float64)
	var known []ref
	for _, r := range calls {
		if size := c.traces[r.trace].bodySize(r.span); size > 0 {
			tr.sizes[r] = size
			known = append(known, r)
		}
	}
	if len(known) < minCalls || 2*len(known) < len(calls) {
		return tr, false
	}
	took := func(r ref) int64 { return c.traces[r.trace].recorded(r.span) }
	slices.SortFunc(known, func(a, b ref) int { // whatever order the traces came in
		return cmp.Or(cmp.Compare(tr.sizes[a], tr.sizes[b]), cmp.Compare(took(a), took(b)))
	})
	const pairs = 20_000
	draw := rand.New(rand.NewPCG(uint64(len(known)), 1))
	var slopes []float64
	for range pairs {
		a, b := known[draw.IntN(len(known))], known[draw.IntN(len(known))]
		if more := tr.sizes[b] - tr.sizes[a]; more > 0.1*tr.sizes[b] || more < -0.1*tr.sizes[a] {
			slopes = append(slopes, float64(took(b)-took(a))/more)
		}
	}
	if len(slopes) < pairs/20 {
		return tr, false
	}
	slices.Sort(slopes)
	tr.perByte = max(0, slopes[len(slopes)/2])
	return tr, true
}

// lighter is the plan in which the calls of a target carry a share less.
func (c *corpus) lighter(t target, calls []ref, cut float64) (p plan, reason string) {
	tr, ok := c.transferOf(calls)
	if !ok {
		return plan{}, fmt.Sprintf("the spans of %s do not tell the sizes of enough answers, or these differ too little, to know what a byte costs", t)
	}
	p = each(calls, func(n, i int, e *edit) {
		e.add(i, -min(c.traces[n].recorded(i), int64(cut*tr.perByte*tr.sizes[ref{n, i}])))
	})
	p.doubt = modelDoubt
	p.notes = []string{fmt.Sprintf("the latency of %s grows by %.2f ms with each 100 kB", t, tr.perByte*1e5/1e6)}
	return p, ""
}
