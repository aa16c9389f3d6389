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
	readSlow     = 0.5 // of the repeated reads' even part of the slow band, that they must take: what is slow may be the first of each
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
	slow  int64 // ns of the slow band
}

// repeatedReads finds LP104: reads that take a good part of the time and ask for the same again and again.
func repeatedReads(v *view) []Finding {
	v = v.all()
	at := make(map[spot]*readings)
	for i := range v.samples {
		s := &v.samples[i]
		if len(s.tree.worth) == 0 {
			continue
		}
		v.rest()
		var inclusive []int64
		if v.isSlow(i) {
			_, inclusive = s.critical()
		}
		for _, span := range s.tree.worth {
			v.read(at, s.tree, int(span), inclusive)
		}
	}
	found := findingsBySpot(at, func(key spot, r *readings) (Finding, bool) { return v.readFinding(key, r) })
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.ShareP99, a.ShareP99) })
	return found[:min(len(found), readFindings)]
}

// innerRatio is the part of a read that another read within it must take to be the one worth keeping.
const innerRatio = 0.7

// readReader finds reads, in the memory of those before.
type readReader struct {
	order   []int    // spans below the root, parents first
	within  []int64  // longest read below the span, ns
	foreign []string // the one other service that works below the span, or none or several
	changes []bool   // the span, or one below it, writes to a database
	list    []int32
}

// worth is the reads below root that are worth keeping themselves, until the next call. A read that
// mostly waits for another read is not, and neither is a page that several services contribute to: its parts have
// lifetimes of their own; nor is one that changes something on its way. A call counts on the server's side where both are recorded, so that all callers of an
// operation are one.
func (r *readReader) worth(t *Tree, root int) []int32 {
	const none, several = "", "\x00"
	if !t.any(markRead) {
		return nil
	}
	r.order = t.appendBelow(r.order[:0], root)
	r.within, r.foreign = again(r.within, len(t.Spans)), again(r.foreign, len(t.Spans))
	r.changes = again(r.changes, len(t.Spans))
	within, foreign, changes, list := r.within, r.foreign, r.changes, r.list[:0]
	for at, i := range slices.Backward(r.order) {
		s := &t.Spans[i]
		reads := !s.Failed && t.readKey(i) != ""
		took := s.End - s.Start
		changes[i] = changes[i] || t.writes(i)
		if reads && !changes[i] && foreign[i] != several && float64(within[i]) < innerRatio*float64(took) {
			list = append(list, int32(i))
		}
		p := int(t.Parent[i])
		if at == 0 || p < 0 {
			continue
		}
		changes[p] = changes[p] || changes[i]
		if within[p] = max(within[p], within[i]); reads {
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
	r.list = list
	return list
}

// read notes a read.
func (v *view) read(at map[spot]*readings, t *Tree, i int, inclusive []int64) {
	s, key := &t.Spans[i], t.readKey(i)
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
	slow := int64(0)
	if inclusive != nil {
		slow = inclusive[i]
	}
	r.list = append(r.list, reading{number, s.Start, slow})
	r.took += s.End - s.Start
	r.slow += slow
}

func segmentOfRead(t *Tree, i int) trace.Segment {
	if at := locate(t, i); at.segment != trace.SegNetwork {
		return at.segment
	}
	return trace.SegDownstream
}

// reads reports whether span i is an idempotent read that tells what it asks for.
func (t *Tree) reads(i int) bool {
	if has, known := t.knows(i, markRead); known {
		return has
	}
	text := t.attr(i, askQuery)
	if text == "" {
		method := t.attr(i, askMethod)
		return (method == "GET" || method == "HEAD") && t.attr(i, askPersonal) == "" // else the answer may be meant for one user only
	}
	if t.layouts == nil || t.layouts[i] == nil {
		return isRead(text)
	}
	return t.layouts[i].of(text).reads
}

// writes reports whether span i is a statement that changes rows.
func (t *Tree) writes(i int) bool {
	if has, known := t.knows(i, markWrite); known {
		return has
	}
	text := t.attr(i, askQuery)
	if text == "" || t.layouts == nil || t.layouts[i] == nil {
		return changesRows(text)
	}
	return t.layouts[i].of(text).writes
}

// readKey is what span i asks for, as an idempotent read; "" = it is none, or does not tell.
func (t *Tree) readKey(i int) string {
	if !t.reads(i) {
		return ""
	}
	if text := t.attr(i, askQuery); text != "" {
		return text
	}
	if url := t.attr(i, askTarget); url != "" {
		return url
	}
	if path := t.attr(i, askURLPath); path != "" {
		if query := t.attr(i, askURLQuery); query != "" {
			return path + "?" + query
		}
		return path
	}
	return t.attr(i, askURL)
}

// isRead reports whether a statement reads, and its text tells what: placeholders hide it.
func isRead(sql string) bool {
	begin := uncommented(sql)
	if len(begin) < 6 || begin[0]|0x20 != 's' || !strings.EqualFold(begin[:6], "select") || strings.ContainsAny(sql, "?$") || strings.Contains(sql, "%s") || strings.Contains(sql, ":=") {
		return false
	}
	const locks = "for update"
	for i := 0; i+len(locks) <= len(begin); i++ {
		if begin[i]|0x20 == 'f' && strings.EqualFold(begin[i:i+len(locks)], locks) {
			return false
		}
	}
	return true
}

// writers begin statements that change rows.
var writers = []string{"insert", "update", "delete", "merge", "replace", "upsert"}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// uncommented is a statement from its first word on: without the blanks, brackets and comments before it, where some programs tell
// who asks.
func uncommented(sql string) string {
	for sql != "" && !letter(sql[0]) { // it nearly always is one
		rest, end := strings.TrimLeft(sql, " \t\r\n("), ""
		switch {
		case strings.HasPrefix(rest, "/*"):
			end = "*/"
		case strings.HasPrefix(rest, "--"):
			end = "\n"
		default:
			return rest
		}
		_, sql, _ = strings.Cut(rest[2:], end)
	}
	return sql
}

// changesRows reports whether a statement writes.
func changesRows(sql string) bool {
	word := strings.TrimLeftFunc(uncommented(sql), separator)
	if word == "" || letter(word[0]) && strings.IndexByte("iudmr", word[0]|0x20) < 0 { // no writer begins so
		return false
	}
	if end := strings.IndexFunc(word, separator); end >= 0 {
		word = word[:end]
	}
	return word != "" && slices.ContainsFunc(writers, func(x string) bool { return strings.EqualFold(x, word) })
}

// hitRatio is the part of the reads that a cache of this lifetime would have answered, and what the slow band spends with them, ns.
func (r *readings) hitRatio(ttl time.Duration) (ratio float64, slow int64) {
	filled := make(map[int32]int64)
	hits := 0
	for _, x := range r.list {
		if at, ok := filled[x.key]; !ok || x.start-at >= int64(ttl) {
			filled[x.key] = x.start
			continue
		}
		hits++
		slow += x.slow
	}
	return float64(hits) / float64(len(r.list)), slow
}

// lifetime is the shortest TTL that gives nine tenths of the hits of the longest, with its hits and what the slow band spends with them, ns.
func (r *readings) lifetime() (ttl time.Duration, hits float64, slow int64) {
	slices.SortFunc(r.list, func(a, b reading) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.key, b.key)) })
	best, _ := r.hitRatio(lifetimes[len(lifetimes)-1])
	for _, ttl = range lifetimes {
		if hits, slow = r.hitRatio(ttl); hits >= 0.9*best {
			return ttl, hits, slow
		}
	}
	return ttl, hits, slow
}

func (v *view) readFinding(key spot, r *readings) (Finding, bool) {
	share := v.share(r.slow)
	if len(r.list) < readCalls || share < leastShare {
		return Finding{}, false
	}
	ttl, hits, again := r.lifetime()
	if hits < readHits || float64(again) < readSlow*hits*float64(r.slow) { // what is read again may be kept already
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
