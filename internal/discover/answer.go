package discover

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The bounds on one answer.
const (
	maxAliases = 16  // CNAMEs one after the other
	maxTargets = 256 // hosts of one service that are looked up; further ones need their addresses in the answer
)

// minWeight stands for the weight 0 of a service beside others, which "should have a very small chance of being selected"
// (RFC 2782).
const minWeight = 0.1

// negative is how long the news holds that there is nothing (RFC 2308 section 5); 0 = the answer does not tell.
func negative(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return seconds(min(soa.Hdr.Ttl, soa.Minttl))
		}
	}
	return 0
}

func seconds(n uint32) time.Duration { return time.Duration(min(n, 1<<31-1)) * time.Second }

// said checks that m answers the question, whether or not there is anything.
func said(m *dns.Msg, name string, kind uint16) error {
	switch {
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return errorf("the name server answers %s for %s", dns.RcodeToString[m.Rcode], name)
	case !m.Response || len(m.Question) != 1 || m.Question[0].Qtype != kind || !strings.EqualFold(m.Question[0].Name, name):
		return errorf("the answer for %s is to another question", name)
	}
	return nil
}

// follow returns the records of that kind for name, along its aliases, and how long they hold together.
func follow(m *dns.Msg, name string, kind uint16) (found []dns.RR, ttl time.Duration) {
	ttl = time.Duration(1<<63 - 1)
	for range maxAliases {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, name) {
				continue
			}
			switch alias, ok := rr.(*dns.CNAME); {
			case h.Rrtype == kind:
				found, ttl = append(found, rr), min(ttl, seconds(h.Ttl))
			case ok && next == "":
				next, ttl = alias.Target, min(ttl, seconds(h.Ttl))
			}
		}
		if len(found) > 0 || next == "" {
			break
		}
		name = next
	}
	if len(found) == 0 {
		return nil, negative(m)
	}
	return found, ttl
}

// addresses reads the answer to a question for A or AAAA.
func addresses(m *dns.Msg, name string, kind uint16) (ips []netip.Addr, ttl time.Duration, err error) {
	if err := said(m, name, kind); err != nil {
		return nil, 0, err
	}
	found, ttl := follow(m, name, kind)
	for _, rr := range found {
		if ip, ok := address(rr); ok {
			ips = append(ips, ip)
		}
	}
	return ips, ttl, nil
}

func address(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && !a.IsUnspecified() && !a.IsMulticast()
}

// services reads the answer to a question for SRV. hosts are the addresses that came with it, by host in lower case.
func services(m *dns.Msg, name string) (list []*dns.SRV, hosts map[string][]netip.Addr, ttl time.Duration, err error) {
	if err := said(m, name, dns.TypeSRV); err != nil {
		return nil, nil, 0, err
	}
	found, ttl := follow(m, name, dns.TypeSRV)
	for _, rr := range found {
		// A target of "." says that the service is decidedly not there.
		if s, ok := rr.(*dns.SRV); ok && s.Target != "." && s.Port != 0 {
			list = append(list, s)
		}
	}
	hosts = make(map[string][]netip.Addr)
	for _, rr := range m.Extra {
		if ip, ok := address(rr); ok {
			host := strings.ToLower(rr.Header().Name)
			hosts[host] = append(hosts[host], ip)
			ttl = min(ttl, seconds(rr.Header().Ttl))
		}
	}
	return list, hosts, ttl, nil
}

// placed is the endpoints of services whose hosts are known: those with the lowest priority value that has an address, as
// a caller "MUST attempt to contact the target host with the lowest-numbered priority it can reach" (RFC 2782), each with
// its weight, which the addresses of a host share.
func placed(list []*dns.SRV, hosts map[string][]netip.Addr, scheme string) []Endpoint {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *dns.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	var set []Endpoint
	var first uint16
	weighted := false
	for _, s := range list {
		ips := hosts[strings.ToLower(s.Target)]
		if len(set) > 0 && s.Priority != first {
			break
		}
		for _, ip := range ips {
			first, weighted = s.Priority, weighted || s.Weight > 0
			set = append(set, Endpoint{URL: location(scheme, ip, int(s.Port)), Weight: max(float64(s.Weight), minWeight) / float64(len(ips))})
		}
	}
	if !weighted {
		for i := range set {
			set[i].Weight /= minWeight // all are alike
		}
	}
	return set
}

func location(scheme string, ip netip.Addr, port int) string {
	return scheme + "://" + net.JoinHostPort(ip.String(), strconv.Itoa(port))
}
