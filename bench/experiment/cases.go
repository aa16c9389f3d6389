package main

import (
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/retry"
)

// kind is what a change does.
type kind int

const (
	harms kind = iota
	helps
	nothing
)

// change is a case: what is rolled out, and over what.
type change struct {
	name     string
	kind     kind
	policy   string          // in force, as YAML
	stable   []conduct       // instances of the version in force
	next     *conduct        // of the version that is tried; nil = a policy is
	to       longpole.Config // the policy that is tried
	goal     string
	target   string
	ramp     bool          // the steps are the default ones, in place of half of the calls at once
	apart    bool          // the other rules see nothing of what differs: they are not asked
	most     time.Duration // of the rollout; 0 = options.most
	halfHour bool          // run only when it is asked for
}

const (
	safe  = "{}"
	plain = "{retry: {off: true}}" // so that callers see what fails
)

// version is a change to another version, which differs from the usual one as told.
func version(name string, k kind, differs func(*conduct)) change {
	next := usual()
	differs(&next)
	return change{name: name, kind: k, policy: safe, stable: []conduct{usual()}, next: &next, goal: rollout.GoalImprove}
}

func (c change) under(policy string) change {
	c.policy = policy
	return c
}

func (c change) unseen() change {
	c.apart = true
	return c
}

func (c change) ramped() change {
	c.name += ", by the default steps"
	c.ramp, c.apart, c.most = true, true, 30*time.Minute
	return c
}

func (c change) better(target string) change {
	c.target = target
	return c
}

// stalls is an instance that stands still for some of its calls.
func stalls() conduct {
	c := usual()
	c.late = 0.15
	return c
}

// cases are all changes. A p99 is made 20 % worse in three ways: with all other latencies, by more slow calls, and by slow calls
// that are slower still.
func cases() []change {
	slower := func(c *conduct) { c.scale = 1.2 }
	failing := func(share float64) func(*conduct) { return func(c *conduct) { c.errors = share } }
	policy := func(name string, k kind, to longpole.Config) change {
		return change{name: name, kind: k, policy: safe, stable: []conduct{usual()}, to: to.Safe(), goal: rollout.GoalImprove}
	}
	hedge := policy("one replica of three stalls: hedge", helps, longpole.Config{Retry: &retry.Config{Hedge: &retry.Hedge{Quantile: 0.95}}})
	hedge.stable = []conduct{usual(), usual(), stalls()}
	often := version("p99 +20 %, by 4.7 % slow calls in place of 3 %", harms, func(c *conduct) { c.slow = 0.047 })
	often.most = 30 * time.Minute // the default; ten find half of them
	tail := version("p99 +20 %, by the slow calls alone being slower", harms, func(c *conduct) { c.slowMS *= 1.2 }).unseen()
	tail.halfHour, tail.most = true, 30*time.Minute
	return []change{
		policy("nothing: another timeout that no call meets", nothing, longpole.Config{Timeout: 29 * time.Second}),
		version("nothing: another version that is the same", nothing, func(*conduct) {}),
		version("p99 +20 %, as all calls", harms, slower),
		often,
		version("3 % of calls +200 ms", harms, func(c *conduct) { c.late = 0.03 }),
		version("errors 0.1 % to 5 %", harms, failing(0.05)).under(plain),
		version("errors 0.1 % to 1 %", harms, failing(0.01)).under(plain),
		version("errors 0.1 % to 5 % that retries hide", harms, failing(0.05)).unseen(),
		version("calls to a downstream twice as many", harms, func(c *conduct) { c.db *= 2 }).unseen(),
		version("processor time 1.5 times", harms, func(c *conduct) { c.cpu += c.cpu / 2 }).unseen(),
		policy("a timeout of 100 ms", harms, longpole.Config{Timeout: 100 * time.Millisecond}),
		tail,
		hedge.better("p99"),
		version("all calls 20 % faster", helps, func(c *conduct) { c.scale = 0.8 }).better("p95"),
		version("errors 0.1 % to 5 %", harms, failing(0.05)).under(plain).ramped(),
		version("p99 +20 %, as all calls", harms, slower).ramped(),
		version("all calls 20 % faster", helps, func(c *conduct) { c.scale = 0.8 }).better("p95").ramped(),
	}
}

// job is one rollout to run.
type job struct {
	change
	index int // names its route
}

// jobs are the rollouts to run, those that last longest first.
func jobs(o options) (all []job) {
	equals := 0
	for _, c := range cases() {
		if c.kind == nothing {
			equals++
		}
	}
	for _, c := range cases() {
		n := o.runs
		if c.kind == nothing {
			n = (o.equal + equals - 1) / equals
		}
		if !strings.Contains(c.name, o.only) || c.halfHour && !o.tail {
			continue
		}
		for range n {
			all = append(all, job{c, len(all)})
		}
	}
	return all
}
