package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

const (
	readCalls    = 20  // fewer calls show no pattern
	readHits     = 0.3 // hit ratio from where a cache is worth its trouble
	readFindings = 3   // of one route, those that take most
	maxReadKeys  = 1 << 16
)

// lifetimes are the TTLs tried, shortest first.
var lifetimes = []time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}

// readings is the reads of one operation.
type readings struct {
	segment trace.Segment
	list    []reading
	keys    map[string]int32
	lost    int // reads whose key found no room
	slow    int64
	took    int64
}

type reading struct {
	key   int32
	start int64
}

// repeatedReads finds LP104: reads that take a good part of the time and ask for the same again and again.
func repeatedReads(v *view) []Finding {
	v = v.all()
	at := make(map[spot]*readings)
	for i := range v.samples {
		s := &v.samples[i]
		order, inclusive := s.critical()
		if !v.isSlow(i) {
			inclusive = nil
		}
		for _, r := range plainReads(s.tree, order) {
			v.read(at, s.tree, r, inclusive)
		}
	}
	found := findingsBySpot(at, func(key spot, r *readings) (Finding, bool) { return v.readFinding(key, r) })
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.ShareP99, a.ShareP99) })
	return found[:min(len(found), readFindings)]
}

// innerRatio is the part of a read that another read within it must take to be the one worth keeping.
const innerRatio = 0.7

// keyed is a span that is a read, and what it asks for.
type keyed struct {
	span int
	key  string
}

// plainReads is the reads among the spans of order (parents first) that are worth keeping themselves. A read that
// mostly waits for another read is not, and neither is a page that several services contribute to: its parts have
// lifetimes of their own. A call counts on the server's side where both are recorded, so that all callers of an
// operation are one.
func plainReads(t *Tree, order []int) (list []keyed) {
	const none, several = "", "\x00"
	within := make([]int64, len(t.Spans))   // longest read below the span, ns
	foreign := make([]string, len(t.Spans)) // the one other service that works below the span, or none or several
	for at, i := range slices.Backward(order) {

		s := &t.Spans[i]
		key := ""
		if !s.Failed {
			key = readKey(s)
		}
		took := s.End - s.Start
		if key != "" && foreign[i] != several && float64(within[i]) < innerRatio*float64(took) {
			list = append(list, keyed{i, key})
		}
		p := int(t.Parent[i])
		if at == 0 || p < 0 {
			continue
		}
		if within[p] = max(within[p], within[i]); key != "" {
			within[p] = max(within[p], took)
		}
		for _, service := range [...]string{s.Service, foreign[i]} {
			switch {
			case service == none || service == t.Spans[p].Service || service == foreign[p]:
			case foreign[p] == none:
				foreign[p] = service
			default:
				foreign[p] = several
			}
		}
	}
	return list
}

// read notes a read.
func (v *view) read(at map[spot]*readings, t *Tree, x keyed, inclusive []int64) {
	i, key, s := x.span, x.key, &t.Spans[x.span]
	where := v.spot(s)
	r := at[where]
	if r == nil {
		r = &readings{segment: segmentOfRead(t, i), keys: make(map[string]int32)}
		at[where] = r
	}
	number, ok := r.keys[key]
	if !ok {
		if len(r.keys) >= maxReadKeys {
			r.lost++
			return
		}
		number = int32(len(r.keys))
		r.keys[key] = number
	}
	r.list = append(r.list, reading{number, s.Start})
	r.took += s.End - s.Start
	if inclusive != nil {
		r.slow += inclusive[i]
	}
}

func segmentOfRead(t *Tree, i int) trace.Segment {
	if at := locate(t, i); at.segment != trace.SegNetwork {
		return at.segment
	}
	return trace.SegDownstream
}

// readKey is what an idempotent read asks for; "" = the span is none, or does not tell.
func readKey(s *trace.Span) string {
	if text := s.Attr(keysQuery...); text != "" {
		if !isSelect(text) || strings.ContainsAny(text, "?$") || strings.Contains(text, "%s") || strings.Contains(text, ":=") {
			return "" // placeholders hide what was asked for
		}
		return text
	}
	method := s.Attr(keysMethod...)
	if method != "GET" && method != "HEAD" {
		return ""
	}
	if personal(s) {
		return ""
	}
	if url := s.Attr("http.target"); url != "" {
		return url
	}
	if path := s.Attr("url.path"); path != "" {
		if query := s.Attr("url.query"); query != "" {
			return path + "?" + query
		}
		return path
	}
	return s.Attr(keysURL...)
}

// personal reports whether the answer may be meant for one user only.
func personal(s *trace.Span) bool {
	return s.Attr("http.request.header.authorization", "http.request.header.cookie", "enduser.id", "user.id") != ""
}

func isSelect(sql string) bool {
	sql = strings.TrimLeft(sql, " \t\r\n(")
	if len(sql) < 6 || !strings.EqualFold(sql[:6], "select") {
		return false
	}
	return !strings.Contains(strings.ToLower(sql), "for update")
}

// hitRatio is the part of the reads that a cache of this lifetime would have answered, and how many it would not.
func (r *readings) hitRatio(ttl time.Duration) (ratio float64, misses int) {
	filled := make(map[int32]int64)
	for _, x := range r.list {
		if at, ok := filled[x.key]; !ok || x.start-at >= int64(ttl) {
			filled[x.key] = x.start
			misses++
		}
	}
	return 1 - float64(misses)/float64(len(r.list)), misses
}

// lifetime is the shortest TTL that gives nine tenths of the hits of the longest.
func (r *readings) lifetime() (time.Duration, float64) {
	slices.SortFunc(r.list, func(a, b reading) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.key, b.key)) })
	best, _ := r.hitRatio(lifetimes[len(lifetimes)-1])
	for _, ttl := range lifetimes {
		if hits, _ := r.hitRatio(ttl); hits >= 0.9*best {
			return ttl, hits
		}
	}
	return lifetimes[len(lifetimes)-1], best
}

func (v *view) readFinding(key spot, r *readings) (Finding, bool) {
	share := v.share(r.slow)
	if len(r.list) < readCalls || share < leastShare {
		return Finding{}, false
	}
	ttl, hits := r.lifetime()
	if hits < readHits {
		return Finding{}, false
	}
	n := len(r.list)
	each := time.Duration(r.took / int64(n))
	span := time.Duration(r.list[n-1].start - r.list[0].start)
	f := Finding{
		Code: "LP104", Class: "repeated_reads", Segment: r.segment, Service: key.service, Operation: key.operation,
		Verdict: Likely, Confidence: 0.7, ShareP99: share,
		Summary: fmt.Sprintf("%s %s answers the same reads again and again: kept for %s, %s of %d calls would need no work; they take %s of the slow traces",
			key.service, key.operation, ttl, percent(hits), n, percent(share)),
		Evidence: []string{
			fmt.Sprintf("%d calls within %s ask for %d different things, %s each", n, duration(span), len(r.keys), duration(each)),
			fmt.Sprintf("replayed through a cache with a lifetime of %s: hit ratio %.2f", ttl, hits),
		},
		CounterEvidence: []string{"whether an answer of that age is fresh enough, and the same for every user, is not in the traces"},
		Detail: Detail{
			Calls: float64(n) / float64(len(v.samples)), Latency: each, TTL: ttl, HitRatio: hits, Keys: len(r.keys),
			Saved: v.perSlow(int64(hits * float64(r.slow))),
		},
	}
	if hits >= 0.8 {
		f.Confidence = 0.8
	}
	if r.lost > 0 {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("%d calls for ever new things were left out: the true hit ratio is lower", r.lost))
		f.Confidence -= 0.2
	}
	if span < ttl {
		f.CounterEvidence = append(f.CounterEvidence, fmt.Sprintf("the traces span %s only", duration(span)))
		f.Confidence -= 0.1
	}
	return f, true
}
