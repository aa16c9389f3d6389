package diagnose

import (
	"cmp"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

const (
	causePart   = 0.1 // of a consequence's weight, that its cause must have itself
	stormLarge  = 2.0 // tries a call, from where a storm is an illness of its own, and not only a symptom
	stormNested = 1.5 // the same, where tries lie within tries of another call
)

// weight is what a finding costs: its share of the slow traces, or what else it does to users, whichever is more.
func (f *Finding) weight() float64 { return max(f.ShareP99, min(f.harm, 1)) }

// ranked puts findings in order: what costs most first, but a cause before its consequences, however much of the time these take.
func (v *view) ranked(list []Finding) []Finding {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.weight(), a.weight()), compareBool(a.better(), b.better()), cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation))
	})
	moved := make([]bool, len(list)) // each moves up once at most, whatever the rules say of each other
	for i := range list {
		for k := i + 1; k < len(list); k++ {
			if moved[k] || !v.causes(&list[k], &list[i]) {
				continue
			}
			f := list[k]
			copy(list[i+1:k+1], list[i:k])
			copy(moved[i+1:k+1], moved[i:k])
			list[i], moved[i] = f, true
			k = i // the next ones are weighed against it
		}
	}
	return list
}

// causes reports whether f is the reason for g.
func (v *view) causes(f, g *Finding) bool {
	if f.Verdict == Suspected || f.weight() < leastShare || f.weight() < causePart*g.weight() {
		return false
	}
	if g.Code == "LP105" { // says where the time is; f says why some of it is
		return f.Verdict == Confirmed && f.weight() >= explained*g.weight()
	}
	switch f.Code {
	case "LP102": // a loop of queries holds its connection for all of them
		if among(g, "LP115") { // and misses once for each: a cache that has all of it would still be asked as often
			return g.Detail.Variant == missesVariant && g.Service == f.Service && slices.ContainsFunc(g.Detail.Callees, func(to string) bool { return slices.Contains(f.Detail.Callees, to) })
		}
		return among(g, "LP111") && g.Service == f.Service
	case "LP109", "LP110": // a statement that takes long for a reason, the same
		return among(g, "LP111") && g.Service == f.Service && f.Verdict == Confirmed && f.Detail.Variant != slowQueryVariant
	case "LP119": // what is given up too early is tried again
		return among(g, "LP112") && g.Service == f.Service
	case "LP103": // an endpoint that does not answer: waiting for it, and giving up, follow
		if among(g, "LP106", "LP107", "LP108") { // that one endpoint of several computes, or queues, is what it is slow by
			return g.Service == f.Service && f.weight() >= explained*g.weight()
		}
		return among(g, "LP118", "LP119", "LP120") && v.calledBy(g, f.Service)
	case "LP112": // a storm breaks whom it hits
		return f.Detail.storm && among(g, "LP122", "LP123") && (g.Service == f.Service || v.calledBy(f, g.Service))
	case "LP122": // what one endpoint fails is tried again, and was not tried too often to begin with
		return f.Detail.Endpoint != "" && among(g, "LP112") && !g.Detail.storm && v.calledBy(g, f.Service)
	case "LP115": // one key on one shard, or one that all fetch when it ends: that it is asked for again and again is not what is slow
		return (f.Detail.Variant == "hot_key" || f.Detail.Variant == "stampede") && among(g, "LP104") && (g.Service == f.Service || v.calledBy(g, f.Service))
	case "LP116": // a process that has just begun computes, queues its requests, and is the slow one of its siblings
		return among(g, "LP103", "LP106", "LP107", "LP108", "LP117") && g.Service == f.Service
	case "LP123": // too much comes in: what is refused is tried again, and what is not refused queues
		if among(g, "LP106", "LP107", "LP108") {
			return g.Service == f.Service
		}
		return among(g, "LP111", "LP112", "LP122", "LP123") && !g.Detail.storm && v.calledBy(g, f.Service)
	}
	return false
}

func among(f *Finding, codes ...string) bool { return slices.Contains(codes, f.Code) }

// calledBy reports whether a service is among those that f is about, or below f's own.
func (v *view) calledBy(f *Finding, service string) bool {
	return f.Service != service && (slices.Contains(f.Detail.Callees, service) || v.below(f.Service)[service])
}

// below is the services that are called by a service, or by one that it calls.
func (v *view) below(service string) map[string]bool {
	c := v.look()
	if c.callees == nil {
		c.callees = make(map[string]map[string]bool)
		for _, f := range c.families {
			from := c.spots[f.where].service
			if c.callees[from] == nil {
				c.callees[from] = make(map[string]bool)
			}
			for _, a := range f.calls {
				if to := c.targets[a.to]; to.segment == trace.SegDownstream && to.service != from {
					c.callees[from][to.service] = true
				}
			}
		}
	}
	all := make(map[string]bool)
	open := []string{service}
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		for to := range c.callees[at] {
			if !all[to] {
				all[to] = true
				open = append(open, to)
			}
		}
	}
	return all
}
