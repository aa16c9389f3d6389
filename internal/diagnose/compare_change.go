package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// The kinds of cause that show without any growth.
const (
	classErrors = "errors"        // an operation fails, of itself, that seldom did
	classSkips  = "missing_calls" // an operation leaves out calls that it always made
)

// function is an operation of a service.
type function struct{ service, operation string }

// conduct is what the visits of one operation did, on the critical path or not.
type conduct struct {
	visits int
	failed int                 // of themselves: nothing that they called did
	shapes map[uint64]*habit   // by what they call; at most maxShapes
	calls  map[string]struct{} // services called
}

// habit is one set of calls that visits make.
type habit struct {
	calls  []uint64 // hashes, sorted
	visits int
}

// maxShapes bounds the sets of calls that are told apart for an operation; visits with others are not looked at.
const maxShapes = 256

// census counts what every visit of every operation did.
type census struct {
	names     *namer
	functions map[function]*conduct
	calls     []outgoing
	stack     []int
	room      []uint64
}

func (c *census) of(service, operation string) *conduct {
	key := function{service, c.names.name(service, operation)}
	f := c.functions[key]
	if f == nil {
		f = &conduct{shapes: make(map[uint64]*habit), calls: make(map[string]struct{})}
		c.functions[key] = f
	}
	return f
}

func takeCensus(trees []*Tree, n *namer) map[function]*conduct {
	c := &census{names: n, functions: make(map[function]*conduct)}
	for _, t := range trees {
		for i := range t.Spans {
			s := &t.Spans[i]
			if entry(t, i) {
				c.visit(t, visit{i, s.Service, edge{}, s.Start, s.End})
			}
			if served, ok := calls(t, i); ok {
				if service := implied(t, outgoing{span: i, served: served}); service != "" {
					c.visit(t, visit{i, service, edge{}, s.Start, s.End})
				}
			}
		}
	}
	return c.functions
}

func (c *census) visit(t *Tree, v visit) {
	c.calls, c.stack = leaving(t, v, c.calls[:0], c.stack[:0])
	s := &t.Spans[v.span]
	f := c.of(v.service, s.Name)
	f.visits++
	failed := s.Failed
	for _, call := range c.calls {
		f.calls[call.at.service] = struct{}{}
		bad := t.Spans[call.span].Failed
		if call.served >= 0 {
			bad = bad || t.Spans[call.served].Failed
		} else {
			peer := c.of(call.at.service, call.at.operation)
			peer.visits++
			peer.did(0, nil)
			if bad {
				peer.failed++
			}
		}
		failed = failed && !bad
	}
	if failed {
		f.failed++
	}
	var shape uint64
	shape, c.room = shapeOf(c.calls, c.names, c.room[:0])
	f.did(shape, c.room)
}

// did counts a visit that made these calls. Of too many shapes those with the smallest hashes are kept, so that the order
// of the traces has no say.
func (f *conduct) did(shape uint64, calls []uint64) {
	h := f.shapes[shape]
	if h == nil {
		if len(f.shapes) == maxShapes {
			last := slices.Max(slices.Collect(maps.Keys(f.shapes)))
			if shape > last {
				return
			}
			delete(f.shapes, last)
		}
		h = &habit{calls: slices.Clone(calls)}
		f.shapes[shape] = h
	}
	h.visits++
}

// skips counts the visits of suspect that leave out calls in a way no healthy visit did, and the healthy ones that did so
// alone. The more ways occurred only once in healthy traffic, the likelier is yet another one.
//
// Source: I. J. Good, The population frequencies of species and the estimation of population parameters, Biometrika
// 40, 1953: the probability of the unseen is the share of what was seen once.
func skips(suspect, baseline *conduct) (hits, once int) {
	for shape, h := range suspect.shapes {
		if baseline.shapes[shape] == nil && baseline.goesBeyond(h) {
			hits += h.visits
		}
	}
	for _, h := range baseline.shapes {
		if h.visits == 1 {
			once++
		}
	}
	return hits, once
}

// goesBeyond reports whether some visits make all of h's calls and more.
func (f *conduct) goesBeyond(h *habit) bool {
	for _, o := range f.shapes {
		if len(o.calls) > len(h.calls) && !slices.ContainsFunc(h.calls, func(c uint64) bool {
			_, found := slices.BinarySearch(o.calls, c)
			return !found
		}) {
			return true
		}
	}
	return false
}

// fault is an operation that behaves as it did not in healthy traffic.
type fault struct {
	function
	class string
	sigma float64
	ratio float64 // of its visits, 0..1
	usual float64 // the same in the baseline
	blind int     // services with faults that it calls, whose faults its own may be
}

// broken finds the operations that fail of themselves, or leave calls out, surely more often than in the baseline. A
// service appears once, with its surest operation; those that call another of them stand after it.
func broken(suspect, baseline map[function]*conduct) []fault {
	var all []fault
	for key, s := range suspect {
		b := baseline[key]
		if b == nil || s.visits < enoughAlone || b.visits < enoughAlone {
			continue
		}
		skipped, once := skips(s, b)
		for _, f := range []fault{
			{key, classErrors, unlikely(s.failed, s.visits, b.failed, b.visits), ratio(float64(s.failed), float64(s.visits)), ratio(float64(b.failed), float64(b.visits)), 0},
			{key, classSkips, unlikely(skipped, s.visits, once, b.visits), ratio(float64(skipped), float64(s.visits)), ratio(float64(once), float64(b.visits)), 0},
		} {
			if enough := math.Log(2*float64(len(suspect))) + sureOfAny; f.sigma*f.sigma/2 > enough {
				all = append(all, f)
			}
		}
	}
	slices.SortFunc(all, func(a, b fault) int {
		return cmp.Or(cmp.Compare(b.sigma, a.sigma), cmp.Compare(a.service, b.service), cmp.Compare(a.operation, b.operation), cmp.Compare(a.class, b.class))
	})
	var first []fault
	for _, f := range all {
		if !slices.ContainsFunc(first, func(o fault) bool { return o.service == f.service }) {
			first = append(first, f)
		}
	}
	for i := range first {
		for _, o := range first {
			if _, calls := suspect[first[i].function].calls[o.service]; calls && o.service != first[i].service {
				first[i].blind++
			}
		}
	}
	slices.SortStableFunc(first, func(a, b fault) int { return cmp.Compare(a.blind, b.blind) })
	return first
}

func (f fault) culprit() Culprit {
	return Culprit{Service: f.service, Operation: f.operation, Segment: trace.SegService, Class: f.class}
}

func (f fault) note() string {
	what := "fails of itself"
	if f.class == classSkips {
		what = "leaves out calls as it never did"
	}
	return fmt.Sprintf("%s %s %s in %.1f %% of its visits; in the baseline in %.1f %%", f.service, f.operation, what, 100*f.ratio, 100*f.usual)
}

// material is the part of a trace's healthy time by which a slower service must delay it to stand before one that breaks.
const material = 0.1

// join puts the services that break among those that are slower: behind those that matter much.
func join(slower []Culprit, faults []fault, traceMS float64) []Culprit {
	at := 0
	for at < len(slower) && slower[at].ExcessMS >= material*traceMS {
		at++
	}
	list := slices.Clone(slower[:at])
	named := func(service string) bool {
		return slices.ContainsFunc(list, func(c Culprit) bool { return c.Service == service })
	}
	for _, f := range faults {
		if i := slices.IndexFunc(slower[at:], func(c Culprit) bool { return c.Service == f.service }); i >= 0 {
			list = append(list, slower[at+i])
		} else if !named(f.service) {
			list = append(list, f.culprit())
		}
	}
	for _, c := range slower[at:] {
		if !named(c.Service) {
			list = append(list, c)
		}
	}
	return list
}
