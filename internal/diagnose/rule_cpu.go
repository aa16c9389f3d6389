package diagnose

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	cpuBusy       = 0.8  // of the processors, from where there is none left
	cpuIdle       = 0.4  // below which there were some left, so that nobody waited for one
	cpuThrottled  = 0.1  // of the container's periods
	cpuGrowth     = 1.2  // times the healthy rate of a profile
	cpuDoubled    = 2.0  // the same, where nothing but the profile says that it takes too long: a little more traffic is no fault
	cpuSigma      = 3.0  // standard errors of the healthy rate
	topFunctions  = 5    // named in a finding
	leastFunction = 0.01 // of the profile, the same
	cpuSpent      = 0.5  // of the time that spans take for themselves, which their processes must have computed
	cpuSurplus    = 1.5  // times that time, from where the processes compute what no span tells of
	cpuCommon     = 0.05 // of all spans, that must be long: a machine that stands still for a moment makes fewer
)

// cpu finds LP106: work inside a service that takes too long, with nothing that shows it to be waiting.
func cpu(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().asked(trace.SegService, trace.SegGateway) {
		once := v.once(s)
		f := v.finding("LP106", "cpu", s, 0.45)
		f.Summary = fmt.Sprintf("%s %s takes %s in its own code, not in its calls", s.service, s.operation, s.part())
		if v.sameInstant(s) {
			f.doubt(0.1, "some of the long ones were in work at the same time: they may have waited for each other")
		}
		if v.processors(&f, s) && (!s.faint && !once || f.Verdict == Confirmed) {
			found = append(found, f)
		}
	}
	return found
}

// sameInstant reports whether most of the long works of s began while another request of its service was in work, although
// most of the others did not.
func (v *view) sameInstant(s *suspect) bool {
	c := v.crowdAt(s, v.world.service(s.service))
	return c.z >= crowdSigma && c.long >= 1
}

// processors weighs a finding about a service's own time against what its processes used. It is false when they show that the
// service was not computing.
func (v *view) processors(f *Finding, s *suspect) bool {
	processes := v.facts.Of(s.service, "")
	grown := s.grew(processes, v.grownElsewhere(s.service))
	idle := 0
	for _, p := range processes {
		busy, told := p.Busy()
		profile := p.Profile("cpu")
		throttled := p.Runtime != nil && p.Runtime.Throttled != nil && *p.Runtime.Throttled >= cpuThrottled
		switch {
		case throttled:
			f.confirm(0.9, fmt.Sprintf("%s was stopped in %s of its CPU periods: it used up its limit", process(p), percent(*p.Runtime.Throttled)))
		case told && busy >= cpuBusy:
			f.confirm(0.9, fmt.Sprintf("%s kept %s of its processors busy", process(p), percent(busy)))
		case grown && profile != nil && profile.Diff != nil && profile.Diff.SuspectRate >= cpuGrowth*profile.Diff.HealthyRate:
			f.confirm(0.85, fmt.Sprintf("%s uses %.1f times the CPU of the healthy profile", process(p), profile.Diff.SuspectRate/profile.Diff.HealthyRate))
		case told && busy < cpuIdle:
			idle++
			continue
		default:
			continue
		}
		f.Detail.Utilisation = max(f.Detail.Utilisation, busy)
		if p.Instance != "" {
			f.Detail.Instances = append(f.Detail.Instances, p.Instance)
		}
		f.functions(profile)
	}
	if f.Verdict == Confirmed {
		return true
	}
	spent := v.accounts(f, s, processes)
	if spent && !s.constant && s.ratio >= cpuCommon {
		f.Verdict, f.Confidence = Likely, 0.75
		for _, p := range processes {
			f.functions(p.Profile("cpu"))
		}
		return true
	}
	if idle > 0 && idle == len(processes) {
		why := "it is not computing: %s had most of its processors idle"
		if spent {
			why = "%s had most of its processors idle: it computes, and waits for none"
		}
		v.look().refute(s.place, fmt.Sprintf(why, process(processes[0])))
		return false
	}
	f.doubt(0, "computing, waiting for a lock and waiting for a thread look the same without a profile")
	return true
}

// accounts reports whether the processes of a service used so much CPU that the works of s must have computed for a good part of their
// time, even if all other spans of the service did so for all of theirs; then that is put down.
func (v *view) accounts(f *Finding, s *suspect, processes []*evidence.ServiceFacts) bool {
	used, mine := 0.0, 0.0 // seconds of each second
	for _, p := range processes {
		if p.Runtime == nil || p.Runtime.CPU == nil {
			return false
		}
		used += *p.Runtime.CPU
	}
	for _, w := range s.works {
		mine += v.samples[w.sample].stands() * float64(w.self) / 1e9
	}
	all, span := v.world.own(s.service), float64(v.world.service(s.service).span())/1e9
	if span == 0 || all == 0 || used > cpuSurplus*all {
		return false
	}
	mine /= span
	if used-max(all-mine, 0) < cpuSpent*mine {
		return false
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("%s used %.2f s of CPU each second, and its spans took %.2f s for themselves: they compute", s.service, used, all))
	return true
}

// grew reports whether the processes of a service together compute more than they did in health, by more than the other services do
// and by more than the number of samples leaves to chance. That one of them does may be the balancer's work.
func (s *suspect) grew(processes []*evidence.ServiceFacts, traffic float64) bool {
	healthy, suspect, chance := 0.0, 0.0, 0.0
	for _, p := range processes {
		profile := p.Profile("cpu")
		if profile == nil || profile.Diff == nil || profile.Diff.HealthyRate <= 0 {
			continue
		}
		d := profile.Diff
		healthy, suspect = healthy+d.HealthyRate, suspect+d.SuspectRate
		if d.HealthySamples > 0 && d.SuspectSamples > 0 { // else not told
			chance += d.HealthyRate * d.HealthyRate * (1/d.HealthySamples + 1/d.SuspectSamples)
		}
	}
	factor := cpuGrowth
	if s.faint {
		factor = cpuDoubled
	}
	return healthy > 0 && suspect >= factor*traffic*(healthy+cpuSigma*math.Sqrt(chance))
}

// grownElsewhere is by how much the other services compute more than in health, their median, and at least 1: where all do, it is that
// more is asked of them.
func (v *view) grownElsewhere(service string) float64 {
	var list []float64
	for i := range v.facts.Services {
		p := &v.facts.Services[i]
		profile := p.Profile("cpu")
		if p.Service != service && profile != nil && profile.Diff != nil && profile.Diff.HealthyRate > 0 {
			list = append(list, profile.Diff.SuspectRate/profile.Diff.HealthyRate)
		}
	}
	if len(list) == 0 {
		return 1
	}
	slices.Sort(list)
	return max(list[len(list)/2], 1)
}

// functions names those that take more than in health, or else those that take most.
func (f *Finding) functions(p *evidence.ProfileFacts) {
	if p == nil || len(f.Detail.Functions) > 0 { // those of one process will do
		return
	}
	var names, told []string
	if p.Diff != nil {
		for _, c := range p.Diff.Changes {
			if c.Suspect > c.Healthy && len(names) < topFunctions {
				names = append(names, c.Name)
				told = append(told, fmt.Sprintf("%s (%s, in health %s)", c.Name, percent(c.Suspect), percent(c.Healthy)))
			}
		}
	}
	verb := "takes more of the " + p.Kind + " profile"
	if len(names) == 0 {
		verb = "takes most of the " + p.Kind + " profile"
		for _, x := range p.Top[:min(len(p.Top), topFunctions)] {
			if x.FlatShare < leastFunction {
				break
			}
			names = append(names, x.Name)
			told = append(told, fmt.Sprintf("%s (%s)", x.Name, percent(x.FlatShare)))
		}
	}
	if len(names) > 0 {
		f.Detail.Functions = names
		f.Evidence = append(f.Evidence, "what "+verb+": "+strings.Join(told, ", "))
	}
}

// process names a process to a reader.
func process(p *evidence.ServiceFacts) string {
	name := p.Service
	if p.Instance != "" {
		name += " on " + p.Instance
	}
	if p.Source != "" {
		name += " (" + p.Source + " in Prometheus)"
	}
	return name
}
