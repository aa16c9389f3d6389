package evidence

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Profile is one kind of figure of a profile, by stack; stacks are distinct.
type Profile struct {
	Service string        `json:"service"` // whose process
	Kind    string        `json:"kind"`    // cpu, heap, mutex, block, goroutine
	Unit    string        `json:"unit"`    // of Value: nanoseconds, bytes, count
	From    time.Time     `json:"from"`
	To      time.Time     `json:"to"`            // equal to From for what is there at one moment
	Since   time.Duration `json:"since_ns"`      // what Value covers: the seconds of a CPU profile; 0 = not told, or since the process began
	Stacks  []Stack       `json:"-"`             // many; see Tree and Functions
	Dropped int           `json:"dropped"`       // samples that did not fit the bounds
	Gaps    []Gap         `json:"gaps,omitzero"` // what the profile cannot tell
}

// Stack is a chain of calls and what was measured with it on top.
type Stack struct {
	Frames []string // outermost first
	Value  float64
	Count  float64 // samples or events behind Value
}

// Total is the sum of all stacks.
func (p Profile) Total() (value, count float64) {
	for _, s := range p.Stacks {
		value += s.Value
		count += s.Count
	}
	return value, count
}

// Function is what one function took.
type Function struct {
	Name      string  `json:"name"`
	Flat      float64 `json:"flat"` // itself
	Cum       float64 `json:"cum"`  // with what it called; recursion counts once
	FlatShare float64 `json:"flat_share"`
	CumShare  float64 `json:"cum_share"`
	flatCount float64
	cumCount  float64
}

// Functions lists the functions of p by what they took themselves, largest first, then by name.
func (p Profile) Functions() []Function {
	all := map[string]*Function{}
	total, _ := p.Total()
	of := func(name string) *Function {
		f := all[name]
		if f == nil {
			f = &Function{Name: name}
			all[name] = f
		}
		return f
	}
	for _, s := range p.Stacks {
		seen := make(map[string]bool, len(s.Frames))
		for i, name := range s.Frames {
			f := of(name)
			if !seen[name] {
				seen[name] = true
				f.Cum += s.Value
				f.cumCount += s.Count
			}
			if i == len(s.Frames)-1 {
				f.Flat += s.Value
				f.flatCount += s.Count
			}
		}
	}
	out := make([]Function, 0, len(all))
	for _, f := range all {
		if total > 0 {
			f.FlatShare, f.CumShare = f.Flat/total, f.Cum/total
		}
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Function) int {
		return cmp.Or(compare(b.Flat, a.Flat), compare(b.Cum, a.Cum), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Frame is a node of a flame graph: a call path and what was measured in it.
type Frame struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"` // with all that it called
	Self     float64  `json:"self"`
	Children []*Frame `json:"children,omitempty"` // largest first
	index    map[string]*Frame
}

// Tree merges the stacks of p into a flame graph. Paths with less than share of the whole (0..1) are folded into a frame named "…"
// under their caller, so that the sums stay right. The root is named "".
func (p Profile) Tree(share float64) *Frame {
	root := &Frame{}
	for _, s := range p.Stacks {
		at := root
		at.Value += s.Value
		for _, name := range s.Frames {
			next := at.index[name]
			if next == nil {
				next = &Frame{Name: name}
				if at.index == nil {
					at.index = map[string]*Frame{}
				}
				at.index[name] = next
			}
			next.Value += s.Value
			at = next
		}
		at.Self += s.Value
	}
	least := root.Value * share
	for todo := []*Frame{root}; len(todo) > 0; {
		f := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		var rest float64
		for _, c := range f.index {
			if c.Value < least {
				rest += c.Value
				continue
			}
			f.Children = append(f.Children, c)
			todo = append(todo, c)
		}
		f.index = nil
		slices.SortFunc(f.Children, func(a, b *Frame) int { return cmp.Or(compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name)) })
		if rest > 0 {
			f.Children = append(f.Children, &Frame{Name: "…", Value: rest, Self: rest})
		}
	}
	return root
}

// FunctionChange is a function whose share of a profile differs between two times.
type FunctionChange struct {
	Name       string  `json:"name"`
	Healthy    float64 `json:"healthy_share"` // 0..1, of Cum or of Flat as By says
	Suspect    float64 `json:"suspect_share"`
	By         string  `json:"by"`         // "flat": it does more itself; "cum": it and what it calls do
	Z          float64 `json:"z"`          // how many standard errors apart
	Confidence float64 `json:"confidence"` // 0..1: one minus the chance of so large a difference in any of the functions
}

// ProfileDiff is what differs between two profiles of one kind.
type ProfileDiff struct {
	Kind           string           `json:"kind"`
	HealthySamples float64          `json:"healthy_samples"`
	SuspectSamples float64          `json:"suspect_samples"`
	HealthyRate    float64          `json:"healthy_rate"` // Value per second: with cpu and nanoseconds, 1e9 is one busy core; 0 = not told
	SuspectRate    float64          `json:"suspect_rate"`
	Changes        []FunctionChange `json:"changes"` // the largest change of share first
	Gaps           []Gap            `json:"gaps,omitempty"`
}

// What a change must have to be shown.
const (
	leastShift   = 0.01 // of the whole
	leastSamples = 30   // in each profile
	likely       = 0.99 // confidence
)

// DiffProfiles compares shares, so that profiles of unlike length and load can be compared; the rates stand beside them. A change is
// shown when it is at least 1 % of the whole and would, by the two-proportion test with Bonferroni's correction over all functions,
// come by chance in less than 1 % of comparisons. The test takes samples as independent, as those of a CPU profile nearly are;
// counts of a heap, mutex or block profile come in bursts, so there it is a guard against noise and no more.
func DiffProfiles(suspect, healthy Profile) ProfileDiff {
	d := ProfileDiff{Kind: suspect.Kind}
	sv, sn := suspect.Total()
	hv, hn := healthy.Total()
	d.SuspectSamples, d.HealthySamples = sn, hn
	if suspect.Since > 0 && healthy.Since > 0 {
		d.SuspectRate, d.HealthyRate = sv/suspect.Since.Seconds(), hv/healthy.Since.Seconds()
	}
	switch {
	case suspect.Kind != healthy.Kind || suspect.Unit != healthy.Unit:
		d.Gaps = append(d.Gaps, Gap{"comparison", "the profiles are of two kinds: " + suspect.Kind + " and " + healthy.Kind})
		return d
	case sn < leastSamples || hn < leastSamples:
		d.Gaps = append(d.Gaps, Gap{"comparison", "too few samples; 30 in each profile are the least"})
		return d
	}
	if suspect.Kind != "cpu" {
		d.Gaps = append(d.Gaps, Gap{"confidence", "events of this profile come in bursts; the test takes them as independent"})
	}
	byName := map[string][2]Function{}
	for i, p := range []Profile{suspect, healthy} {
		for _, f := range p.Functions() {
			pair := byName[f.Name]
			pair[i] = f
			byName[f.Name] = pair
		}
	}
	for name, pair := range byName {
		s, h := pair[0], pair[1]
		flat := change(name, "flat", s.FlatShare, h.FlatShare, sn, hn, len(byName))
		cum := change(name, "cum", s.CumShare, h.CumShare, sn, hn, len(byName))
		for _, c := range []FunctionChange{flat, cum} {
			if c.Confidence >= likely && math.Abs(c.Suspect-c.Healthy) >= leastShift {
				d.Changes = append(d.Changes, c)
				break // one line for a function, and what it does itself tells more
			}
		}
	}
	slices.SortFunc(d.Changes, func(a, b FunctionChange) int {
		return cmp.Or(compare(math.Abs(b.Suspect-b.Healthy), math.Abs(a.Suspect-a.Healthy)), cmp.Compare(a.Name, b.Name))
	})
	return d
}

func change(name, by string, suspect, healthy, sn, hn float64, functions int) FunctionChange {
	c := FunctionChange{Name: name, Healthy: healthy, Suspect: suspect, By: by}
	pooled := (suspect*sn + healthy*hn) / (sn + hn)
	if se := math.Sqrt(pooled * (1 - pooled) * (1/sn + 1/hn)); se > 0 {
		c.Z = (suspect - healthy) / se
		c.Confidence = max(0, 1-math.Erfc(math.Abs(c.Z)/math.Sqrt2)*float64(functions))
	}
	return c
}
