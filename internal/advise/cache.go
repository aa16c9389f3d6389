package advise

import (
	"fmt"
	"slices"
	"time"

	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
)

// lifetimes are the settings that are tried, from the freshest answers to the oldest. Ages beyond a minute are for the
// owner of the data to think of.
var lifetimes = []cache.Config{
	{TTL: time.Second},
	{TTL: time.Second, StaleWhileRevalidate: time.Second},
	{TTL: time.Second, StaleWhileRevalidate: 4 * time.Second},
	{TTL: 5 * time.Second},
	{TTL: 2 * time.Second, StaleWhileRevalidate: 8 * time.Second},
	{TTL: 10 * time.Second},
	{TTL: 5 * time.Second, StaleWhileRevalidate: 15 * time.Second},
	{TTL: 20 * time.Second},
	{TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second},
	{TTL: 30 * time.Second},
	{TTL: 10 * time.Second, StaleWhileRevalidate: 50 * time.Second},
	{TTL: 60 * time.Second},
}

// enoughOfBest is the share of the best gain that a fresher setting must reach to be preferred.
const enoughOfBest = 0.9

// planCache chooses the freshest lifetime that gives nearly the best tail. It looks beyond the p99 first: where the
// share of misses lies close to 1 %, a p99 flips between a hit and a fetch, and no forecast of it holds.
func (r *reads) planCache() (cache.Config, bool) {
	before := make([]int64, len(r.list))
	for i := range r.list {
		before[i] = r.list[i].took
	}
	slices.Sort(before)
	quantiles := []float64{0.995, 0.99, 0.95}
	var tried []cache.Config
	var tails [][]int64 // of each tried, at each of quantiles
	for _, c := range lifetimes {
		if c.TTL+c.StaleWhileRevalidate > r.window() {
			continue
		}
		after := make([]int64, len(r.list))
		for i, o := range r.simulate(c) {
			after[i] = o.took
		}
		slices.Sort(after)
		tail := make([]int64, len(quantiles))
		for i, q := range quantiles {
			tail[i] = quantile(after, q)
		}
		tried, tails = append(tried, c), append(tails, tail)
	}
	for i, q := range quantiles {
		was, best := quantile(before, q), quantile(before, q)
		for _, tail := range tails {
			best = min(best, tail[i])
		}
		if float64(was-best) < minGain*float64(was) || len(tried) == 0 {
			continue
		}
		for n, tail := range tails {
			if float64(was-tail[i]) >= enoughOfBest*float64(was-best) {
				return tried[n], true
			}
		}
	}
	return cache.Config{}, false
}

// replayCache is the effect of a cache under config on the routes above the reads, and the share of reads that no
// longer wait for a fetch.
func (c *corpus) replayCache(r *reads, config cache.Config, keys []routeKey) (effects []Effect, saved float64) {
	out := r.simulate(config)
	byTrace := make(map[int][]int)
	for i := range r.list {
		byTrace[r.list[i].trace] = append(byTrace[r.list[i].trace], i)
	}
	effects = c.replay(keys, 1, func(_, n int, e *edit) {
		for _, i := range byTrace[n] {
			if out[i].took != r.list[i].took {
				e.set(r.list[i].span, out[i].took)
			}
		}
	})
	return effects, r.saved(out)
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
	config, ok := r.planCache()
	if !ok {
		return Action{}, fmt.Sprintf("no cache: in the %s that were watched no lifetime up to %s keeps enough of the %d keys warm",
			short(r.period), min(60*time.Second, short(r.period)), r.keys)
	}
	refs := make([]ref, len(r.list))
	for i := range r.list {
		refs[i] = r.list[i].ref
	}
	effects, saved := s.corpus.replayCache(r, config, s.keys(refs))
	a := Action{
		Kind:      KindCache,
		Effects:   effects,
		ExtraLoad: -saved,
		Summary:   fmt.Sprintf("keep the answers of %s for %s", name(route, s.finding), config.TTL),
		Benefit:   fmt.Sprintf("%.1f%% of the reads no longer wait for a fetch of their own", 100*saved),
		Cost:      fmt.Sprintf("answers may be up to %s old; memory for some %d answers", config.TTL+config.StaleWhileRevalidate, r.keys),
		Risk: "the owner must confirm that an answer is the same for every caller: the spans show GETs without credentials, " +
			"but not every header. The forecast takes the cache as warm",
	}
	if config.StaleWhileRevalidate > 0 {
		a.Summary += fmt.Sprintf(", and give them stale for %s more while they are fetched anew", config.StaleWhileRevalidate)
	}
	if route == "" {
		a.Summary += "; in the caller, or with a gateway in between"
		a.Risk = "the caller must learn when what it keeps has changed, or bear its age, and every one of its users must be allowed to see it"
	} else if change, ok := s.edit(route, func(c longpole.Config) longpole.Config { c.Cache = &config; return c }); ok {
		a.Change = change
	}
	return a, ""
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
