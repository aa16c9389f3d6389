package advise

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// A read is one recorded call that a cache could have answered.
type read struct {
	ref
	key    string  // equal keys asked for the same; "" = never cached
	id     string  // breaks ties of time
	start  int64   // ns since the Unix epoch
	lead   int64   // ns from the start to the fetch: the owner's own time before it
	fetch  int64   // ns from the start to the end of the fetch
	took   int64   // ns
	serve  int64   // ns that a hit takes beyond the owner's own time
	stored bool    // the answer was a success that may be kept
	weight float64 // reads that it stands for
	lots   uint64  // its coins, which say in which half of a split it falls
}

// serveHit is what the gateway does for a hit and no recorded miss shows: the lookup, and to write the answer, which a miss
// does while its attempt still runs. Measured for answers of some kB on one 2-core machine: the span of a hit had a median
// of 14 µs, and the gateway's own time around an attempt one of 7 µs. Spans do not tell how large an answer is; one of
// 200 kB took 50 µs more.
const serveHit = 8 * time.Microsecond

// reads is one route's or one client's, in the order they began.
type reads struct {
	list     []read
	unseen   []read // that a sample left out, by guess; they keep a cache warm, and nothing more
	personal int    // that carry credentials
	foreign  int    // that are no GET and no query
	opaque   int    // whose key the spans do not tell
	keys     int    // distinct
	cached   bool   // a cache of ours answered some of them
	period   int64  // ns from the first to the one that would follow the last
}

// outcome is how a cache would have answered a read.
type outcome struct {
	took    int64 // ns
	state   call.CacheState
	fetched bool // the upstream got a call for it, waited for or behind
}

// readsOf finds the reads that a finding speaks of, as calls of the gateway's route nearest above most of them. route is
// "" when there is none.
func (c *corpus) readsOf(f *diagnose.Finding) (r *reads, route string) {
	routes := make(map[string]int)
	c.matching(f, func(at ref) {
		if gw, _, ok := c.gateway(at); ok {
			routes[c.span(gw).Name]++
		}
	})
	r = &reads{}
	if route = most(routes); route == "" {
		return r, ""
	}
	for _, key := range c.gatewayKeys(route) {
		for _, at := range c.routes[key] {
			t := c.traces[at.trace]
			x := r.add(t, at, at.span)
			x.lead, x.fetch = t.fetch(at.span)
			x.serve = int64(serveHit)
		}
	}
	r.sort()
	return r, route
}

// plainReads finds the reads that a finding speaks of, as their callers see them.
func (c *corpus) plainReads(f *diagnose.Finding) *reads {
	r := &reads{}
	c.matching(f, func(at ref) {
		t := c.traces[at.trace]
		r.add(t, t.caller(at.trace, at.span), at.span)
	})
	r.sort()
	return r
}

// matching visits every span of the finding's service and operation.
func (c *corpus) matching(f *diagnose.Finding, visit func(ref)) {
	for _, at := range c.named()[routeKey{f.Service, f.Operation}] {
		visit(at)
	}
}

// add appends the read that the span at waited for; span tells what it asked for.
func (r *reads) add(t *timeline, at ref, span int) *read {
	s := &t.spans[span]
	took := t.recorded(at.span)
	x := read{
		ref: at, id: s.TraceID + "\x00" + s.ID, start: t.spans[at.span].Start, took: took, fetch: took, stored: storable(s),
		weight: t.weight, lots: random(s, 0).Uint64(),
	}
	switch s.Attr("longpole.cache") {
	case "hit", "stale", "coalesced", "miss":
		r.cached = true
	}
	switch key, personal := readKey(s); {
	case personal:
		r.personal++
	case key == "":
		r.opaque++
	case key == notRead:
		r.foreign++
	default:
		x.key = key
	}
	r.list = append(r.list, x)
	return &r.list[len(r.list)-1]
}

// fetch is when the gateway's span i began its first attempt and ended its last, in ns since its start.
func (t *timeline) fetch(i int) (lead, end int64) {
	calls := t.blocking(i)
	if len(calls) == 0 {
		return t.recorded(i), t.recorded(i)
	}
	lead, _ = t.clip(i, calls[0])
	for _, k := range calls {
		_, e := t.clip(i, k)
		end = max(end, e)
	}
	return lead, end
}

// notRead is the key of a call that changes something, or may.
const notRead = "\x00"

// readKey is what s asked for; personal means that it did so with credentials. A statement with placeholders
// tells its key only together with its parameters.
func readKey(s *trace.Span) (key string, personal bool) {
	if s.Attr("http.request.header.authorization", "http.request.header.cookie", "enduser.id", "user.id") != "" {
		return "", true
	}
	if method := s.Attr("http.request.method", "http.method"); method != "" {
		if !strings.EqualFold(method, "GET") {
			return notRead, false
		}
		if target := s.Attr("url.full", "http.url", "http.target"); target != "" {
			return target, false
		}
		path, query := s.Attr("url.path"), s.Attr("url.query")
		if path == "" {
			return "", false
		}
		return path + "?" + query, false
	}
	statement := s.Attr("db.query.text", "db.statement")
	if statement == "" {
		return "", false
	}
	if word, _, _ := strings.Cut(strings.TrimSpace(statement), " "); !strings.EqualFold(word, "SELECT") && !strings.EqualFold(word, "GET") {
		return notRead, false
	}
	values := parameters(s)
	if values == "" && strings.ContainsAny(statement, "?$:@") {
		return "", false
	}
	return s.Attr("db.namespace", "db.name") + "\x00" + statement + "\x00" + values, false
}

// parameters joins the values that were bound to a statement, in order of their names.
func parameters(s *trace.Span) string {
	var list []string
	for a := range s.All() {
		if strings.HasPrefix(a.Key, "db.query.parameter.") || strings.HasPrefix(a.Key, "db.operation.parameter.") {
			list = append(list, a.Key+"="+a.Value)
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\x00")
}

// storable reports whether the answer of s may be kept, as far as the span tells.
func storable(s *trace.Span) bool {
	control := strings.ToLower(s.Attr("http.response.header.cache-control", "http.response.header.cache_control"))
	if s.Failed || strings.Contains(control, "no-store") || strings.Contains(control, "private") {
		return false
	}
	status := s.Attr("http.response.status_code", "http.status_code")
	return status == "" || status == "200"
}

func (r *reads) sort() {
	slices.SortFunc(r.list, func(a, b read) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id)) })
	seen := make(map[string]bool)
	for i := range r.list {
		if key := r.list[i].key; key != "" {
			seen[key] = true
		}
	}
	r.keys = len(seen)
	if n := int64(len(r.list)); n > 1 {
		window := r.list[n-1].start - r.list[0].start
		r.period = window + window/(n-1)
	}
	r.guess()
}

// mostUnseen bounds the reads that are guessed.
const mostUnseen = 50_000

// guess draws the reads that a sample left out. A key is taken to be asked for as often as its reads stand for, less what one of them
// stands for: one that was seen once may be one of many that are asked for once, which no cache helps, and is taken for that (as
// Good-Turing does). When they come is drawn evenly.
func (r *reads) guess() {
	type asked struct{ seen, all float64 }
	keys, sum := make(map[string]*asked), 0.0
	for i := range r.list {
		x := &r.list[i]
		k := keys[x.key]
		if k == nil {
			k = &asked{}
			keys[x.key] = k
		}
		k.seen++
		k.all += x.weight
	}
	delete(keys, "")
	missing := func(x *read) float64 { // its part of those of its key
		k := keys[x.key]
		if k == nil {
			return 0
		}
		return max(0, k.all-k.all/k.seen+1-k.seen) * x.weight / k.all
	}
	for i := range r.list {
		sum += missing(&r.list[i])
	}
	part := min(1, mostUnseen/max(sum, 1))
	for i := range r.list {
		x := &r.list[i]
		random := rand.New(rand.NewPCG(x.lots, 1))
		for n := part * missing(x); random.Float64() < n; n-- {
			y := *x
			y.start, y.lots = r.list[0].start+int64(random.Float64()*float64(r.period)), random.Uint64()
			r.unseen = append(r.unseen, y)
		}
	}
	slices.SortStableFunc(r.unseen, func(a, b read) int { return cmp.Compare(a.start, b.start) })
}

// window is how long the reads were watched.
func (r *reads) window() time.Duration { return time.Duration(r.period) }

// kept is what a cache knows about one key.
type kept struct {
	have         bool
	fresh, stale int64 // may be used until, in ns since the Unix epoch: as it is; while it is fetched anew
	flight       int64 // when the running fetch ends; 0 = none runs
	fails        bool  // the running fetch will bring nothing to keep
}

// simulate answers the reads from a cache under c and returns what each of them would have seen, in their order.
//
// The recorded reads run through the cache twice, as if what was watched came again and again, and the second time
// counts: so the cache is as warm as it will be, and the first fetches are not held against it. That is fair only for
// lifetimes no longer than what was watched. Room is not simulated.
func (r *reads) simulate(c cache.Config) []outcome {
	entries := make(map[string]*kept, r.keys)
	out := make([]outcome, len(r.list))
	for pass := range int64(2) {
		left, shift := r.unseen, pass*r.period
		warm := func(until int64) {
			for len(left) > 0 && left[0].start < until {
				left[0].answer(entries, c, left[0].start+shift)
				left = left[1:]
			}
		}
		for i := range r.list {
			warm(r.list[i].start)
			out[i] = r.list[i].answer(entries, c, r.list[i].start+shift)
		}
		warm(math.MaxInt64)
	}
	return out
}

// answer asks the cache at now, and tells it of the fetch that follows.
func (x *read) answer(entries map[string]*kept, c cache.Config, now int64) outcome {
	if x.key == "" {
		return outcome{x.took, call.Uncached, true}
	}
	k := entries[x.key]
	if k == nil {
		k = &kept{}
		entries[x.key] = k
	}
	asked, tail := now+x.lead, x.took-x.fetch
	hit := min(x.took, x.lead+x.serve+tail)
	k.settle(asked, c)
	switch {
	case k.have && asked < k.fresh:
		return outcome{hit, call.Hit, false}
	case k.have && asked < k.stale:
		lead := k.flight == 0
		if lead {
			k.flight, k.fails = now+x.fetch, !x.stored
		}
		return outcome{hit, call.Stale, lead}
	case k.flight != 0 && !k.fails:
		return outcome{x.lead + k.flight - asked + tail, call.Coalesced, false}
	case k.flight == 0:
		k.flight, k.fails = now+x.fetch, !x.stored
	}
	return outcome{x.took, call.Miss, true}
}

// settle stores what a fetch that ended by now brought.
func (k *kept) settle(now int64, c cache.Config) {
	if k.flight == 0 || k.flight > now {
		return
	}
	if !k.fails {
		k.have = true
		k.fresh = k.flight + int64(c.TTL)
		k.stale = k.fresh + int64(c.StaleWhileRevalidate)
	}
	k.flight = 0
}

// saved is the share of the reads that the upstream got no call for.
func (r *reads) saved(out []outcome) float64 {
	return r.part(out, func(o outcome) bool { return !o.fetched })
}

// part is the share of the reads whose outcome is such.
func (r *reads) part(out []outcome, such func(outcome) bool) float64 {
	var n, all float64
	for i := range out {
		all += r.list[i].weight
		if such(out[i]) {
			n += r.list[i].weight
		}
	}
	return share(n, all)
}

// sampled reports whether the reads are a part of those that were made.
func (r *reads) sampled() bool {
	return slices.ContainsFunc(r.list, func(x read) bool { return x.weight > 1 })
}

// waits is the share of the reads that waited for a fetch, their own or another's.
func (r *reads) waits(out []outcome) float64 {
	return r.part(out, func(o outcome) bool { return o.state != call.Hit && o.state != call.Stale })
}
