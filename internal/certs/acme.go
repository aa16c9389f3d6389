package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/longpole/longpole/setting"
)

// Ports says where the challenges of an Issuer are answered. The ports are those that are really listened at; a CA on the
// Internet reaches them at 80 and 443.
type Ports struct {
	Host string // of the addresses; "" = all, or not the same for both
	HTTP int    // of a listener in the clear, whose calls are given to Answer; 0 = none, and no HTTP01
	TLS  int    // of a listener whose Server has this Issuer; 0 = none, and no TLSALPN01
}

// Issuer gets and renews the certificates of one ACME. It is safe for concurrent use.
type Issuer struct {
	cfg   ACME
	hosts map[string]bool
	log   *slog.Logger
	roots *x509.CertPool
	live  atomic.Pointer[order]

	mu sync.Mutex // serialises Start and Close
}

// order is an Issuer at work.
type order struct {
	magic  *certmagic.Config
	cache  *certmagic.Cache
	acme   *certmagic.ACMEIssuer
	cancel context.CancelFunc
}

// NewIssuer prepares to order for c, which must be valid; Start begins. log tells what happens; nil = nothing is told.
// The error, a *setting.Error, says that c.Root cannot be read.
func NewIssuer(c ACME, log *slog.Logger) (*Issuer, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	i := &Issuer{cfg: c, hosts: make(map[string]bool), log: log}
	for _, h := range c.Hosts {
		i.hosts[h] = true
	}
	if c.Root != "" {
		var f setting.Faults
		i.roots = new(files).pool(c.Root, "root", &f)
		if err := f.Err(); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Serves reports whether i does what an Issuer of c would do.
func (i *Issuer) Serves(c ACME) bool { return reflect.DeepEqual(i.cfg, c) }

// Start loads what the storage has, orders what is missing and renews what gets old, all in the background, with pauses
// that grow while the CA refuses. Calls after the first do nothing until Close.
func (i *Issuer) Start(p Ports) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.live.Load() != nil {
		return nil
	}
	wantHTTP, wantTLS := i.cfg.Challenge != TLSALPN01 && p.HTTP > 0, i.cfg.Challenge != HTTP01 && p.TLS > 0
	if !wantHTTP && !wantTLS {
		return fmt.Errorf("certs: no listener answers the challenge %q of %s", i.cfg.Challenge, strings.Join(i.cfg.Hosts, ", "))
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &order{cancel: cancel}
	logger := zapTo(i.log)
	o.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return o.magic, nil },
		Logger:           logger,
	})
	o.magic = certmagic.New(o.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: i.cfg.Storage},
		Logger:  logger,
	})
	directory := i.cfg.Directory
	if directory == "" {
		directory = LetsEncrypt
	}
	o.acme = certmagic.NewACMEIssuer(o.magic, certmagic.ACMEIssuer{
		CA:                      directory,
		Email:                   i.cfg.Email,
		Agreed:                  true,
		TrustedRoots:            i.roots,
		DisableHTTPChallenge:    !wantHTTP,
		DisableTLSALPNChallenge: !wantTLS,
		ListenHost:              p.Host,
		AltHTTPPort:             p.HTTP,
		AltTLSALPNPort:          p.TLS,
		Logger:                  logger,
	})
	o.magic.Issuers = []certmagic.Issuer{o.acme}
	if err := o.magic.ManageAsync(ctx, i.cfg.Hosts); err != nil {
		o.stop()
		return fmt.Errorf("certs: ordering for %s: %w", strings.Join(i.cfg.Hosts, ", "), err)
	}
	i.live.Store(o)
	return nil
}

// Close ends the work and waits for the upkeep to end; an order under way is given up. Start may follow.
func (i *Issuer) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if o := i.live.Swap(nil); o != nil {
		o.stop()
	}
}

func (o *order) stop() {
	o.cancel()
	o.cache.Stop()
}

// holds reports whether the normal name is one to order for.
func (i *Issuer) holds(name string) bool { return i.hosts[name] }

// certificate is what to show for a name that i holds, the answer to a challenge included.
func (i *Issuer) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	o := i.live.Load()
	if o == nil {
		return nil, ErrNoCertificate
	}
	c, err := o.magic.GetCertificate(hello)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCertificate, err)
	}
	return c, nil
}

// Answer answers r if it is a CA that validates by HTTP01 a host of i (RFC 8555 section 8.3); false = r is somebody else's.
func (i *Issuer) Answer(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		return false
	}
	o := i.live.Load()
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return o != nil && i.holds(normal(host)) && o.acme.HandleHTTPChallenge(w, r)
}

// Status lists the certificates that i holds now, ordered by name.
func (i *Issuer) Status() []Status {
	o := i.live.Load()
	if o == nil {
		return nil
	}
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(i.hosts)) {
		var newest time.Time
		var found *x509.Certificate
		for _, c := range o.cache.AllMatchingCertificates(name) {
			if c.Leaf != nil && c.Leaf.NotAfter.After(newest) {
				newest, found = c.Leaf.NotAfter, c.Leaf
			}
		}
		if found != nil {
			all = append(all, statusOf(found, ""))
		}
	}
	return all
}
