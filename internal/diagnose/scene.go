package diagnose

import (
	"slices"
	"strconv"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// scene is what several rules look at, gathered once for a route.
type scene struct {
	own      map[sort][]work             // spans with time of their own on the critical path, none of whose calls failed, by what they do
	families []family                    // who calls whom
	spots    []spot                      // the callers
	targets  []place                     // what they call
	called   []place                     // the same as the callers see it; see view.callee
	failing  []bool                      // by target: a call of it failed
	hurt     []bool                      // by caller: one of its calls failed, or was no first try
	canceled bool                        // a call was called off
	large    bool                        // a payload of the slow band is large
	gaps     map[int32]map[int32]gap     // see view.gapBefore; nil until asked for
	side     map[string]bool             // see view.sideWork
	suspects []suspect                   // of own, those that take long, the largest part of the slow band first
	faint    []suspect                   // of own, those that only facts could make suspects
	refuted  map[place][]string          // why the time of a place is not what it looks like
	patience map[spot]map[place]*givenUp // see view.patience; nil until asked for
	fates    map[spot]*fates             // see view.fates; nil until asked for
	callees  map[string]map[string]bool  // whom each service calls; see view.below; nil until asked for
}

// sort is what spans do: where they belong, and for databases the statement without its values, since one name may stand for many.
type sort struct {
	place
	statement string
}

// work is a span and the time that the critical path spends in it and in none of its children.
type work struct {
	sample, span int32
	self         int64 // ns
}

// family is the calls that one span makes, in time order.
type family struct {
	sample, parent int32
	where          int32 // the span's service and operation, in scene.spots
	calls          []attempt
}

// attempt is one call: a span that waits for another service, for a store or for a queue.
type attempt struct {
	span, served int32 // served = the span that serves it; -1 = none is recorded
	to           int32 // what it calls, in scene.targets
	as           int32 // the same as the caller sees it, in scene.called
	start, end   int64
	failed       bool
}

// nearby is how many of a span's calls are compared with one of them: more of them cost time and tell nothing.
const nearby = 64

// look gathers the scene in one walk over the spans of the route.
func (v *view) look() *scene {
	if v.seen != nil {
		return v.seen
	}
	c := &scene{own: make(map[sort][]work)}
	v.seen = c
	g := gathering{
		view: v, scene: c, spots: make(map[spot]int32), targets: make(map[place]int32),
		kinds: make(map[sort]int32), kindAt: make(map[int32]int32), spotAt: make(map[int32]int32), servedAt: make(map[int32]int32),
		called: make(map[place]int32), calledAt: make(map[[2]int32]int32),
	}
	for n := range v.samples {
		v.rest()
		g.sample(int32(n))
		v.remotes(n) // while the trace is at hand
	}
	for at, n := range g.kinds {
		c.own[at] = g.works[n]
	}
	c.suspects, c.faint = v.suspicious(c)
	return c
}

// gathering is the scene in the making.
type gathering struct {
	view    *view
	scene   *scene
	spots   map[spot]int32
	targets map[place]int32
	called  map[place]int32
	kinds   map[sort]int32
	works   [][]work // of each kind
	self    []int64  // of the sample's spans, ns
	places  []place  // of the sample's spans; what locate says, zero = not asked

	// The same by the numbers that the set has for operations and places, which are found sooner than texts.
	kindAt   map[int32]int32    // place, of which no statement tells more, to kind
	spotAt   map[int32]int32    // operation to spot
	servedAt map[int32]int32    // operation that serves to target
	calledAt map[[2]int32]int32 // operation that calls, and target, to how the one sees the other; where no attribute tells more
}

func (g *gathering) sample(n int32) {
	s := &g.view.samples[n]
	t := s.tree
	g.self = append(g.self[:0], make([]int64, len(t.Spans))...)
	g.places = append(g.places[:0], make([]place, len(t.Spans))...)
	for _, x := range s.sections {
		g.self[x.Span] += x.End - x.Start
	}
	sized := g.view.isSlow(int(n)) && t.any(markSized) && !g.scene.large
	for i := range t.Spans {
		if sized && t.mayBeLarge(i) && t.size(i) >= largeBytes {
			g.scene.large, sized = true, false
		}
		g.family(n, t, i)
		if g.self[i] == 0 || slices.ContainsFunc(t.Children(i), func(c int32) bool { return t.failed(int(c)) }) {
			continue // pauses between the tries of a call are nobody's work
		}
		k := g.kind(t, i)
		g.works[k] = append(g.works[k], work{n, int32(i), g.self[i]})
	}
}

// kind is the number of what span i does.
func (g *gathering) kind(t *Tree, i int) int32 {
	if k, known := g.kindAt[t.places[i]]; known {
		return k
	}
	at := sort{place: g.place(t, i)}
	if at.segment == trace.SegDatabase {
		at.statement = g.view.statement(t.attr(i, askQuery))
	}
	k, known := g.kinds[at]
	if !known {
		k = int32(len(g.works))
		g.kinds[at], g.works = k, append(g.works, nil)
	}
	if at.segment != trace.SegDatabase {
		g.kindAt[t.places[i]] = k
	}
	return k
}

// family takes in the calls of span i.
func (g *gathering) family(n int32, t *Tree, i int) {
	calls := g.callsOf(t, i)
	if len(calls) == 0 {
		return
	}
	where, known := g.spotAt[t.spots[i]]
	if !known {
		where = intern(g.spots, &g.scene.spots, g.view.spot(&t.Spans[i]))
		g.spotAt[t.spots[i]] = where
	}
	f := family{n, int32(i), where, calls}
	g.scene.families = append(g.scene.families, f)
	if int(f.where) == len(g.scene.hurt) {
		g.scene.hurt = append(g.scene.hurt, false)
	}
	for _, a := range calls {
		g.scene.hurt[f.where] = g.scene.hurt[f.where] || a.failed || t.resent(int(a.span))
	}
}

// place is where the time of span i belongs.
func (g *gathering) place(t *Tree, i int) place {
	p := &g.places[i]
	if p.segment == "" {
		*p = locate(t, i)
		p.operation = g.view.names.name(p.service, p.operation)
	}
	return *p
}

// intern numbers key, and lists it at its number.
func intern[K comparable](numbers map[K]int32, list *[]K, key K) int32 {
	n, ok := numbers[key]
	if !ok {
		n = int32(len(*list))
		numbers[key] = n
		*list = append(*list, key)
	}
	return n
}

// maxTexts bounds how many texts of statements are remembered.
const maxTexts = 4096

// statement is the text of a statement without its values.
func (v *view) statement(text string) string {
	if text == "" {
		return ""
	}
	plain, known := v.plain[text]
	if !known {
		plain = withoutLiterals(text)
		if v.plain == nil {
			v.plain = make(map[string]string)
		}
		if len(v.plain) < maxTexts {
			v.plain[text] = plain
		}
	}
	return plain
}

// callsOf is the calls among the children of span i, in time order.
func (g *gathering) callsOf(t *Tree, i int) (list []attempt) {
	children := t.Children(i)
	if len(children) == 0 {
		return nil
	}
	s := &t.Spans[i]
	if served, ok := calls(t, i); ok && served >= 0 {
		return nil // the call itself: what serves it is no call of its own
	}
	for _, c := range children {
		child := &t.Spans[c]
		served, ok := calls(t, int(c))
		switch {
		case ok:
		case entry(t, int(c)) && child.Kind != trace.Consumer && child.Service != s.Service:
			served = int(c) // the caller's side is not recorded
		case len(t.Children(int(c))) == 0 && isStore(g.place(t, int(c)).segment):
			served = -1
		default:
			continue
		}
		a := attempt{span: c, served: int32(served), start: child.Start, end: child.End, failed: t.failed(int(c))}
		if served >= 0 {
			a.failed = a.failed || served != int(c) && t.failed(served)
			a.to = g.server(t, served)
		} else {
			a.to = intern(g.targets, &g.scene.targets, g.place(t, int(c)))
		}
		a.as = g.seenAs(t, a)
		g.scene.note(a, t.Why(int(c)) == Canceled)
		list = append(list, a)
	}
	return list
}

// server is the number of the target that span i is.
func (g *gathering) server(t *Tree, i int) int32 {
	n, known := g.servedAt[t.spots[i]]
	if !known {
		s := &t.Spans[i]
		n = intern(g.targets, &g.scene.targets, place{trace.SegDownstream, s.Service, g.view.names.name(s.Service, s.Name)})
		g.servedAt[t.spots[i]] = n
	}
	return n
}

// seenAs is the number of what a call calls, as its caller sees it.
func (g *gathering) seenAs(t *Tree, a attempt) int32 {
	key := [2]int32{t.spots[a.span], a.to}
	plain := t.attr(int(a.span), askPeer) == "" && (a.served < 0 || locate(t, int(a.served)).segment != trace.SegGateway)
	if n, known := g.calledAt[key]; plain && known {
		return n
	}
	n := intern(g.called, &g.scene.called, g.view.callee(t, a))
	if plain {
		g.calledAt[key] = n
	}
	return n
}

// note remembers what some rules need to have been seen at all.
func (c *scene) note(a attempt, off bool) {
	if int(a.to) == len(c.failing) {
		c.failing = append(c.failing, false)
	}
	if off {
		c.canceled = true
	} else if a.failed {
		c.failing[a.to] = true
	}
}

func isStore(segment trace.Segment) bool {
	return segment == trace.SegDatabase || segment == trace.SegCache || segment == trace.SegQueue
}

// target names what an attempt calls: the serving span's service and operation, or what the caller's span tells.
func (v *view) target(a attempt) place { return v.look().targets[a.to] }

// sameCall reports whether two calls of one span may be tries of the same thing: the caller's spans have one name and ask
// for the same, and where both callees are recorded they are one operation.
func sameCall(t *Tree, a, b attempt) bool {
	x, y := &t.Spans[a.span], &t.Spans[b.span]
	i, k := int(a.span), int(b.span)
	if x.Name != y.Name || t.attr(i, askQuery) != t.attr(k, askQuery) || t.path(i) != t.path(k) || t.attr(i, askPeer) != t.attr(k, askPeer) {
		return false
	}
	if a.served < 0 || b.served < 0 {
		return a.served == b.served || x.Kind == trace.Client
	}
	p, q := &t.Spans[a.served], &t.Spans[b.served]
	return p.Service == q.Service && p.Name == q.Name
}

// status is the HTTP status that span i tells; 0 = none.
func (t *Tree) status(i int) int {
	text := t.last(i, kindStatus)
	if text == "" {
		return 0
	}
	if len(text) == 3 && digit(text[0]) && digit(text[1]) && digit(text[2]) { // as it nearly always is
		return int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
	}
	status, _ := strconv.Atoi(text)
	return status
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// rpcStatus is the status code of gRPC that span i tells, as a number; 0 = fine, or none.
func (t *Tree) rpcStatus(i int) int {
	text := t.last(i, kindRPC)
	if text == "" {
		return 0
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		code = rpcCodes[strings.ReplaceAll(strings.ToLower(text[:min(len(text), 40)]), "_", "")]
	}
	return code
}

var rpcCodes = map[string]int{
	"cancelled": 1, "canceled": 1, "unknown": 2, "deadlineexceeded": 4, "resourceexhausted": 8, "aborted": 10, "internal": 13, "unavailable": 14,
}

// failed reports whether the call that span i stands for failed by the fault of who served it.
func (t *Tree) failed(i int) bool {
	if has, known := t.knows(i, markFailed); known {
		return has
	}
	if t.Spans[i].Failed {
		return true
	}
	if status := t.status(i); status >= 500 || status == 429 || status == 408 {
		return true
	}
	switch t.rpcStatus(i) {
	case 2, 4, 8, 13, 14:
		return true
	}
	return false
}

// complaint is what span i says of its error, in lower case.
func (t *Tree) complaint(i int) string {
	list := t.all(i, kindComplaint)
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	for _, k := range list {
		text := t.Spans[i].At(int(k)).Value
		b.WriteString(strings.ToLower(text[:min(len(text), 400)]))
		b.WriteByte(' ')
	}
	return b.String()
}

// says reports whether text holds one of the phrases.
func says(text string, phrases ...string) bool {
	return text != "" && slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(text, p) })
}

// timedOut reports whether span i tells that its caller gave up waiting.
func (t *Tree) timedOut(i int) bool {
	status := t.status(i)
	return t.rpcStatus(i) == 4 || status == 504 || status == 408 || says(t.complaint(i), "timeout", "timed out", "deadline", "timedout", "57014", "etimedout")
}

// instance names who worked on span i: its instance, pod or host, or "".
func (t *Tree) instance(i int) string {
	if name := t.attr(i, askInstance); name != "" {
		return name
	}
	return t.Spans[i].Host
}
