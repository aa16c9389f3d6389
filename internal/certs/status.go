package certs

import (
	"crypto/x509"
	"time"
)

// Status is one certificate, for people and monitors. It is a copy.
type Status struct {
	Names     []string  `json:"names"`          // that it is good for
	File      string    `json:"file,omitempty"` // where it comes from; "" = ACME
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

func statusOf(leaf *x509.Certificate, file string) Status {
	s := Status{File: file, Issuer: leaf.Issuer.String(), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	s.Names = append(s.Names, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	if len(s.Names) == 0 {
		s.Names = []string{leaf.Subject.String()}
	}
	return s
}

// DaysLeft is how many days of 24 h remain at now; negative when it has expired.
func (s Status) DaysLeft(now time.Time) float64 { return s.NotAfter.Sub(now).Hours() / 24 }

// expiryNotice is what is left of a long-lived certificate when somebody should look.
const expiryNotice = 14 * 24 * time.Hour

// Expiring reports whether somebody should look: less than 14 days are left, or less than a fifth of its life for one that
// lives shorter than 70 days. Renewal by ACME comes long before.
func (s Status) Expiring(now time.Time) bool {
	return s.NotAfter.Sub(now) < min(expiryNotice, s.NotAfter.Sub(s.NotBefore)/5)
}
