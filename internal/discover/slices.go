package discover

import (
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
)

// The parts of discovery.k8s.io/v1 that matter here.
type (
	sliceList struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Continue        string `json:"continue"`
		} `json:"metadata"`
		Items []endpointSlice `json:"items"`
	}
	endpointSlice struct {
		Metadata struct {
			Name            string `json:"name"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		AddressType string          `json:"addressType"`
		Endpoints   []sliceEndpoint `json:"endpoints"`
		Ports       []slicePort     `json:"ports"`
	}
	sliceEndpoint struct {
		Addresses  []string `json:"addresses"`
		Conditions struct {
			Ready       *bool `json:"ready"` // nil = true
			Serving     *bool `json:"serving"`
			Terminating *bool `json:"terminating"`
		} `json:"conditions"`
		Zone string `json:"zone"`
	}
	slicePort struct {
		Name string `json:"name"`
		Port int    `json:"port"`
	}
	watchEvent struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	apiStatus struct {
		Code    int    `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
)

// maxSlices bounds what is kept of one Service; each has at most 1000 endpoints.
const maxSlices = 1000

// view is the slices of one Service as far as they are known.
type view struct {
	cfg     Kubernetes
	slices  map[string]endpointSlice
	version string // resourceVersion from which a watch goes on
}

// replace takes a full list.
func (v *view) replace(list []endpointSlice, version string) {
	v.slices = make(map[string]endpointSlice, len(list))
	for _, s := range list {
		v.put(s)
	}
	v.version = version
}

func (v *view) put(s endpointSlice) {
	if _, known := v.slices[s.Metadata.Name]; known || len(v.slices) < maxSlices {
		v.slices[s.Metadata.Name] = s
	}
}

// errGone says that a watch cannot go on, because its version is no longer known (410).
var errGone = errorf("the resource version is too old")

// apply takes one event of a watch. changed tells whether the slices are other ones now.
func (v *view) apply(e watchEvent) (changed bool, err error) {
	switch e.Type {
	case "ADDED", "MODIFIED", "DELETED", "BOOKMARK":
	case "ERROR":
		var s apiStatus
		if err := json.Unmarshal(e.Object, &s); err != nil {
			return false, errorf("an error that cannot be read: %w", err)
		}
		return false, statusError(s)
	default:
		return false, nil // of a later version of the API
	}
	var s endpointSlice
	if err := json.Unmarshal(e.Object, &s); err != nil {
		return false, errorf("an EndpointSlice that cannot be read: %w", err)
	}
	switch {
	case e.Type == "DELETED":
		delete(v.slices, s.Metadata.Name)
	case e.Type != "BOOKMARK":
		v.put(s)
	}
	if s.Metadata.ResourceVersion != "" {
		v.version = s.Metadata.ResourceVersion
	}
	return e.Type != "BOOKMARK", nil
}

func statusError(s apiStatus) error {
	if s.Code == 410 || s.Reason == "Expired" || s.Reason == "Gone" {
		return errGone
	}
	return errorf("the API server answers %d: %s", s.Code, s.Message)
}

// endpoints is the set: what is ready; if nothing is, what still serves while it terminates, so that the last moments of a
// deployment are not outages (KEP-1669). The pods of a Service with two families stand in slices of both: IPv4 goes first.
func (v *view) endpoints() []Endpoint {
	var last []Endpoint
	for _, family := range []string{"IPv4", "IPv6", "FQDN"} {
		ready, leaving := v.family(family)
		if len(ready) > 0 {
			return ready
		}
		if len(last) == 0 {
			last = leaving
		}
	}
	return last
}

func (v *view) family(name string) (ready, leaving []Endpoint) {
	for _, s := range v.slices {
		port := v.port(s.Ports)
		if s.AddressType != name || port == 0 {
			continue
		}
		for _, e := range s.Endpoints {
			one, ok := v.endpoint(e, port)
			if !ok {
				continue
			}
			is := func(b *bool, unknown bool) bool { return b != nil && *b || b == nil && unknown }
			switch c := e.Conditions; {
			case is(c.Ready, true) && !is(c.Terminating, false):
				ready = append(ready, one)
			case is(c.Serving, false) && is(c.Terminating, false):
				leaving = append(leaving, one)
			}
		}
	}
	return ready, leaving
}

// endpoint takes the first of the addresses: they are alike, and the API says to.
func (v *view) endpoint(e sliceEndpoint, port int) (Endpoint, bool) {
	if len(e.Addresses) == 0 || strings.ContainsAny(e.Addresses[0], "/?#@[]% ") {
		return Endpoint{}, false
	}
	one := Endpoint{URL: v.cfg.Scheme + "://" + net.JoinHostPort(e.Addresses[0], strconv.Itoa(port)), Weight: 1, Zone: e.Zone}
	return one, one.Validate() == nil
}

// port is the number of the port that is wanted; 0 = there is none.
func (v *view) port(list []slicePort) int {
	i := slices.IndexFunc(list, func(p slicePort) bool {
		return p.Port > 0 && p.Port < 1<<16 && (v.cfg.Port == "" || v.cfg.Port == p.Name || v.cfg.Port == strconv.Itoa(p.Port))
	})
	if i < 0 {
		return 0
	}
	return list[i].Port
}
