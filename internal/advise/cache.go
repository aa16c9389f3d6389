package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
)

// lifetimes are the greatest ages that are tried. More than a minute is for the owner of the data to think of.
var lifetimes = []time.Duration{
	time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 6 * time.Second, 8 * time.Second, 10 * time.Second,
	12 * time.Second, 16 * time.Second, 20 * time.Second, 24 * time.Second, 32 * time.Second, 40 * time.Second, 60 * time.Second,
}

// ofAge is the setting that gives no answer older than age. A call waits only when none came in the stale part to start
// a refresh behind it, so that part is the larger one; the fresh part is what spares the upstream.
func ofAge(age time.Duration) cache.Config {
	return cache.Config{TTL: age / 4, StaleWhileRevalidate: age - age/4}
}

// What a lifetime must show.
const (
	fewWaits  = 0.003 // of the calls: far below 1 %, so that the p99 stays among the hits although narrower steps have more
	mostWaits = 0.01  // with more than these it does not
	someWaits = 0.025 // half of what would do for the p95
)

// thinnings is how many halves of the reads are replayed: what one draw leaves out is luck.
const thinnings = 8

// trial is what a replay showed of one setting.
type trial struct {
	config cache.Config
	all    float64 // share of the calls that wait for a fetch, their own or another's
	canary float64 // the same where the cache sees half of the calls only: the widest step of a canary
}

// longest is the greatest age that the recording can judge. The replay takes what was recorded to come again and again,
// which for longer lifetimes would answer one call of a key by itself.
func (r *reads) longest() time.Duration { return min(lifetimes[len(lifetimes)-1], r.window()/2) }

// planCache chooses the shortest lifetime under which the p99 lies well among the hits even in the candidate arm of a
// canary: its cache is one of its own, fed by a part of the calls, and a cure that the canary cannot prove never gets
// further. With none, it chooses the best there is. ok is false when no lifetime would do even for the p95.
func (r *reads) planCache() (best trial, ok bool) {
	if r.waits(r.simulate(ofAge(r.longest()))) > someWaits {
		return trial{}, false // as no shorter lifetime, and no part of the calls, will do better
	}
	halves := make([]*reads, thinnings)
	for k := range halves {
		halves[k] = r.half(k)
	}
	var tried []trial
	for _, age := range lifetimes {
		if age > r.longest() {
			break
		}
		t := trial{config: ofAge(age)}
		for _, half := range halves {
			t.canary += half.waits(half.simulate(t.config)) / thinnings
		}
		t.all = r.waits(r.simulate(t.config))
		if t.canary <= fewWaits {
			return t, true
		}
		tried = append(tried, t)
	}
	if len(tried) == 0 {
		return trial{}, false
	}
	best = slices.MinFunc(tried, func(a, b trial) int { return cmp.Compare(a.canary, b.canary) })
	if best.canary <= mostWaits {
		return best, true
	}
	for _, enough := range []func(t trial) bool{
		func(t trial) bool { return t.all <= fewWaits && t.canary <= someWaits },
		func(t trial) bool { return t.canary <= someWaits },
		func(t trial) bool { return t.all <= fewWaits },
		func(t trial) bool { return t.all <= someWaits },
	} {
		if i := slices.IndexFunc(tried, enough); i >= 0 {
			return tried[i], true
		}
	}
	return trial{}, false
}

// half is the nth way to split the reads in two, as a canary does: an arm is drawn for each call anew. Two in a row are
// the two parts of one split.
func (r *reads) half(n int) *reads {
	h := &reads{keys: r.keys, period: r.period}
	for i := range r.list {
		if r.list[i].lots>>(n/2)&1 == uint64(n&1) {
			h.list = append(h.list, r.list[i])
		}
	}
	for i := range r.unseen {
		if r.unseen[i].lots>>(n/2)&1 == uint64(n&1) {
			h.unseen = append(h.unseen, r.unseen[i])
		}
	}
	return h
}

// canary is the latency that the candidate arm of a canary would see under config.
func (r *reads) canary(config cache.Config) Predicted {
	var s samples
	for k := range thinnings {
		half := r.half(k)
		for i, o := range half.simulate(config) {
			s.add(o.took, half.list[i].weight)
		}
	}
	return s.predicted()
}

// unlike reports whether a person would call a latency in milliseconds another than expected.
func unlike(got, expected float64) bool {
	return math.Abs(got-expected) > max(0.1*expected, 0.1)
}

// doubt says what speaks against t, or "".
func (r *reads) doubt(t trial) string {
	if t.canary <= fewWaits {
		return ""
	}
	text := fmt.Sprintf("in a canary with half of the calls %.1f%% of the reads would still wait for a fetch, so that it may not show a better p99",
		100*t.canary)
	longest := lifetimes[len(lifetimes)-1]
	if r.longest() < longest {
		return text + fmt.Sprintf("; the %s that were watched can judge no lifetime beyond %s, a recording of %s can judge up to %s",
			short(r.period), short(int64(r.longest())), 2*longest, longest)
	}
	return text + fmt.Sprintf(", and no lifetime up to %s changes that: the keys are asked for too seldom", longest)
}

// kept is the plan in which reads come from a cache under config.
func (c *corpus) kept(r *reads, config cache.Config) plan {
	out := r.simulate(config)
	byTrace := make(map[int][]int)
	p := plan{doubt: plainDoubt, extra: -r.saved(out)}
	for i := range r.list {
		byTrace[r.list[i].trace] = append(byTrace[r.list[i].trace], i)
		p.spans = append(p.spans, r.list[i].ref)
	}
	p.apply = func(_, n int, e *edit) {
		for _, i := range byTrace[n] {
			if out[i].took != r.list[i].took {
				e.set(r.list[i].span, out[i].took)
			}
		}
	}
	return p
}

var cacheEntry = entry{
	kind: KindCache, step: StepCache, answers: []string{"LP104", "LP115"}, cure: cached,
	needs: []string{"the owner of the data confirms that an answer is the same for every caller, and may be that old"},
	watch: []string{"longpole_call_duration_seconds by cache: share of hits and of stale answers", "age of answers", "memory of the gateway", "longpole_attempts_total: what still reaches the upstream"},
}

// cached cures reads that ask for the same again and again by keeping their answers: at the gateway where that helps,
// else in the caller.
func cached(s *situation) (Action, string) {
	r, route := s.corpus.readsOf(s.finding)
	if route == "" {
		return s.keep(s.corpus.plainReads(s.finding), "")
	}
	a, reason := s.keep(r, route)
	if a.Kind == "" && !r.cached && s.current[route].Cache == nil && r.personal == 0 && s.finding.Operation != route {
		if inside, _ := s.keep(s.corpus.plainReads(s.finding), ""); inside.Kind != "" {
			return inside, ""
		}
	}
	return a, reason
}

// keep is the action that caches reads, at a route of the gateway or, with none, in their callers.
func (s *situation) keep(r *reads, route string) (Action, string) {
	if reason := cacheable(r, s.current[route]); reason != "" {
		return Action{}, reason
	}
	plan, ok := r.planCache()
	if !ok {
		return Action{}, fmt.Sprintf("no cache: the %s that were watched can judge lifetimes up to %s, and none of them keeps enough of the %d keys warm",
			short(r.period), short(int64(r.longest())), r.keys)
	}
	config := plan.config
	what := s.corpus.kept(r, config)
	effects, saved := s.forecast(what), -what.extra
	a := Action{
		Kind:      KindCache,
		Effects:   effects,
		ExtraLoad: -saved,
		Summary: fmt.Sprintf("keep the answers of %s for %s, and give them stale for %s more while they are fetched anew",
			name(route, s.finding), config.TTL, config.StaleWhileRevalidate),
		Benefit: fmt.Sprintf("%.1f%% of the reads no longer wait for a fetch (%.1f%% in a canary with half of them), and the upstream gets %.0f%% fewer calls",
			100*(1-plan.all), 100*(1-plan.canary), 100*saved),
		Cost: fmt.Sprintf("answers may be up to %s old, those often asked for about %s; memory for some %d answers",
			config.TTL+config.StaleWhileRevalidate, config.TTL, r.keys),
		Risk: "the owner must confirm that an answer is the same for every caller: the spans show GETs without credentials, " +
			"but not every header. The forecast takes the cache as warm",
	}
	if r.sampled() {
		a.Risk += ". The traces are a sample: keys that show twice are taken to be asked for as often as their traces stand for, others once"
	}
	if route == "" {
		a.Summary += "; in the caller, or with a gateway in between"
		a.Snippets = snippets(s.finding.Service, longpole.Config{}, longpole.Config{Cache: &config})
		a.Risk = "the caller must learn when what it keeps has changed, or bear its age, and every one of its users must be allowed to see it"
	} else if change, ok := s.edit(route, func(c longpole.Config) longpole.Config { c.Cache = &config; return c }); ok {
		a.Change = change
		if a.Observe = s.behindCache(r, effects, route); a.Observe != "" {
			a.Turns = true
			return a, ""
		}
		a.Canary = s.seen(r, config, effects, route)
	}
	return a, r.doubt(plan)
}

// behindCache is the outermost of the gateway's routes above one whose answers fill a cache of its callers; "" = they fill none, or there is
// none above. What one arm answers spares the other its calls, and the cache in front shows what became of both.
func (s *situation) behindCache(r *reads, effects []Effect, route string) string {
	behind := 0
	for i := range r.list {
		if s.corpus.lookedUp(r.list[i].ref) {
			behind++
		}
	}
	if 2*behind < len(r.list) {
		return ""
	}
	for _, e := range slices.Backward(effects) {
		if e.Route != "" && e.Route != route {
			return e.Route
		}
	}
	return ""
}

// sharedCaches are the systems, by the name that spans have for them, in which callers keep what they were answered.
var sharedCaches = []string{"redis", "valkey", "memcached", "memcache", "dragonfly", "keydb", "hazelcast"}

// lookedUp reports whether the caller of a read asked a cache just before, and so did not find it there.
func (c *corpus) lookedUp(read ref) bool {
	t := c.traces[read.trace]
	own, caller := t.spans[read.span].Service, ""
	for i := read.span; t.hasParent(i); i = t.parent[i] {
		up := t.parent[i]
		switch service := t.spans[up].Service; {
		case caller == "" && (service == own || service == gatewayService):
		case caller == "":
			caller = service
		case service != caller:
			return false
		}
		for _, k := range t.blocking(up) {
			if s := &t.spans[k]; s.End <= t.spans[i].Start && slices.Contains(sharedCaches, strings.ToLower(s.Attr("db.system.name", "db.system"))) {
				return true
			}
		}
	}
	return false
}

// seen is what the candidate arm of a canary sees where that differs from the effect on its route; else nil.
func (s *situation) seen(r *reads, config cache.Config, effects []Effect, route string) *Predicted {
	got := r.canary(config)
	for _, e := range effects {
		want := e.Predicted
		if e.Route == route && (unlike(got.P50, want.P50) || unlike(got.P95, want.P95) || unlike(got.P99, want.P99)) {
			return &got
		}
	}
	return nil
}

// cacheable says why there is no point in a cache, or "".
func cacheable(r *reads, current longpole.Config) string {
	switch n := len(r.list); {
	case r.cached, current.Cache != nil:
		return "no cache: the route has one already"
	case n < minCalls:
		return fmt.Sprintf("no cache: %d reads are too few to foresee a hit ratio; at least %d are needed", n, minCalls)
	case r.personal > 0:
		return fmt.Sprintf("no cache: %d of %d reads carry credentials, so that their answers may differ by caller", r.personal, n)
	case 2*r.foreign > n:
		return "no cache: most of the calls are no reads"
	case 2*r.opaque > n:
		return "no cache advice: the spans do not tell what was asked for (no URL, or a statement without its parameters)"
	}
	return ""
}
