package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/setting"
)

// Route sends the calls that match to an upstream under a policy.
type Route struct {
	Name     string          `yaml:"name"` // names the route everywhere; unique, up to 64 characters
	Match    Match           `yaml:"match"`
	Upstream string          `yaml:"upstream"`
	Policy   longpole.Config `yaml:"policy"` // {} = longpole.Config.Safe
}

func (c Config) validateRoutes(f *setting.Faults) {
	names := make(map[string]int)
	for i, r := range c.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		f.Check(nameOK(r.Name), path+".name", r.Name, "a name of 1..64 letters, digits and -_./ characters")
		first, taken := names[r.Name]
		f.Check(!taken || r.Name == "", path+".name", r.Name, fmt.Sprintf("a name that routes[%d] does not have", first))
		if !taken {
			names[r.Name] = i
		}
		_, known := c.Upstreams[r.Upstream]
		f.Check(known, path+".upstream", r.Upstream, "one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
		f.Within(path+".match", r.Match.Validate())
		for j, earlier := range c.Routes[:i] {
			if earlier.Match.covers(r.Match) {
				f.Check(false, path+".match", r.Match.String(), fmt.Sprintf("a match that routes[%d] (%s) does not take whole before it", j, earlier.Name))
				break
			}
		}
		// With the defaults that will be in force: they, too, must fit what stands in the file.
		effective := r.Policy.Safe()
		f.Within(path+".policy", effective.Validate())
		f.Within(path+".policy", contradictions(effective))
		if b := effective.Fallback; b != nil && b.Upstream != "" {
			_, known := c.Upstreams[b.Upstream]
			f.Check(known && b.Upstream != r.Upstream, path+".policy.fallback.upstream", b.Upstream, "another one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
		}
	}
}

// contradictions finds settings that are right alone but cannot work together. p has its defaults spelt out.
func contradictions(p longpole.Config) error {
	var f setting.Faults
	if p.Retry == nil || p.Retry.Hedge == nil {
		return nil
	}
	limit, name := p.Timeout, "timeout"
	if p.TryTimeout > 0 {
		limit, name = p.TryTimeout, "try_timeout"
	}
	after := p.Retry.Hedge.After
	f.Check(limit == 0 || after < limit, "retry.hedge.after", after, "less than "+name+" ("+limit.String()+"), or no copy is ever sent")
	f.Check(p.Retry.MaxAttempts != 1, "retry.max_attempts", p.Retry.MaxAttempts, "2..10, because a hedge is an attempt")
	f.Check(!p.Retry.Off, "retry.off", p.Retry.Off, "false, because hedge needs retry")
	return f.Err()
}
