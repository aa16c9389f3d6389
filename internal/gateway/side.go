package gateway

import (
	"time"

	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/payload"
)

// side is what a route has beside its policy. All of it may be nil but the faults.
type side struct {
	payload *payload.Policy
	mirror  *mirror
	faults  *faults
}

// calm reports that no fault runs; a route inside of another one has none of its own.
func (s *side) calm() bool { return s.faults == nil || s.faults.Idle() }

// keepSide compiles it, and carries over what the route of the same name had.
func keepSide(g *Gateway, old *route, r Route, upstreams map[string]*upstream) side {
	s := side{payload: keepPayload(old, r.Payload), mirror: keepMirror(g, old, r.Mirror, upstreams), faults: new(faults)}
	if old != nil && old.side.faults != nil {
		s.faults = old.side.faults
	}
	return s
}

// recommit puts in force what a reload says of recording and of faults.
func (g *Gateway) recommit(next *table) {
	g.recorder.configure(next.cfg.Record)
	for _, r := range next.routes {
		if err := r.side.faults.refile(time.Now(), r.cfg.Faults); err != nil {
			g.options.Log.Error("a fault was not started", "route", r.cfg.Name, "error", err)
		}
	}
}

// SideStatus is what a route does beside its policy. It is a copy.
type SideStatus struct {
	RequestBytes  SizeQuantiles     `json:"request_bytes"`     // of bodies, since the route began
	ResponseBytes SizeQuantiles     `json:"response_bytes"`    // as they were sent, encoded or not
	Payload       *payload.Counters `json:"payload,omitempty"` // nil = answers are not encoded
	Mirror        *MirrorStatus     `json:"mirror,omitempty"`  // nil = there is none
	Faults        []fault.Status    `json:"faults,omitempty"`  // that run now; Gateway.Faults has the ended ones too

	RequestSizes  payload.SizeSnapshot `json:"-"` // cumulative
	ResponseSizes payload.SizeSnapshot `json:"-"` // cumulative
}

// SizeQuantiles are of bodies, in bytes; all 0 without calls. A request of unknown length counts with what is known of
// it, which may be 0.
type SizeQuantiles struct {
	P50 int64 `json:"p50"`
	P95 int64 `json:"p95"`
	P99 int64 `json:"p99"`
}

func sizeQuantiles(s payload.SizeSnapshot) SizeQuantiles {
	return SizeQuantiles{P50: s.Quantile(0.5), P95: s.Quantile(0.95), P99: s.Quantile(0.99)}
}

func (r *route) sideStatus(now time.Time) SideStatus {
	f := r.live.figures
	s := SideStatus{RequestSizes: f.requestBytes.Snapshot(), ResponseSizes: f.responseBytes.Snapshot(), Mirror: r.side.mirror.status()}
	s.RequestBytes, s.ResponseBytes = sizeQuantiles(s.RequestSizes), sizeQuantiles(s.ResponseSizes)
	if p := r.side.payload; p != nil && p.Config().Compress != nil {
		c := p.Counters()
		s.Payload = &c
	}
	if r.side.calm() {
		return s
	}
	for _, one := range r.side.faults.List(now) {
		if one.Running() {
			one.Route = r.cfg.Name
			s.Faults = append(s.Faults, one)
		}
	}
	return s
}
