package gateway

import (
	"net/http"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/httpcache"
)

// learn draws the conclusions for the caches from an answer, before the client has it.
func (v *visit) learn(res *http.Response) {
	if v.cohort != nil {
		v.timings = timingsOf(res.Header)
	}
	switch {
	case httpcache.Unsafe(v.r.Method):
		v.invalidate(res)
	case v.r.Method == http.MethodHead && v.key != "" && v.rec.Count > 0:
		v.x.freshen(v.arm.policy, res)
	}
}

// invalidate drops what an unsafe call has made worthless, in the caches of all routes and parts of routes: a target may be
// read by another route than it is written by.
func (v *visit) invalidate(res *http.Response) {
	scheme := schemeOf(v.r)
	targets := httpcache.Invalidated(scheme, v.r.Host, targetOf(v.r), res.StatusCode, res.Header)
	if len(targets) == 0 {
		return
	}
	var drops map[*longpole.Policy][]string // by policy; nil = no route keeps anything
	for _, r := range v.g.table.Load().byName {
		if len(r.live.versions) == 0 {
			continue
		}
		r.live.arms.Load().each(func(list []*arm) {
			for i, a := range list {
				if !a.caches {
					continue
				}
				keys := make([]string, 0, len(targets))
				for _, target := range targets {
					keys = append(keys, v.x.keyOf(r, r.live.versions[i].upstream, target))
				}
				if drops == nil {
					drops = make(map[*longpole.Policy][]string)
				}
				drops[a.policy] = keys
			}
		})
	}
	if len(drops) > 0 {
		longpole.Invalidate(v.r.Context(), drops)
	}
}

// freshen takes from the answer to a HEAD what it tells about the kept answer to a GET (RFC 9111 section 4.3.5).
func (x *exchange) freshen(p *longpole.Policy, res *http.Response) {
	key := x.cached.key
	kept := p.Kept(key)
	if sign, ok := kept.(cache.Signpost); ok {
		key = x.Under(key, sign)
		kept = p.Kept(key)
	}
	old, ok := kept.(*httpcache.Answer)
	if !ok {
		return
	}
	same, other := old.HeadTells(res.StatusCode, res.Header)
	now := time.Now()
	switch {
	case same:
		h := old.Refreshed(res.Header)
		v := x.cached.rules.Judge(httpcache.Exchanged{
			Method: http.MethodGet, Request: x.header, Status: old.Status, Header: h, Sent: now, Received: now,
		})
		if v.Why == "" {
			p.Replace(key, old, httpcache.NewAnswer(old.Status, h, old.Body, now, v), termsOf(v))
		}
	case other && old.Status == http.StatusOK:
		p.Invalidate(x.in.Context(), key)
	}
}
