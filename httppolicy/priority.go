package httppolicy

import (
	"net/http"

	"github.com/longpole/longpole/call"
)

// HeaderPriority carries the priority of a call, and the cohort of its caller, to the next hop: "critical;cohort=17". The
// gateway writes it, and lets no client write it that is not trusted. Over gRPC it is metadata of the same name.
const HeaderPriority = "X-Request-Priority"

// Priority reads what the sender of h says about a call; ok is false when it says nothing that can be read.
func Priority(h http.Header) (p call.Priority, cohort uint8, ok bool) {
	v := h[HeaderPriority]
	if len(v) == 0 {
		return call.Normal, 0, false
	}
	p, cohort, _, ok = call.ParseTier(v[0])
	return p, cohort, ok
}

// SetPriority writes it in place of what h says.
func SetPriority(h http.Header, p call.Priority, cohort uint8) {
	h[HeaderPriority] = []string{call.FormatTier(p, cohort)}
}

// Forwarded is Info with the priority that the sender gives: for HandlerOptions.Info of a server that only the gateway,
// or others who may choose it, can reach.
func Forwarded(r *http.Request) call.Info {
	info := Info(r)
	if p, cohort, ok := Priority(r.Header); ok {
		info.Priority, info.Cohort = p, cohort
	}
	return info
}
