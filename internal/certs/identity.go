package certs

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
)

// maxIdentity bounds the text of Identity, in bytes.
const maxIdentity = 1024

// Identity names the client of a connection by the certificate that it showed and that was verified; "" = there is none.
// It is the first of the alternative names, in the notation of OpenSSL: "URI:spiffe://mesh/ns/shop/sa/cart",
// "DNS:cart.internal", "email:eve@example.com", else "DN:CN=cart,O=Shop" (RFC 4514). The kind is part of it, so that no
// name of one kind passes for one of another. It fits a field of HTTP: what is not visible ASCII is percent-encoded. An
// identity longer than 1 KiB is none.
func Identity(c *tls.ConnectionState) string {
	if c == nil || len(c.VerifiedChains) == 0 || len(c.VerifiedChains[0]) == 0 {
		return ""
	}
	id := visible(identity(c.VerifiedChains[0][0]))
	if len(id) > maxIdentity {
		return ""
	}
	return id
}

func identity(leaf *x509.Certificate) string {
	switch {
	case len(leaf.URIs) > 0:
		return "URI:" + leaf.URIs[0].String()
	case len(leaf.DNSNames) > 0:
		return "DNS:" + leaf.DNSNames[0]
	case len(leaf.EmailAddresses) > 0:
		return "email:" + leaf.EmailAddresses[0]
	}
	if dn := leaf.Subject.String(); dn != "" {
		return "DN:" + dn
	}
	return ""
}

// visible encodes what a field value must not hold, and the percent sign, so that no two names become one. Spaces within
// stay; those around would be trimmed.
func visible(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		inner := c == ' ' && i > 0 && i < len(s)-1
		if c > ' ' && c < 0x7f && c != '%' || inner {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
