package diagnose

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	largeBytes    = 256 << 10 // from where a payload costs time that is felt
	alwaysBytes   = 1 << 20   // from where one is too large even if it always is
	largeFactor   = 4.0       // times the median, from where a payload is out of the ordinary
	payloadCalls  = 20        // fewer sizes show no pattern
	payloadLarge  = 3         // large ones, fewer are no pattern either
	payloadSlow   = 0.8       // of the large ones, that take longer than nine in ten of the others
	payloadShare  = 0.1       // of the slow band
	payloadFit    = 0.7       // correlation of sizes and times, from where the time follows the size
	payloadPart   = 0.5       // of the usual time, that the usual size must then cost
	samePayload   = 0.9       // of a size, from where another is that of the same payload
	maxPayloadOps = 4096      // operations looked at
)

// payload is one call that tells its size.
type payload struct {
	bytes, took int64
	weight      float64
	slow        int64 // ns of the slow band's critical path in it and below it
}

// payloads is the calls of one target.
type payloads struct {
	segment trace.Segment
	list    []payload
}

// oversize finds LP114: payloads so large that carrying them takes the time.
func oversize(v *view) []Finding {
	if !v.look().large { // else none takes time of the slow band, and mostly none does
		return nil
	}
	at := make(map[spot]*payloads)
	for n := range v.samples {
		v.rest()
		v.sizes(at, n)
	}
	return findingsBySpot(at, v.sizeFinding)
}

// mayBeLarge reports whether a size that span i tells has as many digits as a large one, or, of a number that came as a float, an
// exponent (1e+06). Most have not, and need not be read.
func (t *Tree) mayBeLarge(i int) bool {
	const digits = 6 // of largeBytes
	if has, known := t.knows(i, markSized); known && !has {
		return false
	}
	return slices.ContainsFunc(t.all(i, kindSize), func(k int16) bool {
		text := t.Spans[i].At(int(k)).Value
		return len(text) >= digits || len(text) == digits-1 && text[1] == 'e'
	})
}

// size is the largest size that span i tells, of what is sent or of what comes back; 0 = none.
func (t *Tree) size(i int) (most int64) {
	if has, known := t.knows(i, markSized); known && !has {
		return 0
	}
	for _, k := range t.all(i, kindSize) {
		if n, err := number(t.Spans[i].At(int(k)).Value); err == nil && n > 0 && n < math.MaxInt64/2 {
			most = max(most, int64(n))
		}
	}
	return most
}

func (v *view) sizes(at map[spot]*payloads, n int) {
	s := &v.samples[n]
	t := s.tree
	var inclusive []int64
	var counted []int32 // spans whose payload is that of one above them
	for i := range t.Spans {
		bytes := t.size(i)
		if bytes == 0 || t.failed(i) || slices.Contains(counted, int32(i)) {
			continue
		}
		all, maker := t.carriers(counted, i, bytes)
		counted = all
		key, segment := v.spot(&t.Spans[maker]), locate(t, maker).segment
		if served, _ := calls(t, maker); served >= 0 {
			key, segment = v.spot(&t.Spans[served]), trace.SegNetwork
		} else if maker != i {
			segment = trace.SegNetwork
		}
		x := at[key]
		if x == nil {
			if len(at) >= maxPayloadOps {
				continue
			}
			x = &payloads{segment: segment}
			at[key] = x
		}
		p := payload{bytes: bytes, weight: s.stands(), took: t.Spans[i].End - t.Spans[i].Start}
		if v.isSlow(n) {
			if inclusive == nil {
				_, inclusive = s.critical()
			}
			p.slow = inclusive[i]
		}
		x.list = append(x.list, p)
	}
}

// carriers follows a payload of span i down to the span that makes it: who waits for it last passes it on, with or without telling its
// size. The others that tell it are added to list.
func (t *Tree) carriers(list []int32, i int, bytes int64) (_ []int32, maker int) {
	maker = i
	at := i
	for range maxClimb {
		children := t.Blocking(at)
		if len(children) == 0 {
			break
		}
		at = int(children[0])
		if n := t.size(at); n > 0 {
			if float64(n) < samePayload*float64(bytes) || samePayload*float64(n) > float64(bytes) {
				break
			}
			maker = at
			list = append(list, int32(at))
		}
	}
	return list, maker
}

func (v *view) sizeFinding(key spot, x *payloads) (Finding, bool) {
	sizes := make([]weighted, len(x.list))
	for i, p := range x.list {
		sizes[i] = weighted{p.bytes, p.weight}
	}
	slices.SortFunc(sizes, byTime)
	usual, large := weighedQuantile(sizes, 0.5), weighedQuantile(sizes, 0.99)
	limit := max(int64(largeBytes), int64(largeFactor*float64(usual)))
	typical, slower, n := x.compare(limit)
	grows := len(x.list) >= payloadCalls && n >= payloadLarge && float64(slower) >= payloadSlow*float64(n)
	bare, follows := x.bare(usual)
	follows = follows && !grows && usual >= largeBytes
	always := !grows && !follows && usual >= alwaysBytes
	switch {
	case follows:
		limit, typical = largeBytes, bare
	case always:
		limit, typical = alwaysBytes, 0
	case !grows:
		return Finding{}, false
	}
	slow := int64(0)
	for _, p := range x.list {
		if p.bytes >= limit {
			slow += max(0, p.slow-typical)
		}
	}
	share := v.share(slow)
	if share < payloadShare {
		return Finding{}, false
	}
	f := Finding{
		Code: "LP114", Class: "oversize_payload", Segment: x.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.5, ShareP99: share,
		Summary:  fmt.Sprintf("%s %s carries %s (p99; %s as a rule): the large ones take %s of the slow traces", key.service, key.operation, size(large), size(usual), percent(share)),
		Evidence: []string{fmt.Sprintf("%d payloads: p50 %s, p99 %s, largest %s", len(sizes), size(usual), size(large), size(sizes[len(sizes)-1].ns))},
		Detail:   Detail{Bytes: large, BytesUsual: usual, PerByte: perByte(x.list), Saved: v.perSlow(slow), Latency: time.Duration(typical), Calls: float64(len(sizes)) / float64(len(v.samples))},
	}
	if grows {
		f.Confidence = 0.8
		f.Evidence = append(f.Evidence, fmt.Sprintf("the time grows with the size: %d of the %d large ones take longer than nine in ten of the others; %s a MiB",
			slower, n, duration(time.Duration(f.Detail.PerByte*(1<<20)))))
	} else if follows {
		f.Confidence = 0.75
		f.Evidence = append(f.Evidence, fmt.Sprintf("the time follows the size, %s a MiB: without any it would be %s", duration(time.Duration(f.Detail.PerByte*(1<<20))), duration(time.Duration(bare))))
	} else {
		f.doubt(0, "the sizes hardly differ, so what the size costs cannot be told from what the work costs")
	}
	if big := v.bigCommand(key.service, x.segment); big != "" {
		f.confirm(0.85, big)
	}
	return f, true
}

// bigCommand is what the cache's server tells of commands that carry much; "" = nothing.
func (v *view) bigCommand(service string, segment trace.Segment) string {
	if segment != trace.SegCache {
		return ""
	}
	if c := v.facts.Cache(service); c != nil && len(c.Stats.Big) > 0 {
		return fmt.Sprintf("Redis: %s %s %s", c.Stats.Big[0].Command, c.Stats.Big[0].Key, c.Stats.Big[0].Why)
	}
	return ""
}

// compare is the median time of the payloads below limit, 0 if there are none, how many there are from it on, and how many of these
// take longer than nine in ten of the others.
func (x *payloads) compare(limit int64) (typical int64, slower, n int) {
	var small, large []int64
	for _, p := range x.list {
		if p.bytes < limit {
			small = append(small, p.took)
		} else {
			large = append(large, p.took)
		}
	}
	slices.Sort(small)
	slices.Sort(large)
	return quantile(small, 0.5), above(large, max(quantile(small, 0.9), 2*quantile(small, 0.5))), len(large)
}

// bare is what a call takes beside its payload, in the median, where the time follows the size and the usual size makes up most of it.
func (x *payloads) bare(usual int64) (ns int64, follows bool) {
	if len(x.list) < payloadCalls {
		return 0, false
	}
	took := make([]int64, len(x.list))
	sizes := make([]payload, len(x.list)) // the line the other way round: size by time
	for i, p := range x.list {
		took[i], sizes[i] = p.took, payload{bytes: p.took, took: p.bytes}
	}
	slices.Sort(took)
	slope, middle := perByte(x.list), quantile(took, 0.5)
	cost := slope * float64(usual)
	return max(0, middle-int64(cost)), slope*perByte(sizes) >= payloadFit*payloadFit && cost >= payloadPart*float64(middle)
}

// perByte is the slope of the line through sizes and times, ns a byte, 0 or more.
func perByte(list []payload) float64 {
	mx, my := 0.0, 0.0
	for _, p := range list {
		mx += float64(p.bytes) / float64(len(list))
		my += float64(p.took) / float64(len(list))
	}
	xy, xx := 0.0, 0.0
	for _, p := range list {
		x := float64(p.bytes) - mx
		xy += x * (float64(p.took) - my)
		xx += x * x
	}
	return max(0, ratio(xy, xx))
}

// size puts bytes in words.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d B", bytes)
}
