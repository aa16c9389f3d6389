package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// missesVariant is a cache that does not have what is asked for, for no reason that is known.
const missesVariant = "misses"

const (
	cacheLookups  = 20   // fewer show no ratio
	missRatio     = 0.5  // of the lookups, from where a cache hardly helps
	alwaysMissing = 0.97 // from where calls that merely follow each other cannot be told from misses
	missShare     = 0.1  // of the slow band that the reads after a miss take
	goodRatio     = 0.9  // hit ratio as the server tells it, that speaks against misses
	stampedeReads = 5    // of one thing at once
	stampedeShare = 0.15 // of the slow band that they take
	hotShare      = 0.5  // of the lookups that one key takes
	hotLong       = 0.8  // of the long lookups
	hotFactor     = 1.5  // times what lookups of other keys take; some of these go to the same shard, and wait with it
	maxCacheKeys  = 1 << 14
	maxCaches     = 1 << 10 // told apart, by who asks them
)

// lookups is what one operation asks of a cache.
type lookups struct {
	cache        string  // its name
	all, missed  float64 // weighted
	n, last      int     // last = number of the last family
	told         int     // that say themselves whether they hit
	families     float64 // spans that look something up, weighted
	fills        map[place]*filling
	keys         map[string]int
	longKeys     map[string]int
	long         int
	slowLong     int64
	times        []keyTime // of the lookups of suspects
	fillsByThing map[string][]fill
}

// keyTime is how long a lookup took, and where its trace is in the slow band, for what.
type keyTime struct {
	key  string
	ns   int64
	slow bool
}

// filling is the reads of one target that follow lookups at once.
type filling struct {
	who      string  // is read, behind a gateway
	families float64 // spans that make such a read right after a lookup, weighted
	present  float64 // spans that make it after a lookup at all
	seen     int     // number of the last of these
	last     int     // number of the last of them
	slow     int64   // ns of the slow band
}

// fill is a read that follows a miss.
type fill struct {
	start, end int64
	slow       int64
}

// cacheMiss finds LP115: caches that miss too often, keys that many fetch at once when they are gone, and keys that take all the
// traffic.
func cacheMiss(v *view) []Finding {
	at := make(map[cacheUse]*lookups)
	split := v.cachesApart()
	inclusive := make(map[int32][]int64)
	for n, f := range v.look().families {
		v.lookup(at, split, n+1, f, inclusive)
	}
	for _, s := range v.look().asked(trace.SegCache) {
		for _, w := range s.works {
			t, span := v.span(w)
			if t.Parent[w.span] < 0 {
				continue
			}
			x := at[split.of(v.spot(&t.Spans[t.Parent[w.span]]), t, w.span)]
			if x == nil {
				continue
			}
			key, slow := keyOf(span), v.isSlow(int(w.sample))
			x.times = append(x.times, keyTime{key, w.self, slow})
			if !s.constant && s.long(w) {
				x.long++
				x.longKeys[key]++
				if slow {
					x.slowLong += w.self
				}
			}
		}
	}
	var found []Finding
	for _, use := range slices.SortedFunc(maps.Keys(at), func(a, b cacheUse) int { return cmp.Or(bySpot(a.spot, b.spot), cmp.Compare(a.cache, b.cache)) }) {
		if f, ok := v.cacheFinding(use.spot, at[use]); ok {
			found = append(found, f)
		}
	}
	return found
}

// cacheUse is the lookups of one operation in one cache; "" = in all that it asks.
type cacheUse struct {
	spot
	cache string
}

// apart says which of the caches that an operation asks are not one: nil, or those that stand for themselves.
type apart map[cacheUse]bool

// of is the use that a lookup belongs to.
func (a apart) of(where spot, t *Tree, span int32) cacheUse {
	if len(a) > 0 {
		if use := (cacheUse{where, t.peer(int(span))}); a[use] {
			return use
		}
	}
	return cacheUse{spot: where}
}

// cachesApart finds the caches whose misses are filled by what fills no other one that the same operation asks. Servers of one cache
// are filled alike, and what is never filled tells nothing.
func (v *view) cachesApart() apart {
	sources := make(map[cacheUse]map[int32]bool) // targets
	users := make(map[spot]map[int32]int)        // how many caches of an operation a target fills
	v.eachLookup(func(f family, k int, told int) {
		t := v.samples[f.sample].tree
		next := v.following(t, f.rest(k), f.calls[k])
		if told == 1 || next < 0 {
			return
		}
		use, to := cacheUse{v.look().spots[f.where], t.peer(int(f.calls[k].span))}, f.calls[k+1+next].to
		if sources[use] == nil {
			if len(sources) >= maxCaches {
				return
			}
			sources[use] = make(map[int32]bool)
		}
		if !sources[use][to] {
			sources[use][to] = true
			if users[use.spot] == nil {
				users[use.spot] = make(map[int32]int)
			}
			users[use.spot][to]++
		}
	})
	a := make(apart)
	for use, targets := range sources {
		alone := true
		for to := range targets {
			alone = alone && users[use.spot][to] == 1
		}
		if alone {
			a[use] = true
		}
	}
	return a
}

// eachLookup calls do with each lookup in a cache: call k of f, and what it says of itself; see hit.
func (v *view) eachLookup(do func(f family, k, told int)) {
	for _, f := range v.look().families {
		t := v.samples[f.sample].tree
		for k, a := range f.calls {
			if span := &t.Spans[a.span]; a.served < 0 && v.target(a).segment == trace.SegCache && isLookup(span) {
				do(f, k, hit(span))
			}
		}
	}
}

// rest is the calls after number k that are compared with it.
func (f *family) rest(k int) []attempt { return f.calls[k+1 : min(len(f.calls), k+1+nearby)] }

// keyOf is what a lookup asks for; "" = it does not tell.
func keyOf(s *trace.Span) string {
	if key := s.Attr("cache.key", "db.redis.key", "redis.key", "db.operation.parameter.key"); key != "" {
		return key
	}
	words := strings.Fields(s.Attr(keysQuery...))
	if len(words) < 2 || strings.ContainsAny(words[1], "?$") {
		return ""
	}
	return words[1]
}

// isLookup reports whether a cache's span reads.
func isLookup(s *trace.Span) bool {
	name := s.Attr("db.operation.name", "db.operation")
	if name == "" {
		name = first(s.Attr(keysQuery...))
	}
	if name == "" {
		name = s.Name
	}
	name = strings.ToLower(name)
	return !says(name, "set", "del", "expire", "incr", "push", "publish", "put", "add", "evict", "invalidate")
}

// hit is what a lookup says of itself: 1 = hit, 0 = miss, -1 = nothing.
func hit(s *trace.Span) int {
	switch strings.ToLower(s.Attr("cache.hit", "cache_hit", "cache.result", "cache.status", "longpole.cache")) {
	case "true", "hit", "1", "yes":
		return 1
	case "false", "miss", "0", "no":
		return 0
	}
	if s.Attr("db.response.returned_rows") == "0" {
		return 0
	}
	return -1
}

func (v *view) lookup(at map[cacheUse]*lookups, split apart, number int, f family, inclusive map[int32][]int64) {
	s := &v.samples[f.sample]
	t := s.tree
	for k, a := range f.calls {
		span := &t.Spans[a.span]
		if a.served >= 0 || v.target(a).segment != trace.SegCache || !isLookup(span) {
			continue
		}
		use := split.of(v.look().spots[f.where], t, a.span)
		x := at[use]
		if x == nil {
			x = &lookups{cache: t.peer(int(a.span)), keys: make(map[string]int), longKeys: make(map[string]int), fills: make(map[place]*filling), fillsByThing: make(map[string][]fill)}
			at[use] = x
		}
		if x.last != number {
			x.last = number
			x.families += s.stands()
		}
		x.n++
		x.all += s.stands()
		if key := keyOf(span); key != "" && (x.keys[key] > 0 || len(x.keys) < maxCacheKeys) {
			x.keys[key]++
		}
		told := hit(span)
		rest := f.rest(k)
		next := v.following(t, rest, a)
		x.notePresent(v, number, f, rest)
		if told >= 0 {
			x.told++
		}
		if told == 1 || told < 0 && next < 0 {
			continue
		}
		x.missed += s.stands()
		if next >= 0 {
			x.fill(v, number, f, f.calls[k+1+next], keyOf(span), inclusive)
		}
	}
}

// notePresent counts what is called after a lookup, at once or later.
func (x *lookups) notePresent(v *view, number int, f family, rest []attempt) {
	s := &v.samples[f.sample]
	for _, b := range rest {
		to := v.target(b)
		z := x.fills[to]
		if z == nil {
			z = &filling{who: to.service}
			if b.served >= 0 {
				z.who = behind(s.tree, int(b.served))
			}
			x.fills[to] = z
		}
		if z.seen != number {
			z.seen = number
			z.present += s.stands()
		}
	}
}

// following is the read that comes right after a lookup and may do what the cache could not; -1 = there is none.
func (v *view) following(t *Tree, rest []attempt, a attempt) int {
	for i, b := range rest {
		if b.start < a.end {
			continue
		}
		at := v.target(b).segment
		if at == trace.SegCache || at == trace.SegQueue || takesLocks(t.attr(int(b.span), askQuery), t.Spans[b.span].Name) {
			return -1
		}
		return i
	}
	return -1
}

func (x *lookups) fill(v *view, number int, f family, a attempt, key string, inclusive map[int32][]int64) {
	s := &v.samples[f.sample]
	y := fill{start: a.start, end: a.end}
	if v.isSlow(int(f.sample)) {
		if inclusive[f.sample] == nil {
			_, inclusive[f.sample] = s.critical()
		}
		y.slow = inclusive[f.sample][a.span]
	}
	to := v.target(a)
	if z := x.fills[to]; z.last != number {
		z.last = number
		z.families += s.stands()
	}
	x.fills[to].slow += y.slow
	if key == "" {
		key = s.tree.readKey(int(a.span))
	}
	if key != "" && (x.fillsByThing[key] != nil || len(x.fillsByThing) < maxCacheKeys) {
		x.fillsByThing[key] = append(x.fillsByThing[key], y)
	}
}

func (v *view) cacheFinding(key spot, x *lookups) (Finding, bool) {
	if x.n < cacheLookups {
		return Finding{}, false
	}
	to, fills := x.source()
	if f, ok := v.stampede(key, x, to, fills.who); ok {
		return f, true
	}
	if f, ok := v.hotKey(key, x); ok {
		return f, true
	}
	return v.misses(key, x, to, fills)
}

func (v *view) cacheOf(key spot, x *lookups, to place, variant string, confidence float64, slow int64) Finding {
	f := Finding{
		Code: "LP115", Class: "cache_miss", Segment: trace.SegCache, Service: key.service, Operation: key.operation,
		Verdict: Likely, Confidence: confidence, ShareP99: v.share(slow),
		Detail: Detail{Variant: variant, HitRatio: 1 - x.missed/x.all, Keys: len(x.keys), Saved: v.perSlow(slow)},
	}
	if to.service != "" {
		f.Detail.Callees = []string{to.service}
	}
	return f
}

// source is the target of most of the time in reads after lookups, and these reads.
func (x *lookups) source() (to place, fills *filling) {
	fills = &filling{}
	for p, z := range x.fills {
		if x.told*2 < x.n && z.families < alwaysMissing*z.present {
			continue // it is made after hits, too
		}
		if z.slow > fills.slow || z.slow == fills.slow && (to == place{} || byPlace(p, to) < 0) {
			to, fills = p, z
		}
	}
	return to, fills
}

// misses looks for a cache that hardly helps. Where the spans do not tell hits from misses, a read that follows a lookup in some
// traces and in others does not is taken for the work of a miss; one that always follows may be there for its own sake.
func (v *view) misses(key spot, x *lookups, to place, fills *filling) (Finding, bool) {
	ratio := x.missed / x.all
	if x.told*2 < x.n {
		ratio = fills.present / x.families
	}
	redis := v.facts.Cache(x.cache)
	server := redis != nil && redis.Stats.Lookups > 0
	cold := server && redis.Stats.HitRatio <= 1-missRatio
	if ratio < missRatio || v.share(fills.slow) < missShare || x.told*2 < x.n && ratio > alwaysMissing && !cold {
		return Finding{}, false
	}
	f := v.cacheOf(key, x, to, missesVariant, 0.6, fills.slow)
	f.Detail.HitRatio = 1 - ratio
	f.Summary = fmt.Sprintf("%s of the lookups of %s %s in its cache miss; the reads of %s that follow take %s of the slow traces",
		percent(ratio), key.service, key.operation, fills.who, percent(f.ShareP99))
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d lookups, %s of them hits", x.n, percent(1-ratio)))
	if x.told*2 >= x.n {
		f.Confidence = 0.8
		f.Evidence = append(f.Evidence, "the spans tell hits and misses themselves")
	} else if !cold {
		f.doubt(0, "a read that follows a lookup is taken for a miss")
	}
	switch {
	case !server:
	case cold:
		f.confirm(0.9, fmt.Sprintf("the cache's server counts a hit ratio of %.2f", redis.Stats.HitRatio))
		if redis.Stats.Evicted > 0 {
			f.Evidence = append(f.Evidence, fmt.Sprintf("it evicts %.0f keys a second: its memory is too small", redis.Stats.Evicted))
		}
	case redis.Stats.HitRatio >= goodRatio:
		f.doubt(0.35, fmt.Sprintf("the cache's server counts a hit ratio of %.2f over all keys", redis.Stats.HitRatio))
		return f, f.Confidence >= 0.4
	}
	return f, true
}

// stampede looks for one thing that many fetch at once.
func (v *view) stampede(key spot, x *lookups, to place, who string) (Finding, bool) {
	slow, worst, thing := int64(0), 0, ""
	for _, name := range ordered(x.fillsByThing) {
		most, ns := crush(x.fillsByThing[name])
		slow += ns
		if most > worst {
			worst, thing = most, name
		}
	}
	if worst < stampedeReads || v.share(slow) < stampedeShare {
		return Finding{}, false
	}
	f := v.cacheOf(key, x, to, "stampede", 0.85, slow)
	f.Detail.Concurrency = float64(worst)
	f.Detail.Statement = withoutLiterals(thing)
	f.Summary = fmt.Sprintf("when a key is gone %s %s fetches it up to %d times at once from %s: %s of the slow traces", key.service, key.operation, worst, who, percent(f.ShareP99))
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d reads of %s ran at the same time after misses", worst, shorten(thing, "one key")))
	f.doubt(0, "the traces that were kept may be few of many: the crowd is at least that large")
	return f, true
}

// crush is the most fills that run at once, and the time of the slow band in fills that run beside at least so many that it is a
// stampede.
func crush(list []fill) (most int, slow int64) {
	l := &load{}
	for _, f := range list {
		l.starts, l.ends = append(l.starts, f.start), append(l.ends, f.end)
	}
	l.sort()
	most = l.most()
	for _, f := range list {
		begun, _ := slices.BinarySearch(l.starts, f.end)
		ended, _ := slices.BinarySearch(l.ends, f.start+1)
		if begun-ended >= stampedeReads {
			slow += f.slow
		}
	}
	return most, slow
}

// hotter is how long the lookups of one key take and those of all others, their medians, and the time of the slow band in the former.
// Without enough of both the latter is so long that no key is hot.
func (x *lookups) hotter(key string) (own, others, slow int64) {
	var mine, theirs []int64
	for _, t := range x.times {
		if t.key != key {
			theirs = append(theirs, t.ns)
			continue
		}
		mine = append(mine, t.ns)
		if t.slow {
			slow += t.ns
		}
	}
	if len(mine) < cacheLookups || len(theirs) < cacheLookups {
		return 0, math.MaxInt64, 0
	}
	slices.Sort(mine)
	slices.Sort(theirs)
	return quantile(mine, 0.5), quantile(theirs, 0.5), slow
}

// hotKey looks for a key that takes most of the traffic, and is slow for it.
func (v *view) hotKey(key spot, x *lookups) (Finding, bool) {
	names := ordered(x.keys)
	if len(names) < 2 {
		return Finding{}, false
	}
	hot := slices.MaxFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(x.keys[a], x.keys[b]), cmp.Compare(b, a)) })
	slow, line := x.slowLong, fmt.Sprintf("and %d of the %d long ones", x.longKeys[hot], x.long)
	if usual := float64(x.keys[hot]) / float64(x.n); x.long < leastTail || float64(x.longKeys[hot]) < max(hotLong, min(hotFactor*usual, 0.95))*float64(x.long) {
		own, others := int64(0), int64(0)
		if own, others, slow = x.hotter(hot); float64(own) < hotFactor*float64(others) {
			return Finding{}, false
		}
		line = fmt.Sprintf("and take %s (p50), those for others %s", duration(time.Duration(own)), duration(time.Duration(others)))
	}
	if float64(x.keys[hot]) < hotShare*float64(x.n) || v.share(slow) < tailShare {
		return Finding{}, false
	}
	f := v.cacheOf(key, x, place{}, "hot_key", 0.7, slow)
	f.Detail.Statement = hot
	f.Summary = fmt.Sprintf("one key takes %s of the lookups of %s %s, and they are slow: %s of the slow traces", percent(float64(x.keys[hot])/float64(x.n)), key.service, key.operation, percent(f.ShareP99))
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d of %d lookups ask for %s, %s", x.keys[hot], x.n, shorten(hot, "it"), line))
	if c := v.facts.Cache(x.cache); c != nil && c.Stats.CPU >= cpuBusy {
		f.confirm(0.85, fmt.Sprintf("the cache's server uses %s of the one core that runs commands", percent(c.Stats.CPU)))
	}
	return f, true
}
