package certs

import (
	"crypto/tls"
	"slices"
	"strings"
)

// certificate is one of a listener.
type certificate struct {
	*tls.Certificate
	file string
}

// table finds certificates by name.
type table struct {
	exact    map[string][]*tls.Certificate
	wildcard map[string][]*tls.Certificate // by what follows the "*."
	first    *tls.Certificate              // nil = none
}

func newTable(list []certificate) table {
	t := table{exact: make(map[string][]*tls.Certificate), wildcard: make(map[string][]*tls.Certificate)}
	for _, c := range list {
		if t.first == nil {
			t.first = c.Certificate
		}
		names := c.Leaf.DNSNames
		for _, ip := range c.Leaf.IPAddresses {
			names = append(slices.Clip(names), ip.String())
		}
		for _, name := range names {
			name = normal(name)
			if base, ok := strings.CutPrefix(name, "*."); ok {
				t.wildcard[base] = append(t.wildcard[base], c.Certificate)
			} else {
				t.exact[name] = append(t.exact[name], c.Certificate)
			}
		}
	}
	return t
}

// normal is a name as it is compared: names of hosts ignore case and the dot of the root.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// named returns the certificates for exactly that normal name.
func (t table) named(name string) []*tls.Certificate { return t.exact[name] }

// wild returns those whose wildcard stands for the first label of name (RFC 9525 section 6.3).
func (t table) wild(name string) []*tls.Certificate {
	first, base, ok := strings.Cut(name, ".")
	if !ok || first == "" {
		return nil
	}
	return t.wildcard[base]
}

// best is the first that the client can verify, or the first of all; nil of none.
func best(hello *tls.ClientHelloInfo, list []*tls.Certificate) *tls.Certificate {
	for _, c := range list {
		if len(list) > 1 && hello.SupportsCertificate(c) == nil {
			return c
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}
