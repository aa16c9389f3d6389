package routing

import (
	"fmt"
	"math"
	"strings"
)

// Table finds the first of many matches that takes a call. It is immutable, and safe for concurrent use.
type Table struct {
	rules  []*rule
	any    *node            // of rules without host
	exact  map[string]*node // by host
	below  map[string]*node // by what follows *. in a host
	labels int              // the most that a name in below has
}

// node is where the paths that begin with the same segments meet. Lists are indexes of rules, in order.
type node struct {
	least                  int32 // the lowest index here and below
	ends, opens, continues []int32
	literal                map[string]*node
	wild                   *node
}

const none = math.MaxInt32

// few rules are asked one by one sooner than the tree is walked.
const few = 8

// NewTable compiles matches. The error joins what is wrong with them.
func NewTable(matches []Match) (*Table, error) {
	t := &Table{exact: make(map[string]*node), below: make(map[string]*node)}
	for i, m := range matches {
		r, err := compile(m)
		if err != nil {
			return nil, fmt.Errorf("routing: match %d: %w", i, err)
		}
		t.rules = append(t.rules, r)
		if len(r.hosts) == 0 {
			if t.any == nil {
				t.any = newNode()
			}
			t.any.insert(r, int32(i))
		}
		for _, host := range r.hosts {
			roots := t.exact
			if name, wild := strings.CutPrefix(host, "*."); wild {
				roots, host = t.below, name
				t.labels = max(t.labels, strings.Count(name, ".")+1)
			}
			if roots[host] == nil {
				roots[host] = newNode()
			}
			roots[host].insert(r, int32(i))
		}
	}
	return t, nil
}

func newNode() *node { return &node{least: none} }

// insert puts a rule where its segments lead. Rules come in the order of their index.
func (n *node) insert(r *rule, i int32) {
	n.least = min(n.least, i)
	for _, s := range r.shape.segments {
		var next *node
		if s.wild {
			if n.wild == nil {
				n.wild = newNode()
			}
			next = n.wild
		} else {
			if n.literal == nil {
				n.literal = make(map[string]*node)
			}
			if next = n.literal[s.text]; next == nil {
				next = newNode()
				n.literal[s.text] = next
			}
		}
		n = next
		n.least = min(n.least, i)
	}
	switch r.shape.tail {
	case ends:
		n.ends = append(n.ends, i)
	case opens:
		n.opens = append(n.opens, i)
	default:
		n.continues = append(n.continues, i)
	}
}

// Find is the index of the first match that takes q; ok is false when none does. It allocates nothing, unless a
// Condition looks at a parameter with codes in it.
func (t *Table) Find(q *Request) (i int, ok bool) {
	if q.Path == "" || q.Path[0] != '/' {
		return 0, false
	}
	if len(t.rules) <= few {
		for i, r := range t.rules {
			if r.takes(q) {
				return i, true
			}
		}
		return 0, false
	}
	best := int32(none)
	if t.any != nil {
		best = t.search(t.any, q, q.Path[1:], false, best)
	}
	if len(t.exact) > 0 {
		if n := t.exact[q.Host]; n != nil {
			best = t.search(n, q, q.Path[1:], false, best)
		}
	}
	if len(t.below) > 0 {
		best = t.searchBelow(q, best)
	}
	return int(best), best != none
}

// searchBelow asks for each domain that the host lies below, from the shortest that may be there to the longest.
func (t *Table) searchBelow(q *Request, best int32) int32 {
	end := len(q.Host)
	for range t.labels {
		dot := strings.LastIndexByte(q.Host[:end], '.')
		if dot <= 0 {
			break
		}
		if n := t.below[q.Host[dot+1:]]; n != nil {
			best = t.search(n, q, q.Path[1:], false, best)
		}
		end = dot
	}
	return best
}

// search is the lowest index, below best, of a rule at n or below it that takes q. rest is what follows n's segments in
// the path; done says that nothing does, not even an empty segment.
func (t *Table) search(n *node, q *Request, rest string, done bool, best int32) int32 {
	if n.least >= best {
		return best
	}
	best = t.first(n.opens, q, best)
	if done {
		return t.first(n.ends, q, best)
	}
	best = t.first(n.continues, q, best)
	segment, rest, more := cutSegment(rest)
	if next := n.literal[segment]; next != nil {
		best = t.search(next, q, rest, !more, best)
	}
	if n.wild != nil && segment != "" {
		best = t.search(n.wild, q, rest, !more, best)
	}
	return best
}

func (t *Table) first(list []int32, q *Request, best int32) int32 {
	for _, i := range list {
		if i >= best {
			break
		}
		if t.rules[i].passes(q) {
			return i
		}
	}
	return best
}

// Takes reports whether a path, in canonical form, is one that match i takes.
func (t *Table) Takes(i int, path string) bool { return t.rules[i].shape.takes(path) }

// Captures are the values that match i's pattern finds in a path that it takes, in the order of Match.Names and in
// canonical form; nil when it has none.
func (t *Table) Captures(i int, path string) []string { return t.rules[i].shape.captures(path) }

// Covered finds the matches that can never take a call: for each the first one before it that takes all of it, or -1.
// Matches that only several others cover together are not found; faulty ones cover nothing.
func Covered(matches []Match) []int {
	by := make([]int, len(matches))
	rules := make([]*rule, len(matches))
	for i, m := range matches {
		by[i] = -1
		r, err := compile(m)
		if err != nil {
			continue
		}
		rules[i] = r
		for j, earlier := range rules[:i] {
			if earlier != nil && earlier.covers(r) {
				by[i] = j
				break
			}
		}
	}
	return by
}
