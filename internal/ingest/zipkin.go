package ingest

import (
	"bytes"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// A zipkinSpan is a span as Zipkin reports it: maybe one half of a call that client
// and server report under the same ID, maybe one of several reports that complete each other.
type zipkinSpan struct {
	span    trace.Span
	length  int64
	shared  bool
	untimed bool // no timestamp: it only completes another report
	bad     bool
	server  bool // became a span of its own, below its client half
}

// readMicros reads microseconds, whole or with a fraction, as nanoseconds.
func readMicros(kind byte, t []byte) (ns int64, ok bool) {
	if kind != isNumber && kind != isText {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(t), 10, 64); err == nil {
		return micros(n)
	}
	f, err := strconv.ParseFloat(string(t), 64)
	if err != nil || !(f > -9e15 && f < 9e15) {
		return 0, false
	}
	return int64(f * 1000), true
}

// zipkinMember takes one member of an object that may be a Zipkin span. Its attributes
// are those in pool since m.
func (j *document) zipkinMember(z *zipkinSpan, m mark, key []byte) {
	s := j.scan
	switch string(key) {
	case "traceId":
		z.span.TraceID = j.idText()
	case "id":
		z.span.ID = j.idText()
	case "parentId":
		z.span.Parent = j.idText()
	case "name":
		_, t := s.scalar()
		z.span.Name = j.text(t)
	case "kind":
		_, t := s.scalar()
		z.span.Kind = trace.ParseKind(string(bytes.ToLower(t)))
	case "timestamp":
		z.span.Start = j.zipkinTime(z)
	case "duration":
		z.length = j.zipkinTime(z)
	case "shared":
		_, t := s.scalar()
		z.shared = string(t) == "true"
	case "localEndpoint":
		service, host, _ := j.zipkinEndpoint()
		z.span.Service, z.span.Host = service, host
	case "remoteEndpoint":
		service, host, port := j.zipkinEndpoint()
		j.zipkinPeer(m, "peer.service", service)
		j.zipkinPeer(m, "net.peer.ip", host)
		j.zipkinPeer(m, "net.peer.port", port)
	case "tags":
		j.zipkinTags(z, m)
	default:
		s.skip()
	}
}

func (d *decoder) zipkinPeer(m mark, key, value string) {
	if value != "" {
		d.attributeNamed(m.pool, key, []byte(value))
	}
}

func (j *document) zipkinTime(z *zipkinSpan) int64 {
	kind, t := j.scan.scalar()
	if kind == isNone {
		return 0
	}
	ns, ok := readMicros(kind, t)
	if !ok || ns < 0 {
		z.bad = true
	}
	return ns
}

func (j *document) zipkinEndpoint() (service, host, port string) {
	if j.scan.token() != '{' {
		j.scan.scalar()
		return "", "", ""
	}
	j.scan.object(func(key []byte) {
		switch string(key) {
		case "serviceName":
			_, t := j.scan.scalar()
			service = j.text(t)
		case "ipv4":
			_, t := j.scan.scalar()
			host = j.text(t)
		case "ipv6":
			if _, t := j.scan.scalar(); host == "" {
				host = j.text(t)
			}
		case "port":
			_, t := j.scan.scalar()
			port = j.text(t)
		default:
			j.scan.skip()
		}
	})
	return service, host, port
}

func (j *document) zipkinTags(z *zipkinSpan, m mark) {
	if j.scan.token() != '{' {
		j.scan.skip()
		return
	}
	j.scan.object(func(key []byte) {
		name := j.text(key)
		kind, t := j.scan.scalar()
		if kind == isNone {
			return
		}
		if name == "error" {
			z.span.Failed = string(t) != "false"
		}
		j.attributeNamed(m.pool, name, t)
	})
}

// zipkinID is what several reports may have in common.
type zipkinID struct{ trace, span string }

// untangle turns reports into spans, in place.
//
// Reports without a timestamp complete a timed one of the same ID and service with
// their tags; where there is none they stay untimed, which counts as invalid. A missing
// duration is taken as zero. Where client and server share an ID, each server half
// becomes a span of its own with the ID "ID/server" ("ID/server2" and so on for
// further ones), the client half its parent; children that the server's service
// reports under the shared ID become children of the server half.
func untangle(spans []zipkinSpan) []zipkinSpan {
	reports := make(map[zipkinID][]int, len(spans))
	for i := range spans {
		z := &spans[i]
		z.span.Service = orUnknown(z.span.Service)
		z.untimed = z.span.Start == 0
		end, ok := plus(z.span.Start, z.length)
		z.span.End = end
		z.bad = z.bad || !ok && z.length != 0
		id := zipkinID{z.span.TraceID, z.span.ID}
		reports[id] = append(reports[id], i)
	}
	complete(spans, reports)
	servers := split(spans, reports)
	if len(servers) == 0 {
		return remaining(spans)
	}
	for i := range spans {
		z := &spans[i]
		id := zipkinID{z.span.TraceID, z.span.Parent}
		if halves := servers[id]; len(halves) > 0 && !z.server && z.span.ID != id.span {
			if half := serverOf(spans, z, reports[id], halves); half >= 0 {
				z.span.Parent = spans[half].span.ID
			}
		}
	}
	return remaining(spans)
}

func orUnknown(service string) string {
	if service == "" {
		return noService
	}
	return service
}

// complete gives the tags of untimed reports to a timed one and blanks their IDs.
func complete(spans []zipkinSpan, reports map[zipkinID][]int) {
	for i := range spans {
		late := &spans[i]
		if !late.untimed {
			continue
		}
		for _, k := range reports[zipkinID{late.span.TraceID, late.span.ID}] {
			z := &spans[k]
			if z.untimed || z.span.Service != late.span.Service {
				continue
			}
			for _, a := range late.span.Attributes {
				if len(z.span.Attributes) < maxAttributes && find(z.span.Attributes, a.Key) == "" {
					z.span.Attributes = append(z.span.Attributes, a)
				}
			}
			z.span.Failed = z.span.Failed || late.span.Failed
			late.span.ID, late.span.TraceID = "", ""
			break
		}
	}
}

// remaining drops the reports that complete took in.
func remaining(spans []zipkinSpan) []zipkinSpan {
	kept := spans[:0]
	for _, z := range spans {
		if !z.untimed || z.span.ID != "" || z.span.TraceID != "" {
			kept = append(kept, z)
		}
	}
	return kept
}

// split gives the server halves of shared spans their own IDs and returns their
// places by the shared ID.
func split(spans []zipkinSpan, reports map[zipkinID][]int) map[zipkinID][]int {
	servers := make(map[zipkinID][]int)
	for id, places := range reports {
		client := -1
		for _, i := range places {
			z := &spans[i]
			if !z.shared && !z.untimed && z.span.Kind != trace.Server && z.span.Kind != trace.Consumer {
				client = i
				break
			}
		}
		if client < 0 {
			continue // the other half was not reported: the ID is free
		}
		for _, i := range places {
			z := &spans[i]
			if i == client || z.untimed || !z.shared && z.span.Kind != trace.Server {
				continue
			}
			z.span.ID = id.span + "/server"
			if n := len(servers[id]); n > 0 {
				z.span.ID += strconv.Itoa(n + 1)
			}
			z.span.Parent, z.server = id.span, true
			servers[id] = append(servers[id], i)
		}
	}
	return servers
}

// serverOf returns which of the server halves z is a child of; -1 when it is a child of the client half.
func serverOf(spans []zipkinSpan, z *zipkinSpan, reports, halves []int) int {
	best := -1
	for _, i := range halves {
		s := &spans[i].span
		if s.Service != z.span.Service {
			continue
		}
		if best < 0 || s.Host == z.span.Host && spans[best].span.Host != z.span.Host {
			best = i
		}
	}
	if best >= 0 {
		return best
	}
	for _, i := range reports {
		if spans[i].span.Service == z.span.Service {
			return -1
		}
	}
	return halves[0] // a call of the server's that only its own callee reported
}
