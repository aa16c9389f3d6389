package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// spanAt is a span of a tree.
type spanAt struct {
	tree *Tree
	span int
}

// passed is a message of which a link tells: the span that sent it, and that of the consumer, which did not become its child.
// Consumers of batches, and those that begin a trace of their own, are linked so.
type passed struct{ sent, got spanAt }

// passes is all that passed between the spans of a set. nil = nothing did.
type passes struct {
	after  map[*Tree][]passed  // by the tree that sent, in the order of its spans
	before map[spanAt][]spanAt // by the consumer's span: who sent
	cut    int                 // links beyond maxPasses
}

// maxPasses bounds the links of a set that are followed.
const maxPasses = 1 << 18

// passesOf follows the links from consumers. Without links it takes a look at each tree.
func passesOf(trees []*Tree) *passes {
	p := &passes{}
	wanted := make(map[string]map[string][]spanAt) // by the identifiers of the linked span
	n := 0
	for _, t := range trees {
		if t.linked == 0 {
			continue
		}
		for i := range t.Spans {
			for l := t.Spans[i].Link; l != nil && consumes(&t.Spans[i]); l = l.Next {
				if n++; n > maxPasses {
					p.cut++
					continue
				}
				if wanted[l.TraceID] == nil {
					wanted[l.TraceID] = make(map[string][]spanAt)
				}
				wanted[l.TraceID][l.SpanID] = append(wanted[l.TraceID][l.SpanID], spanAt{t, i})
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	p.after, p.before = make(map[*Tree][]passed), make(map[spanAt][]spanAt)
	for _, t := range trees {
		if of := wanted[t.ID]; of != nil {
			p.join(t, of)
		}
	}
	for got := range p.before {
		slices.SortFunc(p.before[got], compareSpansAt)
		p.before[got] = slices.Compact(p.before[got])
	}
	return p
}

// join enters the consumers of what t sent, by the identifiers of its spans.
func (p *passes) join(t *Tree, consumers map[string][]spanAt) {
	for i := range t.Spans {
		for _, got := range consumers[t.Spans[i].ID] {
			if got.tree == t && (got.span == i || t.Parent[got.span] == int32(i)) {
				continue // it is its child, too
			}
			p.after[t] = append(p.after[t], passed{spanAt{t, i}, got})
			p.before[got] = append(p.before[got], spanAt{t, i})
		}
	}
	slices.SortFunc(p.after[t], func(a, b passed) int {
		return cmp.Or(cmp.Compare(a.sent.span, b.sent.span), compareSpansAt(a.got, b.got))
	})
	p.after[t] = slices.Compact(p.after[t]) // a batch that one span sent is linked to it once for each message
}

func compareSpansAt(a, b spanAt) int {
	return cmp.Or(strings.Compare(a.tree.ID, b.tree.ID), cmp.Compare(a.span, b.span))
}

// sentBy are the spans that sent what a consumer works on, as far as they are in the set.
func (p *passes) sentBy(t *Tree, span int) []spanAt {
	if p == nil || t.Spans[span].Link == nil {
		return nil
	}
	return p.before[spanAt{t, span}]
}

// consumes says whether s works on messages.
func consumes(s *trace.Span) bool {
	return s.Kind == trace.Consumer || s.Kind == trace.Unspecified && endsIn(s.Name, "process", "receive")
}

// sends says whether a span that a consumer is linked to is that which sent the message, rather than the request in which it
// was made: only then its end tells when the message began to wait.
func sends(s *trace.Span) bool {
	return s.Kind == trace.Producer || s.Kind == trace.Client || s.Kind == trace.Unspecified && endsIn(s.Name, "send", "publish")
}

// below says whether span i is root or hangs below it.
func (t *Tree) below(root, i int) bool {
	for at := int32(i); at >= 0; at = t.Parent[at] {
		if int(at) == root {
			return true
		}
	}
	return false
}

// linked takes in what became of the messages that a sample sent, where only links tell.
func (a *asyncOf) linked(s *sample) {
	for _, x := range a.view.passes.after[s.tree] {
		if !s.tree.below(s.root, x.sent.span) {
			continue
		}
		sent, got := &s.tree.Spans[x.sent.span], &x.got.tree.Spans[x.got.span]
		if sends(sent) {
			a.received(s, sent, got)
		}
		if x.got.tree == s.tree && s.tree.below(s.root, x.got.span) {
			continue // it is part of this trace: on its path, or among its detached work
		}
		path, known := a.paths[x.got]
		if !known {
			path = x.got.tree.Path(x.got.span)
			a.paths[x.got] = path
		}
		a.work(s, Linked, x.got, max(minus(got.Start, sent.End), 0), path)
	}
}

// arrived takes in how long the messages waited that a sample works on.
func (a *asyncOf) arrived(s *sample) {
	if root := &s.tree.Spans[s.root]; root.Kind == trace.Consumer && len(a.view.passes.sentBy(s.tree, s.root)) == 0 {
		a.received(s, nil, root)
	}
	if s.tree.linked == 0 {
		return
	}
	for i := range s.tree.Spans {
		for _, from := range a.view.passes.sentBy(s.tree, i) {
			sent := &from.tree.Spans[from.span]
			if from.tree != s.tree && sends(sent) && s.tree.below(s.root, i) {
				a.received(s, sent, &s.tree.Spans[i])
			}
		}
	}
}
