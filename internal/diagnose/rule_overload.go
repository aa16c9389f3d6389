package diagnose

import (
	"fmt"

	"github.com/longpole/longpole/internal/trace"
)

const (
	shedRatio = 0.05 // of the requests, that are refused, from where it is more than a guard at work
	shedCalls = 5    // that are refused
)

// refusedWords are what services call it when they have too much to do.
var refusedWords = []string{"overload", "load shed", "loadshed", "shedding", "queue full", "too many requests", "rate limit", "ratelimit", "resource exhausted", "resource_exhausted", "server busy", "throttl", "circuit"}

// overload finds LP123: a service that refuses work because it has more than it can do.
func overload(v *view) []Finding {
	found := findingsBySpot(v.fates(), v.overloadFinding)
	if f, ok := v.rootOverload(); ok {
		found = append(found, f)
	}
	return found
}

// refused reports whether a call that failed was refused by who has too much to do.
func refused(t *Tree, a attempt) bool {
	if a.served >= 0 && t.shed(int(a.served)) {
		return true
	}
	return t.shed(int(a.span))
}

// shed reports whether span i tells that it was refused so.
func (t *Tree) shed(i int) bool {
	status := t.status(i)
	return status == 503 || status == 429 || t.rpcStatus(i) == 8 || says(t.complaint(i), refusedWords...)
}

func (v *view) overloadFinding(key spot, x *fates) (Finding, bool) {
	o := &x.whole
	n := 0
	for _, e := range x.by {
		if e.shed > 0 {
			n += e.failed
		}
	}
	if n < shedCalls || o.shed < shedRatio*o.all || o.shed < 0.5*o.bad {
		return Finding{}, false
	}
	f := v.shedFinding(key, o.shed/o.all, x.segment, v.share(x.slow))
	f.Detail.Callees, f.harm = []string{key.service}, o.shed/v.weight()
	var gone, served []int
	l := v.world.service(key.service)
	for _, family := range v.look().families {
		t := v.samples[family.sample].tree
		for _, a := range family.calls {
			if v.target(a).service != key.service {
				continue
			}
			if a.failed && refused(t, a) {
				gone = append(gone, l.at(a.start))
			} else {
				served = append(served, l.at(a.start))
			}
		}
	}
	v.crowdOfRefused(&f, crowdOf(gone, served))
	v.capacity(&f, key.service)
	return f, true
}

// rootOverload looks at the requests of the route itself, which nobody is recorded to call.
func (v *view) rootOverload() (Finding, bool) {
	all, shed, n := 0.0, 0.0, 0
	slow := int64(0)
	var gone, served []int64 // when they began
	for i := range v.samples {
		s := &v.samples[i]
		root := &s.tree.Spans[s.root]
		all += s.stands()
		if root.Kind == trace.Client || !s.tree.failed(s.root) || !s.tree.shed(s.root) || inherits(s.tree, s.root) {
			served = append(served, root.Start)
			continue
		}
		gone = append(gone, root.Start)
		shed += s.stands()
		n++
		if v.isSlow(i) {
			slow += s.duration
		}
	}
	if n < shedCalls || shed < shedRatio*all {
		return Finding{}, false
	}
	f := v.shedFinding(spot{v.service, v.operation}, shed/all, trace.SegService, v.share(slow))
	f.harm = shed / all
	l := v.world.service(v.service)
	v.crowdOfRefused(&f, crowdOf(l.crowd(gone), l.crowd(served)))
	v.capacity(&f, v.service)
	return f, true
}

func (v *view) shedFinding(key spot, ratio float64, segment trace.Segment, share float64) Finding {
	return Finding{
		Code: "LP123", Class: "overload", Segment: segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.65, ShareP99: share,
		Summary:  fmt.Sprintf("%s refuses %s of the requests for %s: it gets more than it can serve", key.service, percent(ratio), key.operation),
		Evidence: []string{fmt.Sprintf("%s are answered with 503, 429 or the like", percent(ratio))},
		Detail:   Detail{Failed: ratio},
	}
}

func (v *view) crowdOfRefused(f *Finding, c crowd) {
	if c.z < crowdSigma || c.long <= c.short {
		f.doubt(0, "it does not refuse more when more is in work: a limit that is too low, or one of a caller's own, looks the same")
		return
	}
	f.Confidence += 0.2
	f.Detail.Concurrency = c.long
	f.Evidence = append(f.Evidence, fmt.Sprintf("when it refused %.1f requests were in work there, otherwise %.1f", c.long, c.short))
}

// capacity weighs a refusal against what the processes of the service had left.
func (v *view) capacity(f *Finding, service string) {
	idle := false
	for _, p := range v.facts.Of(service, "") {
		busy, told := p.Busy()
		f.Detail.Utilisation = max(f.Detail.Utilisation, busy)
		switch {
		case told && busy >= cpuBusy:
			f.confirm(0.9, fmt.Sprintf("%s kept %s of its processors busy", process(p), percent(busy)))
			return
		case p.Runtime != nil && p.Runtime.Throttled != nil && *p.Runtime.Throttled >= cpuThrottled:
			f.confirm(0.9, fmt.Sprintf("%s was stopped in %s of its CPU periods", process(p), percent(*p.Runtime.Throttled)))
			return
		case told && busy < cpuIdle:
			idle = true
		}
	}
	if idle {
		f.doubt(0.2, "it had processors to spare: what it is short of is something else, or its limit is too low")
	}
}
