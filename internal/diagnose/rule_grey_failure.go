package diagnose

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	greyRatio  = 0.1 // of the calls, that fail, from where it is no accident
	greyCalls  = 20  // fewer of an endpoint show nothing
	greyFailed = 8   // that fail
	greyFactor = 5.0 // times the siblings' ratio
	greySigma  = 4.0 // standard errors that it must lie above theirs
	greyFast   = 0.5 // of the time of an answer, within which failures are fast
	greyFine   = 5   // answers that tell how long one takes
	greyAlone  = 0.2 // of an endpoint's share of refusals, below which its siblings refuse nothing
	greyEven   = 1.5 // times its siblings' calls, and the time of their answers, from where an endpoint has more to do than they
)

// outcome is how the calls of one endpoint ended.
type outcome struct {
	all, bad, shed float64 // weighted; shed = refused by who has too much to do
	calls, failed  int
	fine, broken   []int64 // ns
}

// fates is the calls of one operation, by endpoint; "" = not told.
type fates struct {
	whole   outcome
	by      map[string]*outcome
	segment trace.Segment
	slow    int64 // ns of the slow band in calls that fail
}

// greyFailure finds LP122: a dependency, or one of its endpoints, that fails fast, which looks like health to whoever watches
// latency: a balancer sends it more.
func greyFailure(v *view) []Finding {
	return findingsBySpot(v.fates(), v.greyFinding)
}

// fates is how the calls of each operation end.
func (v *view) fates() map[spot]*fates {
	c := v.look()
	if c.fates != nil {
		return c.fates
	}
	c.fates = make(map[spot]*fates)
	failing := c.failingServices()
	if len(failing) == 0 {
		return c.fates
	}
	recorded := make([]*fates, len(c.targets)) // of calls whose callee is recorded, by target
	for _, f := range c.families {
		s := &v.samples[f.sample]
		for _, a := range f.calls {
			if s.tree.Why(int(a.span)) == Canceled {
				continue
			}
			if !failing[a.to] || a.failed && a.served >= 0 && inherits(s.tree, int(a.served)) {
				continue
			}
			var x *fates
			if a.served < 0 {
				x = c.fatesOf(c.called[a.as])
			} else if x = recorded[a.to]; x == nil {
				x = c.fatesOf(v.target(a))
				recorded[a.to] = x
			}
			x.add(v, s, a)
			if a.failed && v.isSlow(int(f.sample)) && !s.tree.NonBlocking(int(a.span)) {
				x.slow += a.end - a.start
			}
		}
	}
	for key, x := range c.fates {
		if !v.anyBusy(key.service) {
			x.pretexts()
		}
	}
	return c.fates
}

// anyBusy reports whether a process of a service is known to have had no processor to spare.
func (v *view) anyBusy(service string) bool {
	return slices.ContainsFunc(v.facts.Of(service, ""), func(p *evidence.ServiceFacts) bool {
		busy, told := p.Busy()
		return told && busy >= cpuBusy
	})
}

// pretexts takes what an endpoint answers as by one that has too much to do for plain failures, where it has no more to do than its
// siblings, which refuse nothing: no more calls, and none of its answers take longer.
func (x *fates) pretexts() {
	whole := x.whole
	for _, o := range x.by {
		rest := outcome{all: whole.all - o.all, shed: whole.shed - o.shed}
		if o.shed == 0 || rest.all <= 0 || rest.shed/rest.all > greyAlone*o.shed/o.all || o.all > greyEven*rest.all/float64(len(x.by)-1) {
			continue
		}
		for _, sibling := range x.by {
			if sibling != o {
				rest.fine = append(rest.fine, sibling.fine...)
			}
		}
		slices.Sort(o.fine)
		slices.Sort(rest.fine)
		if len(o.fine) >= greyFine && float64(quantile(o.fine, 0.5)) <= greyEven*float64(quantile(rest.fine, 0.5)) {
			x.whole.shed -= o.shed
			o.shed = 0
		}
	}
}

// fatesOf is what is known of the calls of a place.
func (c *scene) fatesOf(to place) *fates {
	key := spot{to.service, to.operation}
	x := c.fates[key]
	if x == nil {
		x = &fates{by: make(map[string]*outcome), segment: to.segment}
		c.fates[key] = x
	}
	return x
}

// inherits reports whether span i failed because a call below it did: that is the callee's failure, and counts there.
func inherits(t *Tree, i int) bool {
	open := []int32{int32(i)}
	for range maxClimb {
		if len(open) == 0 {
			return false
		}
		at := open[len(open)-1]
		open = open[:len(open)-1]
		for _, c := range t.Children(int(at)) {
			served, ok := calls(t, int(c))
			failed := t.failed(int(c))
			switch {
			case ok && (failed || served >= 0 && t.failed(served)), failed && t.Spans[c].Service != t.Spans[i].Service:
				return true
			case failed:
				open = append(open, c)
			}
		}
	}
	return false
}

// failingServices says of each target whether a call of its service failed, by all names that its callers have for it; nil = none did.
func (c *scene) failingServices() (list []bool) {
	services := make(map[string]bool)
	for i, bad := range c.failing {
		if bad {
			services[c.targets[i].service] = true
		}
	}
	if len(services) > 0 {
		list = make([]bool, len(c.targets))
		for i, at := range c.targets {
			list[i] = services[at.service]
		}
	}
	return list
}

func (x *fates) add(v *view, s *sample, a attempt) {
	name := endpoint(s.tree, int(a.span), int(a.served))
	o := x.by[name]
	if o == nil && len(x.by) < maxEndpoints {
		o = &outcome{}
		x.by[name] = o
	}
	shed := a.failed && refused(s.tree, a)
	x.whole.add(a, s.stands(), shed)
	if o != nil {
		o.add(a, s.stands(), shed)
	}
}

func (o *outcome) add(a attempt, weight float64, shed bool) {
	o.calls++
	o.all += weight
	if !a.failed {
		o.fine = append(o.fine, a.end-a.start)
		return
	}
	o.failed++
	o.bad += weight
	if shed {
		o.shed += weight
	}
	o.broken = append(o.broken, a.end-a.start)
}

// ill reports whether o fails clearly more often than rest.
func (o *outcome) ill(bad, all float64) bool {
	if o.calls < greyCalls || o.failed < greyFailed || o.bad < greyRatio*o.all || o.shed > 0.5*o.bad {
		return false
	}
	usual := max((bad+1)/(all+2), 0.005)
	share := o.bad / o.all
	return share >= greyFactor*usual && share-usual >= greySigma*math.Sqrt(usual*(1-usual)/float64(o.calls))
}

// fast reports whether what fails does so in much less time than an answer takes.
func (o *outcome) fast(fine []int64) (failure, answer int64, ok bool) {
	slices.Sort(o.broken)
	slices.Sort(fine)
	failure, answer = quantile(o.broken, 0.5), quantile(fine, 0.5)
	return failure, answer, len(fine) >= greyFine && float64(failure) <= greyFast*float64(answer)
}

func (v *view) greyFinding(key spot, x *fates) (Finding, bool) {
	name, worst := "", (*outcome)(nil)
	if len(x.by) > 1 {
		for _, n := range ordered(x.by) {
			o := x.by[n]
			if n != "" && o.ill(x.whole.bad-o.bad, x.whole.all-o.all) && (worst == nil || o.bad > worst.bad) {
				name, worst = n, o
			}
		}
	}
	if worst == nil {
		worst = &x.whole
		if !worst.ill(0, 200) {
			return Finding{}, false
		}
	}
	failure, answer, fast := worst.fast(x.whole.fine)
	if !fast {
		return Finding{}, false
	}
	lost := worst.bad / v.weight()
	f := Finding{
		Code: "LP122", Class: "grey_failure", Segment: x.segment, Service: key.service, Operation: key.operation, Verdict: Likely, Confidence: 0.75, ShareP99: v.share(x.slow),
		Evidence: []string{
			fmt.Sprintf("%s of %d calls fail, after %s (p50); answers take %s: by its latency alone it looks well",
				percent(worst.bad/worst.all), worst.calls, duration(time.Duration(failure)), duration(time.Duration(answer))),
		},
		Detail: Detail{Failed: worst.bad / worst.all, Latency: time.Duration(answer), Callees: []string{key.service}, Endpoint: name, Calls: float64(x.whole.calls) / float64(len(v.samples))},
		harm:   lost,
	}
	f.Summary = fmt.Sprintf("%s %s fails %s of its calls, and fast", key.service, key.operation, percent(worst.bad/worst.all))
	if name != "" {
		f.Summary = fmt.Sprintf("endpoint %s of %s fails %s of its calls, and fast", name, key.service, percent(worst.bad/worst.all))
		f.Confidence = 0.85
		for _, n := range ordered(x.by) {
			if n != name && n != "" {
				f.Detail.Others = append(f.Detail.Others, n)
			}
		}
		rest := x.whole.all - worst.all
		f.Evidence = append(f.Evidence, fmt.Sprintf("its siblings fail %s of theirs", percent((x.whole.bad-worst.bad)/max(rest, 1))))
		if even := float64(x.whole.calls) / float64(len(x.by)); float64(worst.calls) >= 1.5*even {
			f.Evidence = append(f.Evidence, fmt.Sprintf("it gets %d of %d calls: the balancer prefers it", worst.calls, x.whole.calls))
		}
	} else {
		f.doubt(0, "which endpoint fails is not recorded, or all do")
	}
	f.doubt(0, "answers that are errors by design, such as a refused payment that is told as one, look the same")
	return f, true
}
