package evidence

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// RouteStats is what the servers of a service told of the calls of one route in the window: of all calls, rather than of those that
// were traced.
type RouteStats struct {
	Service string        `json:"service"`
	Route   string        `json:"route"`            // as OpenTelemetry names the span: "GET /orders/{id}", "shop.Cart/Add"; "" = of no route
	Calls   float64       `json:"calls_per_second"` //
	Failed  float64       `json:"failed_share"`     // 0..1: status 5xx, or a gRPC code that is the server's fault
	P50     time.Duration `json:"p50_ns"`           // as all quantiles: the upper bound of the bucket, or the last bound that is finite
	P95     time.Duration `json:"p95_ns"`
	P99     time.Duration `json:"p99_ns"`
	Beyond  bool          `json:"p99_beyond,omitempty"` // P99 is the last finite bound, and the true one lies above it, nobody knows how far
	Source  string        `json:"source"`               // the query
}

// ServedFamily is how one library names the durations of the calls that a server answers.
type ServedFamily struct {
	Name   string  // of the histogram, without _bucket
	unit   float64 // seconds of one
	method []string
	route  []string
	status []string
}

// ServedFamilies in the order in which they count, where a service has several.
//
// Sources: OpenTelemetry semantic conventions for HTTP and RPC metrics, stable and 1.20; Micrometer; go-grpc-prometheus; what the
// client libraries' examples call it.
func ServedFamilies() []ServedFamily {
	http, oldHTTP := []string{"http_request_method"}, []string{"http_method"}
	rpc := []string{"rpc_service"}
	return []ServedFamily{
		{"http_server_request_duration_seconds", 1, http, []string{"http_route"}, []string{"http_response_status_code"}},
		{"http_server_duration_milliseconds", 1e-3, oldHTTP, []string{"http_route"}, []string{"http_status_code"}},
		{"http_server_requests_seconds", 1, []string{"method"}, []string{"uri"}, []string{"status"}},
		{"http_request_duration_seconds", 1, []string{"method"}, []string{"route", "handler", "path", "endpoint"}, []string{"status_code", "status", "code"}},
		{"rpc_server_call_duration_seconds", 1, rpc, []string{"rpc_method"}, []string{"rpc_response_status_code"}},
		{"rpc_server_duration_milliseconds", 1e-3, rpc, []string{"rpc_method"}, []string{"rpc_grpc_status_code"}},
		{"grpc_server_handling_seconds", 1, []string{"grpc_service"}, []string{"grpc_method"}, []string{"grpc_code"}},
	}
}

// Labels are those by which the buckets of the family have to be told apart, beside those of the service and "le".
func (f ServedFamily) Labels() []string { return slices.Concat(f.method, f.route, f.status) }

func oneOf(labels map[string]string, names []string) string {
	for _, n := range names {
		if v := labels[n]; v != "" {
			return v
		}
	}
	return ""
}

// title is the name of the route.
func (f ServedFamily) title(labels map[string]string) string {
	method, route := oneOf(labels, f.method), oneOf(labels, f.route)
	if strings.HasPrefix(f.Name, "http") {
		return strings.TrimSpace(method + " " + route)
	}
	return strings.Trim(method+"/"+route, "/")
}

// The codes of gRPC that are the server's fault, by OpenTelemetry's convention.
var serverFaults = set([]string{
	"2", "4", "12", "13", "14", "15", "Unknown", "DeadlineExceeded", "Unimplemented", "Internal", "Unavailable", "DataLoss",
	"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
})

func (f ServedFamily) failed(labels map[string]string) bool {
	status := oneOf(labels, f.status)
	if strings.HasPrefix(f.Name, "http") {
		return len(status) == 3 && status[0] == '5'
	}
	return serverFaults[status]
}

// served adds up the calls of one route.
type served struct {
	buckets       map[float64]float64 // cumulative ones of classic histograms, by their bounds
	native        map[float64]float64
	calls, failed float64
}

// Served says what the servers of each service did, from the growth of the family's buckets over window: series with "le" of classic
// histograms, or native ones. source is the query that gave them. Sorted by service and calls, most first.
func Served(list []Series, f ServedFamily, n SeriesNaming, window time.Duration, source string) []RouteStats {
	n = n.WithDefaults()
	found := map[[2]string]*served{}
	for _, s := range list {
		service, _ := n.service(s.Labels)
		if service == "" || len(s.Points) == 0 {
			continue
		}
		key := [2]string{service, f.title(s.Labels)}
		if found[key] == nil {
			found[key] = &served{buckets: map[float64]float64{}, native: map[float64]float64{}}
		}
		found[key].add(s, f.failed(s.Labels))
	}
	var out []RouteStats
	for key, x := range found {
		if x.calls <= 0 || window <= 0 {
			continue
		}
		r := RouteStats{Service: key[0], Route: key[1], Calls: x.calls / window.Seconds(), Failed: x.failed / x.calls, Source: source}
		r.P50, _ = x.quantile(0.5, f.unit)
		r.P95, _ = x.quantile(0.95, f.unit)
		r.P99, r.Beyond = x.quantile(0.99, f.unit)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b RouteStats) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), cmp.Compare(b.Calls, a.Calls), strings.Compare(a.Route, b.Route))
	})
	return out
}

func (x *served) add(s Series, failed bool) {
	last := s.Points[len(s.Points)-1]
	if last.Value < 0 {
		return // no growth of a counter
	}
	calls := 0.0
	switch le, ok := s.Labels["le"]; {
	case ok:
		bound, err := bound64(le)
		if err != nil {
			return
		}
		x.buckets[bound] += last.Value
		if math.IsInf(bound, 1) {
			calls = last.Value
		}
	case last.Buckets != nil:
		for _, b := range last.Buckets {
			x.native[b.Upper] += b.Count
		}
		calls = last.Value
	}
	x.calls += calls
	if failed {
		x.failed += calls
	}
}

// quantile is the upper bound of the bucket in which q lies; beyond = that is infinite, and it is the one before.
func (x *served) quantile(q, unit float64) (upper time.Duration, beyond bool) {
	cumulative := x.buckets
	if len(x.native) > 0 {
		cumulative = map[float64]float64{}
		sum := 0.0
		for _, upper := range slices.Sorted(maps.Keys(x.native)) {
			sum += x.native[upper]
			cumulative[upper] = sum
		}
	}
	bound, beyond := bucketQuantile(cumulative, q, x.calls)
	return atMost(max(bound, 0) * unit), beyond
}

// Route finds what the servers of a service told of the calls that its spans name operation; nil = they told nothing of it.
func (f *Facts) Route(service, operation string) *RouteStats {
	for i := range f.Routes {
		r := &f.Routes[i]
		if r.Service != service || r.Route == "" || operation == "" {
			continue
		}
		// A span may be named by its route alone, and so may a metric that does not tell the method.
		_, path, _ := strings.Cut(r.Route, " ")
		if r.Route == operation || path == operation || strings.HasSuffix(operation, " "+r.Route) {
			return r
		}
	}
	return nil
}
