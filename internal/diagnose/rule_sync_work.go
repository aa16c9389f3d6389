package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/longpole/longpole/internal/trace"
)

const (
	syncTraces = 0.8                         // of the traces with the call, in which it is the last thing before the answer
	syncAfter  = 0.05                        // of the answering span's time, that may pass after the call: too little to use its result
	syncLeast  = int64(2 * time.Millisecond) // the same, whatever the answer takes
	syncWorth  = int64(5 * time.Millisecond) // median of a call, below which moving it is not worth the trouble
)

// sideStems and sideWords name work whose result no answer needs. Stems may stand anywhere in a name.
var (
	sideStems = []string{"notif", "email", "mailer", "audit", "analytic", "webhook", "telemetry", "newsletter", "clickstream", "journal"}
	sideWords = words("mail sms log logs logging push publish publishing event events metric metrics stats statistics history activity receipt reindex thumbnail")
)

// sided is a call that stands last before the answer.
type sided struct {
	to           string // service and operation
	service      string
	calls, last  int
	ignored      int     // it failed and the answer did not
	slow, high   int64   // ns of the slow band, and of the one below it
	took         []int64 // ns of each call
	segmentPlace place
}

// syncWork finds LP125: a call whose result nobody waits to use, made before the answer instead of after it.
func syncWork(v *view) []Finding {
	at := make(map[spot]map[string]*sided)
	inclusive := make(map[int32][]int64)
	b := v.totals()
	for _, f := range v.look().families {
		s := &v.samples[f.sample]
		t := s.tree
		if locate(t, int(f.parent)).segment == trace.SegGateway && t.front(int(f.parent)) {
			continue // the callee's answer is what the client asked for
		}
		for _, a := range f.calls {
			to := v.target(a)
			if !v.sideCall(t, a) || t.NonBlocking(int(a.span)) {
				continue
			}
			where := v.look().spots[f.where]
			if at[where] == nil {
				at[where] = make(map[string]*sided)
			}
			name := to.service + " " + to.operation
			x := at[where][name]
			if x == nil {
				x = &sided{to: name, service: to.service, segmentPlace: to}
				at[where][name] = x
			}
			x.calls++
			x.took = append(x.took, a.end-a.start)
			if endsAnswer(t, int(f.parent), a) {
				x.last++
			}
			if a.failed && !t.failed(int(f.parent)) {
				x.ignored++
			}
			if int(f.sample) < b.from {
				continue
			}
			if inclusive[f.sample] == nil {
				_, inclusive[f.sample] = s.critical()
			}
			if v.isSlow(int(f.sample)) {
				x.slow += inclusive[f.sample][a.span]
			} else {
				x.high += inclusive[f.sample][a.span]
			}
		}
	}
	return findingsBySpot(at, func(key spot, calls map[string]*sided) (Finding, bool) { return v.sideFinding(key, calls, b.high) })
}

// front reports whether no other service serves a request above span i.
func (t *Tree) front(i int) bool {
	for p := t.Parent[i]; p >= 0; p = t.Parent[p] {
		if above := &t.Spans[p]; above.Kind == trace.Server && above.Service != t.Spans[i].Service {
			return false
		}
	}
	return true
}

// endsAnswer reports whether hardly anything happens in span i after the call.
func endsAnswer(t *Tree, i int, a attempt) bool {
	s := &t.Spans[i]
	if after := s.End - a.end; after > syncLeast && float64(after) > syncAfter*float64(s.End-s.Start) {
		return false
	}
	for n, c := range t.Blocking(i) { // those that end last come first
		if t.Spans[c].End < a.end {
			return true
		}
		if n == nearby || c != a.span && t.Spans[c].Start >= a.end {
			return false
		}
	}
	return true
}

// sideWork reports whether a name tells of work that no answer needs.
func sideWork(name string) bool {
	if name == "" {
		return false
	}
	lower := strings.ToLower(name)
	return says(lower, sideStems...) || anyWord(lower, sideWords) || anyWord(camel(name), sideWords)
}

// sideCall reports whether a call is such work, by what is called, by the caller's span, or by where a message goes.
func (v *view) sideCall(t *Tree, a attempt) bool {
	to, span := v.target(a), &t.Spans[a.span]
	return v.sideWork(to.service) || v.sideWork(to.operation) || v.sideWork(span.Name) ||
		span.Kind == trace.Producer && v.sideWork(t.attr(int(a.span), askTopic))
}

// sideWork is [sideWork], remembered.
func (v *view) sideWork(name string) bool {
	c := v.look()
	is, ok := c.side[name]
	if !ok {
		if is = sideWork(name); len(c.side) < maxTexts {
			if c.side == nil {
				c.side = make(map[string]bool)
			}
			c.side[name] = is
		}
	}
	return is
}

// camel puts blanks between the words of sendPushMessage.
func camel(name string) string {
	var b strings.Builder
	var before rune
	for _, r := range name[:min(len(name), maxStatement)] {
		if unicode.IsUpper(r) && unicode.IsLower(before) {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		before = r
	}
	return b.String()
}

func (v *view) sideFinding(key spot, calls map[string]*sided, high float64) (Finding, bool) {
	var best *sided
	for _, name := range ordered(calls) {
		x := calls[name]
		slices.Sort(x.took)
		if float64(x.last) >= syncTraces*float64(x.calls) && quantile(x.took, 0.5) >= syncWorth && (best == nil || x.slow > best.slow) {
			best = x
		}
	}
	if best == nil || v.share(best.slow) < leastShare {
		return Finding{}, false
	}
	x := best
	usual := time.Duration(quantile(x.took, 0.5))
	f := Finding{
		Code: "LP125", Class: "sync_work", Segment: x.segmentPlace.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.65, ShareP99: v.share(x.slow),
		Summary: fmt.Sprintf("%s %s waits for %s before it answers, and does nothing with the result: %s of the slow traces", key.service, key.operation, x.to, percent(v.share(x.slow))),
		Evidence: []string{
			fmt.Sprintf("in %d of %d cases it is the last thing before the answer; it takes %s (p50)", x.last, x.calls, duration(usual)),
			"its name tells of work that an answer seldom needs",
		},
		Detail: Detail{Callees: []string{x.service}, Calls: float64(x.calls) / float64(len(v.samples)), Latency: usual, Saved: v.perSlow(x.slow)},
	}
	f.harm = ratio(float64(x.high), high)
	if x.ignored > 0 {
		f.Confidence = 0.85
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d times it failed and the answer did not", x.ignored))
	} else {
		f.doubt(0, "traces do not tell whether the answer must wait until it is done, as a law may ask of an audit")
	}
	return f, true
}
