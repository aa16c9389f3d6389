package diagnose

import "slices"

// precise are the rules that name a cause by its own marks.
var precise = []func(*view) []Finding{
	serialCalls, nPlusOne, slowEndpoint, repeatedReads, clock, coldStart, gcPause, lock, poolExhaustion, retryStorm, hedgeLoser, oversize, cacheMiss,
	timeoutTooLong, timeoutTooShort, fanOut, greyFailure, overload, syncWork,
}

// general are the rules that name a cause by what kind of place takes long. They speak where no precise one explains the place, or
// where what was read from the systems behind the traces confirms them.
var general = []func(*view) []Finding{queueing, slowDatabase, slowNetwork, dependency, cpu}

// unexplaining are the findings that say what could be better, not why something takes longer than it should.
var unexplaining = []string{"LP101", "LP102", "LP104", "LP113", "LP119", "LP122"}

// findings asks all rules, and last the one that speaks where no other has an explanation.
func (v *view) findings() []Finding {
	list := []Finding{}
	v.look() // before the others, which then find it
	for _, rule := range precise {
		v.rest()
		list = append(list, rule(v)...)
	}
	list = v.preferConfirmed(list)
	for _, rule := range general {
		v.rest()
		for _, f := range rule(v) {
			if f.Verdict == Confirmed || !explains(list, f) {
				list = append(list, f)
			}
		}
	}
	list = append(list, dominant(v, list)...)
	for i := range list {
		list[i].fill()
	}
	return v.ranked(list)
}

// rest lets who shares a core have it.
func (v *view) rest() {
	if v.yield != nil {
		v.yield()
	}
}

// better reports whether f says what could be better, not why something takes long: of two findings about the same time it comes last.
func (f *Finding) better() bool { return slices.Contains(unexplaining, f.Code) }

// explains reports whether one of list says why f's place takes so long.
func explains(list []Finding, f Finding) bool {
	return slices.ContainsFunc(list, func(g Finding) bool {
		return !g.better() && g.weight() >= explained*f.weight() &&
			(g.Service == f.Service || slices.Contains(g.Detail.Callees, f.Service))
	})
}

// preferConfirmed drops what is only suspected about a service's own time, or its database's, where another finding about the same
// place is confirmed.
func (v *view) preferConfirmed(list []Finding) []Finding {
	return slices.DeleteFunc(list, func(f Finding) bool {
		return f.Verdict == Suspected && slices.ContainsFunc(list, func(g Finding) bool {
			return g.Verdict == Confirmed && g.Service == f.Service && g.Operation == f.Operation && g.Segment == f.Segment && g.ShareP99 >= explained*f.ShareP99
		})
	})
}

// fill keeps the lists of f from being null in JSON and its shares within 0..1.
func (f *Finding) fill() {
	if f.Evidence == nil {
		f.Evidence = []string{}
	}
	if f.CounterEvidence == nil {
		f.CounterEvidence = []string{}
	}
	f.ShareP99 = min(max(f.ShareP99, 0), 1)
	f.Confidence = min(max(f.Confidence, 0), 1)
}
