package diagnose

import (
	"net/netip"

	"github.com/longpole/longpole/internal/trace"
)

// maxPeers bounds the addresses that a name is looked for.
const maxPeers = 1 << 12

// socket is where a call went, as its span tells.
type socket struct{ address, port string }

// numeric reports whether a host is a bare address: it names a machine, or what stands in front of one, but no service.
func numeric(host string) bool {
	if host == "" || host[0] != '[' && host[0] != ':' && (host[0] < '0' || host[0] > '9') {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// local reports whether a host is this one. What answers there is a proxy, or something forwarded: the address is not its name.
func local(host string) bool {
	if host == "localhost" {
		return true
	}
	if !numeric(host) {
		return false
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || a.IsUnspecified())
}

// namePeers gives calls that nobody answered, and that tell only an address, the name of the service that answers there at other
// times. It looks at all spans only where there are such calls.
func (s *set) namePeers(o ClockOptions) {
	wanted := make([]bool, len(s.places))
	any := false
	for i, at := range s.places {
		wanted[i] = at.segment == trace.SegDownstream
		any = any || wanted[i]
	}
	if !any {
		return
	}
	names := make(map[socket]string)
	for _, t := range s.trees {
		for i := range t.Spans {
			if wanted[t.places[i]] && len(names) < maxPeers {
				if at := t.nameless(i); at != (socket{}) {
					names[at] = ""
				}
			}
		}
	}
	if len(names) == 0 {
		return
	}
	o.rest()
	s.answered(names)
	o.rest()
	l := newLocated()
	for _, at := range s.places {
		l.add(at)
	}
	for _, t := range s.trees {
		for i := range t.Spans {
			if !wanted[t.places[i]] {
				continue
			}
			if name := names[t.nameless(i)]; name != "" {
				at := s.places[t.places[i]]
				at.service = name
				t.places[i] = l.add(at)
			}
		}
	}
	s.places = l.list
	for _, t := range s.trees {
		t.known = s.places
	}
}

// nameless is where span i, a call that nobody answered, went, if it tells nothing but an address; else zero.
func (t *Tree) nameless(i int) socket {
	at := socket{t.attr(i, askAddress), t.attr(i, askPort)}
	if t.attr(i, askPeer) != "" || !numeric(at.address) && !local(at.address) {
		return socket{}
	}
	return at
}

// answered fills in names who answers at these addresses, where it is one service alone.
func (s *set) answered(names map[socket]string) {
	const several = "\x00"
	for _, t := range s.trees {
		for i := range t.Spans {
			served, ok := calls(t, i)
			if !ok || served < 0 {
				continue
			}
			at := socket{t.attr(i, askAddress), t.attr(i, askPort)}
			if old, asked := names[at]; asked && old != t.Spans[served].Service {
				if names[at] = several; old == "" {
					names[at] = t.Spans[served].Service
				}
			}
		}
	}
	for at, name := range names {
		if name == several {
			names[at] = ""
		}
	}
}
