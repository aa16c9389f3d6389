package gateway

import "slices"

// Effective is the configuration in force: that of the last good New or Reload, with every default spelt out, the policies
// that rollouts have promoted since, and the weights that Split has set. It shares nothing that changes.
func (g *Gateway) Effective() Config {
	t := g.table.Load()
	c := t.cfg
	c.Routes = slices.Clone(c.Routes)
	for i, r := range t.routes {
		if a := r.live.arms.Load(); len(a.baseline) > 0 {
			c.Routes[i].Policy = a.baseline[0].policy.Config().WithDefaults()
		}
		c.Routes[i].Split = slices.Clone(c.Routes[i].Split)
		weights := r.live.shares.Load().weights
		for j := range c.Routes[i].Split {
			c.Routes[i].Split[j].Weight = weights[j]
		}
	}
	return c
}

// action is what answers the calls of r, in a word.
func (r Route) action() string {
	switch {
	case r.Offload != nil:
		return "offload"
	case r.Aggregate != nil:
		return "aggregate"
	case r.Batch != nil:
		return "batch"
	}
	if ways := r.ways(); len(ways) > 0 {
		return ways[0]
	}
	return ""
}

// label is the tier of a call that says nothing.
func (p Priority) label() string {
	if p.Exempt {
		return "exempt"
	}
	return p.Default.String()
}

// label names where a tenant is found.
func (t *Tenant) label() string {
	switch {
	case t == nil:
		return ""
	case t.Header != "":
		return "header " + t.Header
	case t.Cookie != "":
		return "cookie " + t.Cookie
	case t.Capture != "":
		return "capture " + t.Capture
	}
	return "client_ip"
}
