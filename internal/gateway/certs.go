package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/httpcache"
	"github.com/longpole/longpole/setting"
)

// HeaderIdentity tells upstreams, and the matches of routes, which client showed a certificate that was verified, in the
// form of certs.Identity. What a client sends under this name is dropped.
const HeaderIdentity = httpcache.FieldIdentity

const (
	certsEvery  = 5 * time.Second // between two looks at the files of certificates
	expiryEvery = 24 * time.Hour  // between two warnings of the same certificate
)

// secured is what TLS needs of one Config, ready to be put in force.
type secured struct {
	servers []*certs.Server // by listener; nil = in the clear
	issuers []*certs.Issuer
	clients map[string]*certs.Client // by upstream; without those that have the defaults
}

// secure reads the files of c, and changes nothing that is in force. What is the same as before stays the same. The error
// joins every fault.
func (g *Gateway) secure(c *Config) (secured, error) {
	var f setting.Faults
	s := secured{clients: make(map[string]*certs.Client)}
	for i, l := range c.Listen {
		var server *certs.Server
		if l.TLS != nil {
			path := fmt.Sprintf("listen[%d].tls", i)
			issuer, err := s.issuer(g.secured.issuers, l.TLS.ACME, g.options.Log)
			f.Within(path+".acme", err)
			server, err = certs.NewServer(*l.TLS, issuer)
			f.Within(path, err)
		}
		s.servers = append(s.servers, server)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		client, err := g.client(name, c.Upstreams[name])
		f.Within("upstreams."+name+".tls", err)
		if client != nil {
			s.clients[name] = client
		}
	}
	return s, f.Err()
}

// client is the TLS of one upstream: the same as before, with its connections, when neither settings nor files changed.
func (g *Gateway) client(name string, u Upstream) (*certs.Client, error) {
	c := u.client()
	if c == nil {
		return nil, nil
	}
	if old := g.upstreams[name]; old != nil {
		was := old.cfg.Load()
		if was.client != nil && reflect.DeepEqual(was.Upstream.client(), c) && !was.client.Changed() {
			return was.client, nil
		}
	}
	if c.InsecureSkipVerify {
		g.options.Log.Warn("INSECURE: the certificates of an upstream are not verified: anybody on the way can read and change all that is sent", "upstream", name)
	}
	return certs.NewClient(*c)
}

// issuer is the one for c: of those that are there, if there is one.
func (s *secured) issuer(old []*certs.Issuer, c *certs.ACME, log *slog.Logger) (*certs.Issuer, error) {
	if c == nil {
		return nil, nil
	}
	serves := func(i *certs.Issuer) bool { return i.Serves(*c) }
	if i := slices.IndexFunc(s.issuers, serves); i >= 0 {
		return s.issuers[i], nil
	}
	if i := slices.IndexFunc(old, serves); i >= 0 {
		s.issuers = append(s.issuers, old[i])
		return old[i], nil
	}
	fresh, err := certs.NewIssuer(*c, log)
	if err == nil {
		s.issuers = append(s.issuers, fresh)
	}
	return fresh, err
}

// show puts next in force at the listeners; the clients belong to the upstreams. The caller holds g.reload.
func (g *Gateway) show(next secured) {
	for i, server := range next.servers {
		g.servers[i].tls.Store(server)
	}
	for _, i := range g.secured.issuers {
		if !slices.Contains(next.issuers, i) {
			i.Close()
		}
	}
	g.secured = next
	g.issuers.Store(&next.issuers)
	g.order()
}

// order starts the issuers, if the gateway listens. The caller holds g.reload.
func (g *Gateway) order() {
	if !g.listening {
		return
	}
	for _, issuer := range g.secured.issuers {
		if err := issuer.Start(g.ports(issuer)); err != nil {
			g.options.Log.Error("certificates are not ordered", "error", err)
		}
	}
}

// ports says which of our listeners answer the challenges of issuer.
func (g *Gateway) ports(issuer *certs.Issuer) certs.Ports {
	var p certs.Ports
	var hosts []string
	for i, s := range g.servers {
		a := s.addr.Load()
		if a == nil {
			continue
		}
		host, text, err := net.SplitHostPort((*a).String())
		port, _ := strconv.Atoi(text)
		if err != nil {
			continue
		}
		acme := s.tls.Load() != nil && g.table.Load().cfg.Listen[i].TLS.ACME != nil && issuer.Serves(*g.table.Load().cfg.Listen[i].TLS.ACME)
		switch {
		case s.listener.TLS == nil && p.HTTP == 0:
			p.HTTP = port
		case acme && p.TLS == 0:
			p.TLS = port
		default:
			continue
		}
		hosts = append(hosts, host)
	}
	if hosts = slices.Compact(hosts); len(hosts) == 1 && hosts[0] != "::" {
		p.Host = hosts[0]
	}
	return p
}

// keepCertificates orders certificates, reads files again that have changed, and warns of what expires, until ctx is done.
func (g *Gateway) keepCertificates(ctx context.Context) {
	g.reload.Lock()
	g.listening = true
	g.order()
	g.reload.Unlock()
	k := keeper{g: g, failing: make(map[string]string), warned: make(map[string]time.Time)}
	tick := time.NewTicker(certsEvery)
	defer tick.Stop()
	for {
		k.look(time.Now())
		select {
		case <-ctx.Done():
			g.reload.Lock()
			defer g.reload.Unlock()
			g.listening = false
			for _, i := range g.secured.issuers {
				i.Close()
			}
			return
		case <-tick.C:
		}
	}
}

// keeper remembers what it has said.
type keeper struct {
	g       *Gateway
	failing map[string]string    // by whom
	warned  map[string]time.Time // by certificate
}

func (k *keeper) look(now time.Time) {
	g := k.g
	g.reload.Lock()
	defer g.reload.Unlock()
	cfg := g.table.Load().cfg
	for i, old := range g.secured.servers {
		if old == nil || !old.Changed() {
			continue
		}
		c := *cfg.Listen[i].TLS
		issuer, err := g.secured.issuer(nil, c.ACME, g.options.Log)
		var next *certs.Server
		if err == nil {
			next, err = certs.NewServer(c, issuer)
		}
		if k.said("listener "+cfg.Listen[i].Address, err) {
			g.secured.servers[i] = next
			g.servers[i].tls.Store(next)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.secured.clients)) {
		if !g.secured.clients[name].Changed() {
			continue
		}
		next, err := certs.NewClient(*cfg.Upstreams[name].client())
		if k.said("upstream "+name, err) {
			g.secured.clients[name] = next
			g.upstreams[name].secure(next)
		}
	}
	for _, s := range g.certificates() {
		id := s.File + " " + fmt.Sprint(s.Names, s.NotAfter)
		if s.Expiring(now) && now.Sub(k.warned[id]) >= expiryEvery {
			k.warned[id] = now
			g.options.Log.Warn("a certificate expires", "names", s.Names, "file", s.File, "days_left", int(s.DaysLeft(now)), "not_after", s.NotAfter)
		}
	}
	maps.DeleteFunc(k.warned, func(_ string, at time.Time) bool { return now.Sub(at) > expiryEvery })
}

// said logs how it went for whom, a failure once; true = well.
func (k *keeper) said(whom string, err error) bool {
	if err == nil {
		delete(k.failing, whom)
		k.g.options.Log.Info("certificates were read again", "for", whom)
		return true
	}
	if k.failing[whom] != err.Error() {
		k.failing[whom] = err.Error()
		k.g.options.Log.Error("certificates could not be read again; those in force stay", "for", whom, "error", err)
	}
	return false
}

// Certificates are those that the gateway shows, to clients and to upstreams, ordered by file and first name. They tell when they expire.
func (g *Gateway) Certificates() []certs.Status {
	g.reload.Lock()
	defer g.reload.Unlock()
	return g.certificates()
}

func (g *Gateway) certificates() []certs.Status {
	var all []certs.Status
	for _, s := range g.secured.servers {
		if s != nil {
			all = append(all, s.Status()...)
		}
	}
	for _, c := range g.secured.clients {
		all = append(all, c.Status()...)
	}
	// One for each file and first name, which is how a monitor knows them: a file that has just changed may have been read
	// here and not yet there.
	same := func(a, b certs.Status) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Names[0], b.Names[0]))
	}
	slices.SortFunc(all, func(a, b certs.Status) int { return cmp.Or(same(a, b), a.NotAfter.Compare(b.NotAfter)) })
	return slices.CompactFunc(all, func(a, b certs.Status) bool { return same(a, b) == 0 })
}

// CheckFiles reads the files that c names for TLS and returns every fault, joined: those that New would refuse, and
// certificates that are not valid at now. Each is a *setting.Error. c must be valid.
func (c Config) CheckFiles(now time.Time) error {
	var f setting.Faults
	for i, l := range c.Listen {
		if l.TLS != nil {
			f.Within(fmt.Sprintf("listen[%d].tls", i), l.TLS.Check(now))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if t := c.Upstreams[name].TLS; t != nil {
			f.Within("upstreams."+name+".tls", t.Check(now))
		}
	}
	return f.Err()
}

// tlsConfig is that of the listener s, whose certificates may change under it. Tickets are its own, so that they outlive
// every change.
func (s *server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.tls.Load().For(hello) },
	}
}

// validates answers a CA that validates one of our hosts; it has no route, and comes in the clear.
func (g *Gateway) validates(w http.ResponseWriter, r *http.Request) bool {
	all := g.issuers.Load()
	if all == nil || r.TLS != nil {
		return false
	}
	return slices.ContainsFunc(*all, func(i *certs.Issuer) bool { return i.Answer(w, r) })
}

// certify makes HeaderIdentity of r what the connection proves, whatever the client wrote there.
func certify(r *http.Request) {
	delete(r.Header, HeaderIdentity)
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return
	}
	if id := certs.Identity(r.TLS); id != "" {
		r.Header[HeaderIdentity] = []string{id}
	}
}

// certified copies to h, what is sent on, the identity that certify found, after all that a client may do to fields is
// done. Client-Cert is for others to believe (RFC 9440 section 4): it does not pass.
func certified(h http.Header, r *http.Request) {
	delete(h, "Client-Cert")
	delete(h, "Client-Cert-Chain")
	delete(h, HeaderIdentity)
	if id, ok := r.Header[HeaderIdentity]; ok {
		h[HeaderIdentity] = id
	}
}
