package diagnose

import (
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// ClockRule is a way to find how far the clock of a child's host is off.
type ClockRule uint8

// The rules.
const (
	// Centre is Jaeger's rule, in the light of what the spans say about themselves; see [CentreSkew].
	Centre ClockRule = iota
	// OneWay is Zipkin's rule: client to server only, and traces without exactly one root are left alone; see [OneWaySkew].
	OneWay
)

// ClockOptions say how the differences between the clocks of hosts are dealt with. The zero value is ready to use.
type ClockOptions struct {
	Rule        ClockRule
	MaxAdjust   time.Duration // larger corrections are not applied, but counted; 0 = no limit, negative = none is applied
	Granularity time.Duration // the step of the clocks; 0 = found from the times of the traces
	Yield       func()        // called again and again, at most milliseconds apart, so that who shares a core may rest; nil = nobody wants to
	// Each calls do with 0..n-1, in any order, on as many goroutines as it likes, and returns when all calls have; calls of do
	// may call it in turn. nil = one after the other. The answer does not depend on it. With it, Yield is called by those goroutines.
	Each func(n int, do func(i int))

	known *clocks // what the traces of a run tell of its clocks; nil = each trace is on its own
}

// each calls do with 0..n-1.
func (o *ClockOptions) each(n int, do func(i int)) {
	if o.Each != nil {
		o.Each(n, do)
		return
	}
	for i := range n {
		do(i)
	}
}

// rest lets who shares a core have it.
func (o *ClockOptions) rest() {
	if o.Yield != nil {
		o.Yield()
	}
}

// CentreSkew returns what to add to the times of child, in nanoseconds, so that it fits its parent; 0 when it does.
// The times of the parent are taken to be right. Neither host may be unknown, and they must differ.
//
//   - The child is centred in its parent, the network taking as long there as back.
//   - A child longer than its parent can only be moved to the parent's start, and only forward: the caller gave up.
//   - What overlaps the parent's end may as well be the work that a caller gave up on, so it stays when the parent failed.
//   - A child that the parent did not wait for (FOLLOWS_FROM, a message, or after the parent's end and no call) is only moved to keep it from starting before its parent.
//
// Overflow up to the granularity (of the clocks, in nanoseconds) is no skew.
//
// Source: Jaeger's clock skew adjuster, which has the first two points.
func CentreSkew(parent, child *trace.Span, granularity int64) int64 {
	if parent.Host == "" || child.Host == "" || parent.Host == child.Host {
		return 0
	}
	early := minus(parent.Start, child.Start) // > 0: the child starts before its parent
	late := minus(child.End, parent.End)
	detached := child.FollowsFrom || isMessage(parent, child)
	switch spare := minus(int64(parent.Duration()), int64(child.Duration())); {
	case early <= granularity && late <= granularity:
		return 0
	case detached, spare < 0:
		return max(early, 0)
	case early <= 0 && (parent.Failed || child.Start >= parent.End && !answered(parent, child)):
		return 0
	default:
		return plus(early, spare/2)
	}
}

// answered says whether the parent must have waited for child, though it starts after the parent's end: a call. Where
// the kinds do not say so it may as well be meant to run later, and only a skew that does occur is believed.
func answered(parent, child *trace.Span) bool {
	sure := parent.Kind == trace.Client && child.Kind == trace.Server
	return sure || isCall(parent, child) && minus(child.Start, parent.End) < int64(maxGuessedSkew)
}

// maxGuessedSkew is more than clocks differ that are set at all.
const maxGuessedSkew = time.Second

// OneWaySkew returns what to add to the times of child, in nanoseconds: 0 unless it is a server that started no later
// than the client, its parent, on another host. It is centred; where one of them took no known time, or the server
// took longer, it is moved to a microsecond after the client's start.
//
// Source: Zipkin's lens, clock-skew.js.
func OneWaySkew(parent, child *trace.Span) int64 {
	if parent.Kind != trace.Client || child.Kind != trace.Server || child.Start > parent.Start ||
		parent.Host == "" || child.Host == "" || parent.Host == child.Host {
		return 0
	}
	early := minus(parent.Start, child.Start)
	client, server := int64(parent.Duration()), int64(child.Duration())
	if client == 0 || server == 0 || client < server {
		return plus(early, int64(time.Microsecond))
	}
	return plus(early, (client-server)/2)
}

// offset is how far the clock of a host is off, as far as it was found on the way down to a span.
type offset struct {
	host  string
	delta int64
	up    int32 // the one found before it; -1 = none
}

// maxOffsets bounds how many of them are looked through for the host of a span.
const maxOffsets = 16

// correct finds the corrected times of all nodes. A host's offset is found once on each way down from the root, whose
// clock is the reference, and holds for all spans of that host below.
func (b *builder) correct() {
	b.start, b.end = again(b.start, len(b.nodes)), again(b.end, len(b.nodes))
	for i := range b.nodes {
		s := b.span(int32(i))
		b.start[i], b.end[i] = s.Start, s.End
	}
	if b.options.Rule == OneWay && !b.oneRoot() {
		return
	}
	offsets := b.offsets[:0]
	b.stamp = again(b.stamp, len(b.nodes))
	last := b.stamp // the offset found last on the way to a node
	for _, n := range b.down {
		s, p := b.span(n), b.parent[n]
		up := int32(-1)
		if p >= 0 {
			up = last[p]
		}
		last[n] = up
		if s.Host == "" {
			continue
		}
		delta, known := lookUp(offsets, up, s.Host)
		if !known {
			if p >= 0 {
				delta = b.skew(p, s)
			}
			last[n] = int32(len(offsets))
			offsets = append(offsets, offset{s.Host, delta, up})
		}
		b.move(n, delta)
	}
	b.offsets = offsets
}

func lookUp(offsets []offset, at int32, host string) (delta int64, ok bool) {
	for range maxOffsets {
		if at < 0 {
			break
		}
		if offsets[at].host == host {
			return offsets[at].delta, true
		}
		at = offsets[at].up
	}
	return 0, false
}

// skew applies the rule and the limit of the options to s, whose parent is p.
func (b *builder) skew(p int32, s *trace.Span) (delta int64) {
	parent := *b.span(p)
	parent.Start, parent.End = b.start[p], b.end[p]
	known := false
	if b.options.Rule == OneWay {
		delta = OneWaySkew(&parent, s)
	} else if delta, known = b.knownSkew(&parent, p, s); !known {
		delta = CentreSkew(&parent, s, b.tree.granularity)
	}
	limit := int64(b.options.MaxAdjust)
	if delta != 0 && limit != 0 && (delta > limit || delta < -limit) {
		b.tree.SkewIgnored++
		return 0
	}
	return delta
}

// knownSkew is what to add to the times of s by what all traces tell of the two clocks. It does not hold where s would
// still not start within its parent, with times as they are now corrected: something else is wrong with it.
func (b *builder) knownSkew(parent *trace.Span, p int32, s *trace.Span) (delta int64, ok bool) {
	c := b.options.known
	if c == nil || parent.Host == "" || parent.Host == s.Host {
		return 0, false
	}
	offset, ok := c.offset(parent.Host, s.Host)
	if !ok {
		return 0, false
	}
	delta = b.start[p] - b.span(p).Start - offset
	start := plus(s.Start, delta)
	early := minus(parent.Start, start) > b.tree.granularity
	late := start >= parent.End && !s.FollowsFrom && !isMessage(parent, s)
	return delta, !early && !late
}

// move adds delta to the times of a node, unless they would leave what an int64 holds.
func (b *builder) move(n int32, delta int64) {
	start, end := b.start[n]+delta, b.end[n]+delta
	if delta == 0 || (delta > 0) != (start > b.start[n]) || (delta > 0) != (end > b.end[n]) {
		return
	}
	b.start[n], b.end[n] = start, end
	b.tree.SkewCorrected++
}

func (b *builder) oneRoot() bool {
	roots := 0
	for _, n := range b.tops {
		if b.parent[n] == noParent {
			roots++
		}
	}
	return roots == 1 && !b.tree.Synthetic
}

// granularity finds the step of the trace's clock.
func (b *builder) granularity() {
	if b.tree.granularity = int64(b.options.Granularity); b.tree.granularity > 0 {
		return
	}
	if c := b.options.known; c != nil && c.step > 0 && !c.mixed {
		b.tree.granularity = c.step
		return
	}
	step := int64(time.Millisecond)
	for _, n := range b.down {
		s := b.span(n)
		for step > 1 && (s.Start%step != 0 || s.End%step != 0) {
			step /= 1000
		}
	}
	b.tree.granularity = max(step, 1)
}

// steps finds the step of each span's clock where the run has clocks of different steps.
func (b *builder) steps() {
	c := b.options.known
	if c == nil || !c.mixed || b.options.Granularity > 0 {
		return
	}
	b.tree.steps = make([]int64, len(b.tree.Spans))
	for i := range b.tree.Spans {
		b.tree.steps[i] = c.stepOf(&b.tree.Spans[i], b.tree.granularity)
	}
}

// minus and plus stop at the ends of an int64.
func minus(a, b int64) int64 {
	d := a - b
	if (a >= 0) != (b >= 0) && (d >= 0) != (a >= 0) {
		if a >= 0 {
			return maxInt64
		}
		return minInt64
	}
	return d
}

func plus(a, b int64) int64 {
	s := a + b
	if (a >= 0) == (b >= 0) && (s >= 0) != (a >= 0) {
		if a >= 0 {
			return maxInt64
		}
		return minInt64
	}
	return s
}

const (
	maxInt64 = 1<<63 - 1
	minInt64 = -1 << 63
)
