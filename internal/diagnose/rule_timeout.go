package diagnose

import (
	"cmp"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	timeoutCalls = 3                       // calls that were given up
	timeoutAlike = 0.1                     // of their median, within which calls that one time-out ended lie
	timeoutMost  = 0.8                     // of the calls that were given up, that lie there
	leastTimeout = int64(time.Millisecond) // shorter ones cannot be told from errors
)

// givenUp is the calls of one target by one operation: those that succeeded, and those that their caller gave up.
type givenUp struct {
	to        place
	all, gone float64 // weighted
	fine      []int64 // ns of each call that succeeded
	lost      []int64 // ns of each call that was given up
	alike     []int64 // ns of each call that failed, whatever it says
	needed    []int64 // ns that the callee took, where it answered well
	late      int     // calls given up whose callee went on and answered well
	seen      int     // calls given up whose callee is recorded
	slow      int64   // ns of the slow band in calls that were given up
}

// patience is what the callers of each operation wait for each target.
func (v *view) patience() map[spot]map[place]*givenUp {
	c := v.look()
	if c.patience != nil {
		return c.patience
	}
	c.patience = make(map[spot]map[place]*givenUp)
	inclusive := make(map[int32][]int64)
	for _, f := range c.families {
		s := &v.samples[f.sample]
		if !c.hurt[f.where] {
			continue
		}
		where := c.spots[f.where]
		for _, a := range f.calls {
			to := c.called[a.as]
			if c.patience[where] == nil {
				c.patience[where] = make(map[place]*givenUp)
			}
			g := c.patience[where][to]
			if g == nil {
				g = &givenUp{to: to}
				c.patience[where][to] = g
			}
			if gone := g.count(s, a); gone && v.isSlow(int(f.sample)) {
				if inclusive[f.sample] == nil {
					_, inclusive[f.sample] = s.critical()
				}
				g.slow += inclusive[f.sample][a.span]
			}
		}
	}
	return c.patience
}

// callee names what is called as the caller sees it, so that calls whose callee is not recorded, as they were given up, count with
// the others.
func (v *view) callee(t *Tree, a attempt) place {
	s := &t.Spans[a.span]
	if a.served == a.span || s.Kind != trace.Client {
		return v.target(a)
	}
	p := v.target(a)
	p.operation = v.names.name(s.Service, s.Name)
	if name := t.attr(int(a.span), askPeer); name != "" {
		p.service = name
	}
	if a.served >= 0 {
		p.service = behind(t, int(a.served))
	}
	p.segment = trace.SegDownstream
	if to := v.target(a).segment; isStore(to) {
		p.segment = to
	}
	return p
}

// behind is the service that span i, which serves a call, is of; or the one that it passes the call on to, if it is a gateway's and calls
// one service alone.
func behind(t *Tree, i int) string {
	name := t.Spans[i].Service
	if locate(t, i).segment != trace.SegGateway {
		return name
	}
	next := ""
	for _, c := range t.Children(i) {
		served, ok := calls(t, int(c))
		if !ok {
			continue
		}
		to := locate(t, int(c)).service // of a call that is answered, its callee's
		if served < 0 && to == name || next != "" && next != to {
			return name
		}
		next = to
	}
	return cmp.Or(next, name)
}

// count takes in a call and reports whether it was given up.
func (g *givenUp) count(s *sample, a attempt) (gone bool) {
	t := s.tree
	if t.Why(int(a.span)) == Canceled {
		return false
	}
	took := a.end - a.start
	g.all += s.stands()
	served := a.served >= 0 && a.served != a.span
	if served {
		if answer := &t.Spans[a.served]; !t.failed(int(a.served)) {
			g.needed = append(g.needed, answer.End-answer.Start)
		}
	}
	if !a.failed {
		g.fine = append(g.fine, took)
		return false
	}
	g.alike = append(g.alike, took)
	early := served && t.Spans[a.served].End > a.end && t.failed(int(a.span))
	if !t.timedOut(int(a.span)) && !early && (!served || !t.timedOut(int(a.served))) {
		return false
	}
	g.lost = append(g.lost, took)
	g.gone += s.stands()
	if served {
		g.seen++
		if !t.failed(int(a.served)) && t.Spans[a.served].End > a.end {
			g.late++
		}
	}
	return true
}

// timeout is the time after which calls are given up; 0 = there are too few of them, or they do not agree.
func (g *givenUp) timeout() int64 {
	if t := agreed(g.lost); t > 0 {
		return t
	}
	return 0
}

// agreed is the median of a list if most of it lies near it; else 0.
func agreed(list []int64) int64 {
	if len(list) < timeoutCalls {
		return 0
	}
	slices.Sort(list)
	middle := quantile(list, 0.5)
	near := 0
	for _, ns := range list {
		if float64(max(ns-middle, middle-ns)) <= timeoutAlike*float64(middle) {
			near++
		}
	}
	if middle < leastTimeout || float64(near) < timeoutMost*float64(len(list)) {
		return 0
	}
	return middle
}

// worstOf is the entry of m that f ranks highest, ties by name; nil = f takes none.
func worstOf(m map[place]*givenUp, f func(*givenUp) float64) (worst *givenUp) {
	keys := make([]place, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, byPlace)
	best := 0.0
	for _, k := range keys {
		if x := f(m[k]); x > best {
			worst, best = m[k], x
		}
	}
	return worst
}
