package ingest

import "github.com/longpole/longpole/internal/trace"

// maxLinks bounds what is kept of a span: a consumer that takes a batch is linked to each of its messages.
const maxLinks = 32

// linkFixed is what memory a link takes: itself and its identifiers.
const linkFixed = 96

// links collects those of one span, in their order.
type links struct {
	first, last *trace.Link
	count       int
	follows     string // the span ID of the last one that says follows_from
}

// add takes a link. One that names no span of a trace is none.
func (l *links) add(traceID, spanID string, follows bool, c *counts) {
	if follows && spanID != "" {
		l.follows = spanID
	}
	if zeros(traceID) || zeros(spanID) || max(len(traceID), len(spanID)) > maxID {
		return
	}
	if l.count >= maxLinks {
		c.CutText++
		return
	}
	l.count++
	next := &trace.Link{TraceID: traceID, SpanID: spanID}
	if l.last == nil {
		l.first = next
	} else {
		l.last.Next = next
	}
	l.last = next
}

// give sets the links of s, whose identifiers are known now. A link to its own parent says nothing, unless that it did not wait.
func (l *links) give(s *trace.Span) {
	s.FollowsFrom = s.FollowsFrom || l.follows != "" && l.follows == s.Parent
	own := func(x *trace.Link) bool { return x.SpanID == s.Parent && x.TraceID == s.TraceID }
	for at := &l.first; *at != nil; {
		if own(*at) {
			*at = (*at).Next
			continue
		}
		at = &(*at).Next
	}
	s.Link = l.first
}

// linkBytes estimates the memory of the links of s.
func linkBytes(s *trace.Span) (n int64) {
	for l := s.Link; l != nil; l = l.Next {
		n += linkFixed
	}
	return n
}
