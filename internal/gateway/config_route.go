package gateway

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/offload"
	"github.com/longpole/longpole/internal/payload"
	"github.com/longpole/longpole/internal/routing"
	"github.com/longpole/longpole/setting"
)

// Route answers the calls that match: by one upstream, by several that share the calls, or by itself. One of Upstream,
// Split, Redirect and Static is set.
type Route struct {
	Name          string               `yaml:"name"` // names the route everywhere; unique, up to 64 characters
	Match         Match                `yaml:"match"`
	Upstream      string               `yaml:"upstream"`
	Split         []Version            `yaml:"split"`          // upstreams that share the calls by weight; up to 16
	Sticky        *Key                 `yaml:"sticky"`         // equal keys go to the same version of a split, and to the same arm of a rollout, while the weights stay; nil = each call by chance
	Redirect      *routing.Redirect    `yaml:"redirect"`       // sends the client elsewhere
	Static        *routing.Answer      `yaml:"static"`         // answers without an upstream
	Rewrite       *routing.Rewrite     `yaml:"rewrite"`        // of what the upstream is asked for
	RequestHeader *routing.HeaderEdit  `yaml:"request_header"` // of what the upstream sees
	AnswerHeader  *routing.HeaderEdit  `yaml:"answer_header"`  // of what the client sees; answers that the gateway makes for want of another are left alone
	Priority      Priority             `yaml:"priority"`       // which calls are shed first
	Tenant        *Tenant              `yaml:"tenant"`         // between whom capacity is shared fairly, and rates are counted; nil = all are one
	Stream        bool                 `yaml:"stream"`         // true = answers may go on after the policy's timeout, which ends with their head; Limits.StreamIdle ends them when they are silent. Server-sent events, gRPC and upgrades always may
	Offload       *offload.QueueConfig `yaml:"offload"`        // calls are stored as jobs and delivered to the upstream later; nil = they are made at once
	Aggregate     *Aggregate           `yaml:"aggregate"`      // each call becomes several, whose answers are merged; the upstream may be left out when every part has one
	Payload       *payload.Config      `yaml:"payload"`        // content coding, entity tags and the size of answers; nil = they pass as they are
	Mirror        *Mirror              `yaml:"mirror"`         // copies of a share of the calls go to another upstream too; nil = none
	Faults        []fault.Config       `yaml:"faults"`         // begin with the file, and end by themselves; up to 16
	Batch         *Batch               `yaml:"batch"`          // calls for single things are joined into one for many
	Policy        longpole.Config      `yaml:"policy"`         // {} = longpole.Config.Safe; none for a route that answers by itself
}

// Version is one of the upstreams that a route's calls are split between. Each has a policy of its own, with the route's
// settings: what one version does is not held against another.
type Version struct {
	Upstream string `yaml:"upstream"`
	Weight   int    `yaml:"weight"` // share of the calls, in relation to the other versions'; 0 = none; up to 1000000
}

// Key says what of a call tells callers apart. One field is set; a call without it has no key.
type Key struct {
	Header   string `yaml:"header"`    // a field's value
	Cookie   string `yaml:"cookie"`    // a cookie's value
	Capture  string `yaml:"capture"`   // what the route's pattern captured
	ClientIP bool   `yaml:"client_ip"` // the address of the client: of the peer or, behind proxies in Config.Trust, of theirs; of IPv6 the first 64 bits
}

// Tenant says on whose behalf a call is made. A header or cookie is only believed of a peer in Config.Trust, since one
// that anybody may invent would give each call an allowance of its own; the calls of other peers are told apart by address.
type Tenant struct {
	Key
	TrustAll bool `yaml:"trust_all"` // believe everybody, because the value is checked elsewhere
}

// Priority is how much it hurts when a call fails. In a file a tier alone may stand for it, or "exempt".
//
// A client cannot promote itself: the header raises the priority above Default only when its peer is in Config.Trust. It
// may always lower it.
type Priority struct {
	Default  call.Priority            `yaml:"default"`   // critical, important, normal, deferrable, background, speculative; default normal
	Header   string                   `yaml:"header"`    // the field that tells otherwise; default X-Request-Priority, which this gateway sends on itself
	Values   map[string]call.Priority `yaml:"values"`    // what the values of the field mean; default the names of the tiers
	TrustAll bool                     `yaml:"trust_all"` // believe everybody, because clients are our own
	Exempt   bool                     `yaml:"exempt"`    // never shed and never limited: for health checks, and nothing that a client can ask for at will
}

// UnmarshalText reads a tier alone.
func (p *Priority) UnmarshalText(text []byte) error {
	*p = Priority{Exempt: string(text) == "exempt"}
	if p.Exempt {
		return nil
	}
	if p.Default.UnmarshalText(text) != nil {
		return errors.New("want critical, important, normal, deferrable, background, speculative or exempt")
	}
	return nil
}

// WithDefaults fills what is zero.
func (p Priority) WithDefaults() Priority {
	if !p.Exempt {
		setDefault(&p.Header, httppolicy.HeaderPriority)
	}
	return p
}

// Validate returns every fault of p, joined; each is a *setting.Error.
func (p Priority) Validate() error {
	var f setting.Faults
	f.Check(p.Header == "" || fieldOK(p.Header), "header", p.Header, "the name of a header field")
	f.Check(len(p.Values) <= 64, "values", len(p.Values), "at most 64 values")
	f.Check(!p.Exempt || p.Header == "" && len(p.Values) == 0 && p.Default == call.Normal, "exempt", p.Exempt, "no other setting beside it")
	return f.Err()
}

func (k Key) validate(names []string) error {
	var f setting.Faults
	set := 0
	for _, one := range []bool{k.Header != "", k.Cookie != "", k.Capture != "", k.ClientIP} {
		if one {
			set++
		}
	}
	f.Check(set == 1, "", set, "one of header, cookie, capture and client_ip")
	f.Check(k.Header == "" || fieldOK(k.Header), "header", k.Header, "the name of a header field")
	f.Check(k.Cookie == "" || fieldOK(k.Cookie), "cookie", k.Cookie, "the name of a cookie")
	f.Check(k.Capture == "" || slices.Contains(names, k.Capture), "capture", k.Capture, "a name in match.pattern")
	return f.Err()
}

// fieldOK reports whether a name is a token (RFC 9110 section 5.6.2).
func fieldOK(name string) bool {
	return name != "" && len(name) <= 256 && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// ways are the settings that say who answers.
func (r Route) ways() []string {
	var set []string
	add := func(name string, is bool) {
		if is {
			set = append(set, name)
		}
	}
	add("upstream", r.Upstream != "")
	add("split", len(r.Split) > 0)
	add("redirect", r.Redirect != nil)
	add("static", r.Static != nil)
	return set
}

// local reports whether the gateway answers by itself, without any policy.
func (r Route) local() bool { return r.Redirect != nil || r.Static != nil }

// versions are the upstreams of r, in order; none when it has no upstream of its own.
func (r Route) versions() []Version {
	if r.Upstream != "" {
		return []Version{{Upstream: r.Upstream, Weight: 1}}
	}
	return r.Split
}

// WithDefaults spells out every default, that of the policy by longpole.Config.Safe.
func (r Route) WithDefaults() Route {
	if r.Match.Exact == "" && r.Match.Pattern == "" {
		setDefault(&r.Match.Path, "/")
	}
	if r.Redirect != nil && r.Redirect.HTTPS {
		setDefault(&r.Match.Scheme, "http")
	}
	if r.Static != nil {
		s := r.Static.WithDefaults()
		r.Static = &s
	}
	r.Priority = r.Priority.WithDefaults()
	r.answersDefaults()
	r.sideDefaults()
	if !r.local() {
		r.Policy = r.Policy.Safe()
	}
	return r
}

func (c Config) validateRoutes(f *setting.Faults) {
	names, faults := make(map[string]int), make(map[string]bool)
	matches := make([]Match, len(c.Routes))
	for i, r := range c.Routes {
		matches[i] = r.WithDefaults().Match
	}
	covered := routing.Covered(matches)
	for i, r := range c.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		f.Check(nameOK(r.Name), path+".name", r.Name, "a name of 1..64 letters, digits and -_./ characters")
		first, taken := names[r.Name]
		f.Check(!taken || r.Name == "", path+".name", r.Name, fmt.Sprintf("a name that routes[%d] does not have", first))
		if !taken {
			names[r.Name] = i
		}
		f.Within(path, c.validateAnswer(r))
		f.Within(path+".match", r.Match.Validate())
		if j := covered[i]; j >= 0 {
			f.Check(false, path+".match", r.Match.String(), fmt.Sprintf("a match that routes[%d] (%s) does not take whole before it", j, c.Routes[j].Name))
		}
		_, err := newActions(r)
		f.Within(path, err)
		f.Within(path+".priority", r.Priority.Validate())
		if r.Tenant != nil {
			f.Within(path+".tenant", r.Tenant.validate(r.Match.Names()))
		}
		f.Within(path+".policy", c.validatePolicy(r))
		c.validateSide(f, path, &r, faults)
	}
}

// validateAnswer judges who answers the calls of r.
func (c Config) validateAnswer(r Route) error {
	var f setting.Faults
	known := "one of upstreams: " + strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", ")
	ways := r.ways()
	switch {
	case len(ways) == 0:
		f.Check(r.Aggregate != nil, "upstream", r.Upstream, known)
	case len(ways) > 1:
		f.Check(false, ways[1], ways[0], "one of "+strings.Join(ways, ", ")+" alone")
	case r.Upstream != "":
		_, ok := c.Upstreams[r.Upstream]
		f.Check(ok, "upstream", r.Upstream, known)
	}
	f.Check(!r.local() || r.Offload == nil && r.Aggregate == nil && r.Batch == nil, "upstream", nil, "an upstream to offload, aggregate or batch calls for")
	f.Check(len(r.Split) <= maxVersions, "split", len(r.Split), "at most 16 versions")
	sum, seen := 0, make(map[string]bool)
	for i, v := range r.Split {
		path := fmt.Sprintf("split[%d]", i)
		_, ok := c.Upstreams[v.Upstream]
		f.Check(ok, path+".upstream", v.Upstream, known)
		f.Check(!seen[v.Upstream], path+".upstream", v.Upstream, "an upstream that is not listed before")
		f.Check(v.Weight >= 0 && v.Weight <= maxWeight, path+".weight", v.Weight, "0..1000000")
		sum += v.Weight
		seen[v.Upstream] = true
	}
	f.Check(len(r.Split) == 0 || sum > 0, "split", nil, "a version with a weight above 0")
	if r.Sticky != nil {
		f.Check(!r.local(), "sticky", nil, "an upstream; the route answers by itself")
		f.Within("sticky", r.Sticky.validate(r.Match.Names()))
	}
	f.Check(r.Redirect == nil || !r.Redirect.HTTPS || r.Match.Scheme != "https", "match.scheme", r.Match.Scheme, "http, or a call would be sent in a circle")
	return f.Err()
}

// validatePolicy judges the policy with the defaults that will be in force: they, too, must fit what stands in the file.
func (c Config) validatePolicy(r Route) error {
	var f setting.Faults
	if r.local() {
		f.Check(reflect.DeepEqual(r.Policy, longpole.Config{}), "", nil, "no policy for a route that answers by itself")
		return f.Err()
	}
	effective := r.Policy.Safe()
	f.Within("", effective.Validate())
	f.Within("", contradictions(effective))
	if b := effective.Fallback; b != nil && b.Upstream != "" {
		_, known := c.Upstreams[b.Upstream]
		own := slices.ContainsFunc(r.versions(), func(v Version) bool { return v.Upstream == b.Upstream })
		f.Check(known && !own, "fallback.upstream", b.Upstream, "another one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(c.Upstreams)), ", "))
	}
	return f.Err()
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
