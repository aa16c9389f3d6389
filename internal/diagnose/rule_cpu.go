package diagnose

import (
	"fmt"
	"strings"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	cpuBusy      = 0.8 // of the processors, from where there is none left
	cpuIdle      = 0.4 // below which there were some left, so that nobody waited for one
	cpuThrottled = 0.1 // of the container's periods
	cpuGrowth    = 1.2 // times the healthy rate of a profile
	topFunctions = 5   // named in a finding
)

// cpu finds LP106: work inside a service that takes too long, with nothing that shows it to be waiting.
func cpu(v *view) []Finding {
	var found []Finding
	for _, s := range v.look().of(trace.SegService, trace.SegGateway) {
		f := v.finding("LP106", "cpu", s, 0.45)
		f.Summary = fmt.Sprintf("%s %s takes %s of the slow traces in its own code, in none of its calls", s.service, s.operation, percent(f.ShareP99))
		if v.sameInstant(s) {
			f.doubt(0.1, "some of the long ones were in work at the same time: they may have waited for each other")
		}
		if v.processors(&f, s) {
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
		case profile != nil && grew(profile.Diff):
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
	if idle > 0 && idle == len(processes) {
		v.look().refute(s.place, fmt.Sprintf("it is not computing: %s had most of its processors idle", process(processes[0])))
		return false
	}
	f.doubt(0, "computing, waiting for a lock and waiting for a thread look the same without a profile")
	return true
}

// grew reports whether a process computes more than it did in health, and differently.
func grew(d *evidence.ProfileDiff) bool {
	return d != nil && d.HealthyRate > 0 && d.SuspectRate >= cpuGrowth*d.HealthyRate
}

// functions names those that take more than in health, or else those that take most.
func (f *Finding) functions(p *evidence.ProfileFacts) {
	if p == nil {
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
	if p.Instance == "" {
		return p.Service
	}
	return p.Service + " on " + p.Instance
}
