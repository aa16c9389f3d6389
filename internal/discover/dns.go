package discover

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf  = "/etc/resolv.conf"
	dnsTime     = 2 * time.Second // for one server to answer one question
	dnsServers  = 3               // asked one after the other, as the resolver of the C library does
	dnsSearch   = 8               // names tried of a search list
	dnsUDPBytes = 1232            // what fits a packet everywhere (DNS flag day 2020)
)

// resolver asks name servers.
type resolver struct {
	cfg  DNS
	conf string // in place of resolvConf

	// exchange asks one server one question; nil = over the network.
	exchange func(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error)
}

func (r *resolver) run(ctx context.Context, tell report) {
	b := backoff{first: time.Second, most: 30 * time.Second}
	for {
		set, ttl, err := r.pass(ctx)
		pause := spread(min(max(ttl, r.cfg.MinTTL), r.cfg.MaxTTL))
		if err != nil {
			pause = b.next(rand.Float64())
		} else {
			b.reset()
		}
		tell(set, err)
		if !sleep(ctx, pause) {
			return
		}
	}
}

// pass resolves the name once. A name that does not exist has no endpoints, and is no error.
func (r *resolver) pass(ctx context.Context) (set []Endpoint, ttl time.Duration, err error) {
	servers, names, err := r.where()
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		if r.cfg.Type == Services {
			set, ttl, err = r.services(ctx, servers, name)
		} else {
			set, ttl, err = r.host(ctx, servers, name)
		}
		if err != nil || len(set) > 0 {
			break
		}
	}
	return set, ttl, err
}

// where is whom to ask, and for which full names one after the other.
func (r *resolver) where() (servers, names []string, err error) {
	if r.cfg.Nameserver != "" {
		return []string{r.cfg.Nameserver}, []string{dns.Fqdn(r.cfg.Name)}, nil
	}
	path := resolvConf
	if r.conf != "" {
		path = r.conf
	}
	c, err := dns.ClientConfigFromFile(path) // read each time: it changes when a network does
	if err != nil {
		return nil, nil, errorf("reading %s: %w", path, err)
	}
	for _, s := range c.Servers[:min(len(c.Servers), dnsServers)] {
		servers = append(servers, net.JoinHostPort(s, c.Port))
	}
	if len(servers) == 0 {
		return nil, nil, errorf("%s names no name server", path)
	}
	names = c.NameList(r.cfg.Name)
	return servers, names[:min(len(names), dnsSearch)], nil
}

func (r *resolver) host(ctx context.Context, servers []string, name string) (set []Endpoint, ttl time.Duration, err error) {
	ips, ttl, err := r.lookup(ctx, servers, name)
	for _, ip := range ips {
		set = append(set, Endpoint{URL: location(r.cfg.Scheme, ip, r.cfg.Port), Weight: 1})
	}
	return set, ttl, err
}

// lookup is the addresses of a host in the families that are wanted.
func (r *resolver) lookup(ctx context.Context, servers []string, name string) (ips []netip.Addr, ttl time.Duration, err error) {
	ttl = r.cfg.MaxTTL
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		switch family := r.cfg.Family; {
		case kind == dns.TypeA && family == familyIPv6, kind == dns.TypeAAAA && family == familyIPv4:
			continue
		case kind == dns.TypeAAAA && family == "" && len(ips) > 0:
			continue
		}
		m, err := r.ask(ctx, servers, name, kind)
		if err != nil {
			return nil, 0, err
		}
		more, hold, err := addresses(m, name, kind)
		if err != nil {
			return nil, 0, err
		}
		ips, ttl = append(ips, more...), min(ttl, hold)
	}
	return ips, ttl, nil
}

func (r *resolver) services(ctx context.Context, servers []string, name string) (set []Endpoint, ttl time.Duration, err error) {
	m, err := r.ask(ctx, servers, name, dns.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	list, hosts, ttl, err := services(m, name)
	if err != nil {
		return nil, 0, err
	}
	asked := 0
	for _, s := range list {
		host := strings.ToLower(s.Target)
		if _, known := hosts[host]; known || asked == maxTargets {
			continue
		}
		asked++
		ips, hold, err := r.lookup(ctx, servers, host)
		if err != nil {
			return nil, 0, err
		}
		hosts[host], ttl = ips, min(ttl, hold)
	}
	return placed(list, hosts, r.cfg.Scheme), ttl, nil
}

// ask puts one question to the servers, one after the other, until one has an answer.
func (r *resolver) ask(ctx context.Context, servers []string, name string, kind uint16) (*dns.Msg, error) {
	exchange := r.exchange
	if exchange == nil {
		exchange = overNetwork
	}
	var all []error
	for _, server := range servers {
		m := new(dns.Msg).SetQuestion(name, kind)
		m.SetEdns0(dnsUDPBytes, false)
		answer, err := exchange(ctx, m, server)
		if err == nil {
			err = said(answer, name, kind)
		}
		if err == nil {
			return answer, nil
		}
		all = append(all, errorf("asking %s for %s: %w", server, name, err))
	}
	return nil, errors.Join(all...)
}

// overNetwork asks by UDP, and by TCP when the answer is too long for that.
func overNetwork(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error) {
	c := dns.Client{Timeout: dnsTime, UDPSize: dnsUDPBytes}
	answer, _, err := c.ExchangeContext(ctx, m, server)
	if err == nil && answer.Truncated {
		c.Net = "tcp"
		answer, _, err = c.ExchangeContext(ctx, m, server)
	}
	return answer, err
}
