package staging

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Mix is a distribution over names: shares that add up to 1. nil = not measured.
type Mix map[string]float64

// Workload is what a gateway does for whom: the profile that two environments are compared by. All of it is measured
// since the gateway began, but Arrivals.
type Workload struct {
	Environment string               `json:"environment,omitempty"`
	At          time.Time            `json:"at"`
	Version     string               `json:"version"` // of the program
	Calls       uint64               `json:"calls"`
	Arrivals    Arrivals             `json:"arrivals"`
	Routes      map[string]RouteLoad `json:"routes"`
	Segments    map[string]Latency   `json:"segments,omitempty"` // milliseconds on the critical path, by "segment service operation"
	Endpoints   map[string]int       `json:"endpoints"`          // by upstream
	Edges       []string             `json:"edges"`              // "from > to": routes to upstreams, segments to what they call
	Settings    map[string]string    `json:"settings"`           // pools, limits and timeouts outside of policies, by dotted path
	Cut         int                  `json:"cut,omitempty"`      // routes and segments that had no room
}

// RouteLoad is that of one route.
type RouteLoad struct {
	Calls          uint64             `json:"calls"`
	Latency        Latency            `json:"latency_ms"`
	FailedRatio    float64            `json:"failed_ratio"`
	RequestBytes   Mix                `json:"request_bytes,omitempty"` // by upper bound, powers of four
	ResponseBytes  Mix                `json:"response_bytes,omitempty"`
	FanOut         map[string]float64 `json:"fan_out"` // calls per call of what is behind, by its name; "" = attempts
	CacheHitRatio  float64            `json:"cache_hit_ratio"`
	RetriesPerCall float64            `json:"retries_per_call"`
	Settings       map[string]string  `json:"settings"` // of its policy, by dotted path
}

// The bounds of a Workload.
const (
	MaxRoutes   = 1000
	MaxSegments = 1000
)

// Sizes is a distribution of sizes in classes a factor of four wide. total is the number of all.
func Sizes(buckets func(yield func(upper float64, n uint64) bool), total uint64) Mix {
	if total == 0 {
		return nil
	}
	m := Mix{}
	for upper, n := range buckets {
		bound := int64(0)
		if upper >= 1 {
			bound = int64(math.Pow(4, math.Ceil(math.Log(upper)/math.Log(4))))
		}
		m[fmt.Sprint(bound)] += float64(n) / float64(total)
	}
	return m
}

// LatencyOf reads the three percentiles.
func LatencyOf(s stats.Snapshot) Latency {
	ms := func(q float64) float64 { return float64(s.Quantile(q)) / float64(time.Millisecond) }
	return Latency{P50: ms(0.5), P95: ms(0.95), P99: ms(0.99)}
}

// Settings takes a JSON document apart into its leaves by dotted path. What is no JSON gives none.
func Settings(document []byte) map[string]string {
	var v any
	flat := map[string]string{}
	if json.Unmarshal(document, &v) == nil {
		flatten("", v, flat)
	}
	return flat
}

func flatten(path string, v any, into map[string]string) {
	join := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	switch v := v.(type) {
	case map[string]any:
		for name, part := range v {
			flatten(join(name), part, into)
		}
	case []any:
		for i, part := range v {
			flatten(fmt.Sprintf("%s[%d]", path, i), part, into)
		}
	case nil:
	default:
		into[path] = fmt.Sprint(v)
	}
}

// mix is how the calls divide between routes.
func (w *Workload) mix() Mix {
	if w.Calls == 0 {
		return nil
	}
	all := 0.0
	for _, r := range w.Routes {
		all += float64(r.Calls)
	}
	m := Mix{}
	for name, r := range w.Routes {
		m[name] = float64(r.Calls) / max(all, 1)
	}
	return m
}

// JensenShannon is the distance of two distributions: 0 = equal, 1 = nothing in common.
//
// Source: Lin 1991, with logarithms to base 2.
func JensenShannon(a, b Mix) float64 {
	half := func(p, other Mix) (sum float64) {
		for _, name := range sorted(p) {
			if x := p[name]; x > 0 {
				sum += x * math.Log2(2*x/(x+other[name]))
			}
		}
		return sum / 2
	}
	return min(max(half(a, b)+half(b, a), 0), 1)
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
