package diagnose

import (
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// Critical is how long a root waited for one place on its critical path.
type Critical struct {
	Segment trace.Segment
	Service string
	// Endpoint is the address or instance that did the work, as far as it is known: what a call names as its far end, else
	// the host of the span. "" = unknown.
	Endpoint string
	Time     time.Duration
}

// Critical adds up the critical path of the trace below root by place, in the order in which the path first comes to each.
// The times add up to the root's duration.
func (t *Tree) Critical(root int) []Critical {
	var all []Critical
	for _, s := range t.Path(root) {
		at := locate(t, s.Span)
		c := Critical{Segment: at.segment, Service: at.service, Endpoint: t.endpoint(s.Span)}
		known := false
		for i := range all {
			if known = all[i].Segment == c.Segment && all[i].Service == c.Service && all[i].Endpoint == c.Endpoint; known {
				all[i].Time += time.Duration(s.End - s.Start)
				break
			}
		}
		if !known {
			c.Time = time.Duration(s.End - s.Start)
			all = append(all, c)
		}
	}
	return all
}

// endpoint is where the work of span i was done.
func (t *Tree) endpoint(i int) string {
	s := &t.Spans[i]
	if s.Kind == trace.Client {
		if name := t.attr(i, askEndpoint); name != "" {
			return name
		}
		if address := t.attr(i, askAddress); address != "" {
			if port := t.attr(i, askPort); port != "" {
				return address + ":" + port
			}
			return address
		}
	}
	return s.Host
}
