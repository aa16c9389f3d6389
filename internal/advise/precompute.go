package advise

import "fmt"

var precomputeEntry = entry{
	kind: KindPrecompute, step: StepCache, answers: []string{"LP115"}, cure: precompute,
	needs: []string{"a cache on the route, or a table to read from (read model)", "the keys that are asked for often are known"},
	watch: []string{"age of answers", "calls that the refreshes make", "share of hits"},
}

// hotReads is how often a key must be asked for within a recording to be worth an answer made in advance.
const hotReads = 3

// hotCovered is the part of the reads that must be for such keys, for a list of them to be the advice.
const hotCovered = 0.5

// prepared is the plan in which every read of a hot key finds its answer made.
func (c *corpus) prepared(r *reads) (p plan, hot int, covered float64) {
	count := make(map[string]int)
	for i := range r.list {
		count[r.list[i].key]++
	}
	delete(count, "")
	byTrace := make(map[int][]int)
	for i := range r.list {
		if x := &r.list[i]; count[x.key] >= hotReads {
			byTrace[x.trace] = append(byTrace[x.trace], i)
			p.spans = append(p.spans, x.ref)
			covered += 1 / float64(len(r.list))
		}
	}
	for _, n := range count {
		if n >= hotReads {
			hot++
		}
	}
	p.doubt = plainDoubt
	p.apply = func(_, n int, e *edit) {
		for _, i := range byTrace[n] {
			x := &r.list[i]
			e.set(x.span, min(x.took, x.lead+x.serve+x.took-x.fetch))
		}
	}
	return p, hot, covered
}

// precompute cures reads that are expensive and whose keys are known: their answers are made before they are asked for.
func precompute(s *situation) (Action, string) {
	r, route := s.corpus.readsOf(s.finding)
	if route == "" {
		r = s.corpus.plainReads(s.finding)
	}
	if n := len(r.list); n < minCalls || r.personal > 0 || 2*r.foreign > n || 2*r.opaque > n {
		return s.fewerMisses()
	}
	p, hot, covered := s.corpus.prepared(r)
	if covered < hotCovered { // by this recording; how often they are asked for within the life of an answer, it does not tell
		return s.fewerMisses()
	}
	if hot > 1000 {
		return Action{}, fmt.Sprintf("nothing to precompute: %d keys are asked for %d times or more, too many for a list", hot, hotReads)
	}
	a := Action{
		Kind: KindPrecompute, Effects: s.forecast(p),
		Summary: fmt.Sprintf("make the answers of %s for the %d keys that are asked for most before they are asked for: a warm list, or a read model that every write keeps up to date", name(route, s.finding), hot),
		Benefit: fmt.Sprintf("%.0f%% of the reads are for these keys", 100*covered),
		Cost:    "work for answers that nobody asks for; a list of keys, or the events of every write",
		Risk:    "a write that does not reach the read model leaves a wrong answer standing",
		Text: fmt.Sprintf(`with the library, refreshed ahead of expiry:
    kept := cache.New(cache.Config{TTL: 30 * time.Second, StaleWhileRevalidate: 30 * time.Second, RefreshAhead: 0.2})
    kept.Warm(keys...)                 // the %d hottest; cache.Due says which to fetch anew
or as a read model:
    on every write of a part:  UPDATE page_of SET body = <made anew> WHERE id = <its page>
    on read:                   SELECT body FROM page_of WHERE id = $1`, hot),
	}
	if e := a.on(s.route); e == nil || e.gain() < minGain { // the slowest reads are for other keys
		return s.fewerMisses()
	}
	return a, ""
}

// fewerMisses is the advice where the spans do not tell which keys are asked for, or too many are. The forecast is for half of the
// fetches; where the tail is more than that, it is advice all the same, and promises nothing.
func (s *situation) fewerMisses() (Action, string) {
	d := s.finding.Detail
	calls := s.calls()
	if len(calls) < minCalls {
		return Action{}, ""
	}
	p := each(calls, func(n, i int, e *edit) {
		if random(&s.corpus.traces[n].spans[i], 0).Uint64()&1 == 0 {
			e.set(i, 0)
		}
	})
	p.doubt = modelDoubt
	a := Action{
		plain: true,
		Kind:  KindPrecompute, Effects: s.forecast(p), ExtraLoad: -0.5,
		Summary: fmt.Sprintf("fill the cache of %s before it is asked, and keep what it holds for longer", s.finding.Service),
		Benefit: fmt.Sprintf("%.0f%% of the lookups find an answer today", 100*d.HitRatio),
		Cost:    "memory, older answers, and fetches of what nobody asks for",
		Risk:    "a forecast is for half of the fetches, a goal and no promise: a miss of a key that was never there stays one",
		Text: `longer:      ttl plus jitter of 5 %, and stale-while-revalidate as long again
nothing:     keep "there is none" too, for a second (negative_ttl)
before:      on every write, write the cache; after a start, load the hottest keys`,
	}
	switch d.Variant {
	case "stampede":
		a.Text = "one fetch a key: followers wait for it (coalescing; in Longpole's cache always on)\nbefore expiry: early_refresh: 1 (XFetch), or stale_while_revalidate"
	case "hot_key":
		a.Text = "a small cache in each process for some seconds in front of the shared one\nor several copies of the key: key#1 .. key#8, read one at random, write all"
	}
	return a, ""
}
