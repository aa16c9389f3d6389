package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// maxForwarded bounds the chain of addresses that is taken from a trusted proxy.
const maxForwarded = 32

// validateTrust checks that every entry is a range of addresses, or one.
func validateTrust(f *setting.Faults, trust []string) {
	for i, s := range trust {
		_, err := prefixOf(s)
		f.Check(err == nil, fmt.Sprintf("trust[%d]", i), s, "a range of addresses such as 10.0.0.0/8, or one address")
	}
}

func prefixOf(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// trusted are the compiled entries of Config.Trust.
type trusted []netip.Prefix

func trustedOf(list []string) trusted {
	var t trusted
	for _, s := range list {
		if p, err := prefixOf(s); err == nil {
			t = append(t, p)
		}
	}
	return t
}

func (t trusted) has(a netip.Addr) bool {
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// peer is who a request comes from, as far as it can be known.
type peer struct {
	address string // of the connection's other end
	client  string // of the first that no trusted proxy stands for
	trusted bool   // the connection is a trusted proxy's
}

// peerOf reads X-Forwarded-For from the right, as long as trusted proxies have written it.
func (t trusted) peerOf(r *http.Request) peer {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	p := peer{address: host, client: host}
	if len(t) == 0 {
		return p
	}
	a, err := netip.ParseAddr(host)
	if err != nil || !t.has(a) {
		return p
	}
	p.trusted = true
	chain := forwardedFor(r.Header)
	for _, c := range slices.Backward(chain) {
		a, err := netip.ParseAddr(c)
		if err != nil {
			return p // what stands there, and before it, is anybody's word
		}
		p.client = a.Unmap().String()
		if !t.has(a) {
			return p
		}
	}
	return p
}

// forwardedFor are the last entries of the field.
func forwardedFor(h http.Header) []string {
	var chain []string
	for _, line := range h["X-Forwarded-For"] {
		for part := range strings.SplitSeq(line, ",") {
			chain = append(chain, strings.TrimSpace(part))
		}
	}
	return chain[max(0, len(chain)-maxForwarded):]
}

// forwarded writes X-Forwarded-For, -Host and -Proto into h: what this gateway saw, after what a trusted proxy says.
func (p *peer) forwarded(h http.Header, r *http.Request) {
	if p.trusted {
		if chain := forwardedFor(r.Header); len(chain) > 0 {
			h["X-Forwarded-For"] = []string{strings.Join(chain, ", ") + ", " + p.address}
		} else {
			h["X-Forwarded-For"] = []string{p.address}
		}
		keep(h, r, "X-Forwarded-Host", r.Host)
		keep(h, r, "X-Forwarded-Proto", schemeOf(r))
		return
	}
	v := []string{p.address, r.Host, schemeOf(r)} // in one piece, three times capped
	h["X-Forwarded-For"], h["X-Forwarded-Host"], h["X-Forwarded-Proto"] = v[0:1:1], v[1:2:2], v[2:3:3]
}

// keep takes a field over when it has one value, and else sets it.
func keep(h http.Header, r *http.Request, name, otherwise string) {
	if v := r.Header[name]; len(v) == 1 && v[0] != "" {
		otherwise = v[0]
	}
	h[name] = []string{otherwise}
}
