package web

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	sourceUpDesc       = prometheus.NewDesc("longpole_evidence_source_up", "1 when the last look at a system behind the services went well; 0 = the diagnosis goes on without it, or with a part of it.", []string{"kind", "source"}, nil)
	sourceLooksDesc    = prometheus.NewDesc("longpole_evidence_looks_total", "Looks at a system behind the services.", []string{"kind", "source"}, nil)
	sourceRefusedDesc  = prometheus.NewDesc("longpole_evidence_looks_refused_total", "Looks that were not made, to keep the budget or to leave an overloaded system alone.", []string{"kind", "source"}, nil)
	sourceOverloadDesc = prometheus.NewDesc("longpole_evidence_overloads_total", "Looks that showed an overloaded system.", []string{"kind", "source"}, nil)
)

// evidence is how the systems fare that are looked at for the diagnosis.
func (s series) evidence(l Live) {
	if l.Sources == nil {
		return
	}
	seen := map[[2]string]bool{}
	for _, x := range l.Sources() {
		if key := [2]string{x.Kind, x.Name}; seen[key] {
			continue // the configuration names it twice
		} else {
			seen[key] = true
		}
		up := 0.0
		if x.Fault == "" && !x.At.IsZero() {
			up = 1
		}
		s.gauge(sourceUpDesc, up, x.Kind, x.Name)
		s.counter(sourceLooksDesc, x.Spent.Looks, x.Kind, x.Name)
		s.counter(sourceRefusedDesc, x.Spent.Refused, x.Kind, x.Name)
		s.counter(sourceOverloadDesc, x.Spent.Overloads, x.Kind, x.Name)
	}
}

// readySources names the sources of evidence. One that fails makes nothing unready; why it does, /api/v1/evidence says to
// those who may know.
func (l Live) readySources(w io.Writer) {
	if l.Sources == nil {
		return
	}
	for _, x := range l.Sources() {
		state := "read"
		switch {
		case x.Fault != "":
			state = "degraded"
		case x.At.IsZero():
			state = "not yet read"
		}
		fmt.Fprintf(w, "[+] evidence from %s %s: %s\n", x.Kind, x.Name, state)
	}
}
