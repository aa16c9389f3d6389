package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// Detached says why a parent did not wait for its child.
type Detached uint8

// The reasons. Only Waited children are on their parent's path.
const (
	Waited   Detached = iota // it did wait, as far as one trace can tell
	Message                  // a producer's message, and the consumer that processes it
	Follows                  // the child names its parent in a FOLLOWS_FROM reference
	Late                     // the child starts when the parent has ended
	Outlives                 // the child ends clearly after the parent by the same clock, and is no answer to a client
	Canceled                 // the child was canceled when a sibling, which ran beside it, had finished: the loser of a hedge
	Linked                   // no child, but a consumer that is linked to the span, in most cases in a trace of its own
)

// String is the lower-case name.
func (d Detached) String() string {
	if d > Linked {
		return "unknown"
	}
	return [...]string{"waited", "message", "follows", "late", "outlives", "canceled", "linked"}[d]
}

// Async is work that a span started and did not wait for, with a path of its own.
type Async struct {
	Parent   int // who started it: the producer of a message
	Span     int
	Why      Detached
	Wait     int64 // nanoseconds from the parent's end to the start of the work, 0 or more: the queue wait of a Message
	Sections []Section
}

// Async returns the detached work below span root, of detached work too, in the order of Spans. A hedge's loser is
// none: nobody wants its result. All the paths together are O(n log n).
func (t *Tree) Async(root int) []Async {
	var all []Async
	stack := []int32{int32(root)}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = append(stack[:len(stack)-1], t.Children(int(i))...)
		if int(i) == root || t.why[i] == Waited || t.why[i] == Canceled {
			continue
		}
		p := t.Parent[i]
		wait := max(minus(t.Spans[i].Start, t.Spans[p].End), 0)
		all = append(all, Async{Parent: int(p), Span: int(i), Why: t.why[i], Wait: wait})
	}
	slices.SortFunc(all, func(a, b Async) int { return cmp.Compare(a.Span, b.Span) })
	for i := range all {
		all[i].Sections = t.Path(all[i].Span)
	}
	return all
}

// detach finds which children their parents did not wait for, and lists the others by their end.
func (t *Tree) detach(r *rolls) {
	n := len(t.Spans)
	t.why = r.why.cut(n)
	numbers := r.numbers.cut(n + 1 + len(t.child))
	t.blockFrom, t.block = numbers[:n+1:n+1], numbers[n+1:n+1]
	for i := range n {
		at := len(t.block)
		for _, k := range t.Children(i) {
			if t.why[k] = t.whyDetached(int32(i), k); t.why[k] == Waited {
				t.block = append(t.block, k)
			} else {
				t.detached++
			}
		}
		if own := t.block[at:]; len(own) > 1 {
			slices.SortFunc(own, t.byEnd)
			t.block = t.block[:at+len(t.dropLosers(own))]
		}
		t.blockFrom[i+1] = int32(len(t.block))
	}
}

// byEnd puts siblings that end later first, then those that start earlier, then by ID.
func (t *Tree) byEnd(a, b int32) int {
	if c := cmp.Compare(t.Spans[b].End, t.Spans[a].End); c != 0 {
		return c
	}
	return cmp.Compare(a, b) // the order of Spans, in which siblings with equal times stand by ID
}

func (t *Tree) whyDetached(p, k int32) Detached {
	parent, child := &t.Spans[p], &t.Spans[k]
	switch {
	case isMessage(parent, child):
		return Message
	case child.FollowsFrom:
		return Follows
	case child.Start >= parent.End:
		return Late
	case isCall(parent, child) || parent.Host == "" || parent.Host != child.Host:
		return Waited
	}
	// Even with exact clocks a parent is often recorded as ended microseconds before the child it waited for.
	if allowed := max(t.step(p, k), (parent.End-parent.Start)/100); minus(child.End, parent.End) > allowed {
		return Outlives
	}
	return Waited
}

// isCall says whether child is the server's side of its parent, a client. Old instrumentation leaves the kinds out;
// then a change of service is taken for a call, unless it looks like a message.
func isCall(parent, child *trace.Span) bool {
	if parent.Kind == trace.Client && child.Kind == trace.Server {
		return true
	}
	return (parent.Kind == trace.Client || parent.Kind == trace.Unspecified) &&
		(child.Kind == trace.Server || child.Kind == trace.Unspecified) &&
		parent.Service != child.Service && !isMessage(parent, child)
}

// isMessage says whether child processes what its parent has sent. Where the kinds are left out the names of the
// spans tell, which end in the operation by the semantic conventions.
func isMessage(parent, child *trace.Span) bool {
	sent := parent.Kind == trace.Producer || parent.Kind == trace.Unspecified && endsIn(parent.Name, "send", "publish")
	return sent && (child.Kind == trace.Consumer || child.Kind == trace.Unspecified && endsIn(child.Name, "process", "receive"))
}

// endsIn says whether the last word of name is one of operations, and not the only one.
func endsIn(name string, operations ...string) bool {
	at := strings.LastIndexByte(name, ' ')
	return at >= 0 && slices.Contains(operations, name[at+1:])
}

// dropLosers removes from siblings, which are by their end, those that were canceled while or after another one, that
// was not, finished beside them. It returns the rest, in place.
func (t *Tree) dropLosers(siblings []int32) []int32 {
	won, any := int64(minInt64), false
	for _, k := range slices.Backward(siblings) {
		if s := &t.Spans[k]; !t.canceled(int(k)) {
			won = s.End
		} else if won > s.Start {
			t.why[k], any = Canceled, true
		}
	}
	if !any {
		return siblings
	}
	return slices.DeleteFunc(siblings, func(k int32) bool { return t.why[k] == Canceled })
}

// canceled says whether span i tells that its caller called it off, in any of the ways that are in use.
func (t *Tree) canceled(i int) bool {
	s := &t.Spans[i]
	for _, k := range t.all(i, kindCanceled) {
		if v := s.At(int(k)).Value; v == "true" || v == "True" || v == "1" {
			return true
		}
	}
	for _, k := range t.all(i, kindReason) {
		if v := s.At(int(k)).Value; v == "1" || len(v) < 256 && strings.Contains(strings.ToLower(v), "cancel") {
			return true
		}
	}
	for _, k := range t.all(i, kindGRPC) {
		if v := s.At(int(k)).Value; v == "1" || strings.EqualFold(v, "canceled") || strings.EqualFold(v, "cancelled") {
			return true
		}
	}
	return t.last(i, kindStatus) == "499"
}
