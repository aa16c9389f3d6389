package gateway

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/limit"
)

// caller is what is known of who makes a call, and how much it matters.
type caller struct {
	priority call.Priority
	cohort   uint8
	tenant   string
}

// maxTenant bounds what a client can make the limiter keep for one name.
const maxTenant = 128

// identify finds out who calls.
func (v *visit) identify() {
	c := &v.route.cfg
	trusted := v.peer.trusted
	cohort, told := uint8(0), false
	v.caller.priority, cohort, told = c.Priority.of(v.r.Header, trusted || c.Priority.TrustAll)
	if c.Tenant != nil {
		v.caller.tenant = c.Tenant.of(v)
	}
	switch {
	case told:
		v.caller.cohort = cohort
	case v.caller.tenant != "":
		v.caller.cohort = uint8(hashOf(v.caller.tenant) % cohorts)
	default:
		v.caller.cohort = uint8(hashOf(networkOf(v.peer.client)) % cohorts)
	}
}

// of is the priority of a call. believed says that its header may raise it. told says that a caller that is believed
// knows the cohort, too.
func (p *Priority) of(h http.Header, believed bool) (is call.Priority, cohort uint8, told bool) {
	if p.Exempt {
		return limit.Exempt, 0, false
	}
	if p.Header == "" {
		return p.Default, 0, false
	}
	value := h.Get(p.Header)
	if value == "" {
		return p.Default, 0, false
	}
	asked, ok := p.Values[value]
	if !ok && len(p.Values) == 0 {
		var withCohort bool
		asked, cohort, withCohort, ok = call.ParseTier(value)
		told = ok && withCohort && believed
	}
	switch {
	case !ok:
		return p.Default, 0, false
	case believed:
		return asked, cohort, told
	}
	return min(asked, p.Default), 0, false
}

// of names the tenant of a call.
func (t *Tenant) of(v *visit) string {
	name := ""
	if v.peer.trusted || t.TrustAll || t.Capture != "" || t.ClientIP {
		name = t.value(v)
	}
	switch {
	case name == "":
		return networkOf(v.peer.client)
	case len(name) > maxTenant:
		return name[:maxTenant-16] + hex16(hashOf(name))
	}
	return name
}

func hex16(x uint64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = digits[x>>(60-4*i)&15]
	}
	return string(b[:])
}

// value is the key of a call, "" without one.
func (k *Key) value(v *visit) string {
	switch {
	case k.ClientIP:
		return networkOf(v.peer.client)
	case k.Header != "":
		return v.r.Header.Get(k.Header)
	case k.Cookie != "":
		if c, err := v.r.Cookie(k.Cookie); err == nil {
			return c.Value
		}
	case k.Capture != "":
		if i := slices.Index(v.route.names, k.Capture); i >= 0 && i < len(v.captures) {
			return v.captures[i]
		}
	}
	return ""
}

// tellPriority lets the upstream know what its own limiter should: the tier and the cohort. What the client said under this name
// does not pass.
func (v *visit) tellPriority() {
	c := &v.route.cfg
	_, said := v.x.header[httppolicy.HeaderPriority]
	if v.caller.priority > call.Critical {
		delete(v.x.header, httppolicy.HeaderPriority)
		return
	}
	if said || v.caller.priority != call.Normal || c.Tenant != nil || c.Priority.Default != call.Normal {
		v.x.header[httppolicy.HeaderPriority] = []string{call.FormatTier(v.caller.priority, v.caller.cohort)}
	}
}

// networkOf is an address; of one that is IPv6, the 64 bits that one customer has.
func networkOf(address string) string {
	if strings.IndexByte(address, ':') < 0 {
		return address
	}
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is6() || a.Is4In6() {
		return address
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.Addr().String()
}

// hashOf is FNV-1a with a last mix, the same in every process: gateways side by side agree about cohorts and versions.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of MurmurHash3.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
