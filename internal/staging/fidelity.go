package staging

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Score says how much staging resembles production.
type Score struct {
	Value      float64    `json:"value"`                // 0..100
	Weak       bool       `json:"weak"`                 // below the least that is asked for
	Mismatches []Mismatch `json:"mismatches"`           // what costs the most first; never nil
	Unmeasured []string   `json:"unmeasured,omitempty"` // aspects that neither of the two could tell, and that do not count
}

// Mismatch is one aspect in which the two differ.
type Mismatch struct {
	Aspect     string  `json:"aspect"`
	Of         string  `json:"of,omitempty"` // route, segment or setting that differs the most
	Weight     float64 `json:"weight"`       // of the aspect
	Distance   float64 `json:"distance"`     // 0 = alike, 1 = nothing in common
	Points     float64 `json:"points"`       // that it costs of the 100
	Staging    string  `json:"staging"`
	Production string  `json:"production"`
}

// difference is one aspect compared.
type difference struct {
	distance            float64
	of                  string
	staging, production string
}

// aspect is one row of the table of Fidelity. compare reports false when neither side was measured.
type aspect struct {
	name    string
	weight  float64
	compare func(s, p *Workload) (difference, bool)
}

// aspects and their weights. What shapes a tail weighs most: which calls come, how they come, and what they wait for.
func aspects() []aspect {
	return []aspect{
		{"route mix", 20, routeMix},
		{"segment latency", 15, segmentLatency},
		{"arrival rate", 10, func(s, p *Workload) (difference, bool) {
			return ratio(s.Arrivals.PerSecond, p.Arrivals.PerSecond, 10, " calls/s")
		}},
		{"fan-out", 10, fanOut},
		{"payload sizes", 10, payloads},
		{"cache hit ratio", 8, perRoute(func(r RouteLoad) float64 { return r.CacheHitRatio }, 0.5)},
		{"settings", 8, settings},
		{"topology", 7, topology},
		{"arrival bursts", 5, func(s, p *Workload) (difference, bool) {
			return ratio(s.Arrivals.Dispersion, p.Arrivals.Dispersion, 10, " (index of dispersion)")
		}},
		{"peak to mean", 5, func(s, p *Workload) (difference, bool) {
			return ratio(s.Arrivals.PeakToMean, p.Arrivals.PeakToMean, 4, " (peak / mean)")
		}},
		{"instances", 5, instances},
		{"retries", 4, perRoute(func(r RouteLoad) float64 { return r.RetriesPerCall }, 0.1)},
		{"version", 3, func(s, p *Workload) (difference, bool) {
			return difference{distance: flag(s.Version != p.Version), staging: s.Version, production: p.Version}, s.Version != "" || p.Version != ""
		}},
	}
}

// worthTelling is the distance from which an aspect is listed.
const worthTelling = 0.05

// Fidelity compares the workload of staging with that of production. least is the value below which it is weak. An aspect
// that only one of the two could measure is a mismatch; one that neither could does not count.
func Fidelity(staging, production Workload, least float64) Score {
	score := Score{Mismatches: []Mismatch{}}
	weights, lost := 0.0, 0.0
	for _, a := range aspects() {
		d, known := a.compare(&staging, &production)
		if !known {
			score.Unmeasured = append(score.Unmeasured, a.name)
			continue
		}
		weights += a.weight
		lost += a.weight * d.distance
		if d.distance >= worthTelling {
			score.Mismatches = append(score.Mismatches, Mismatch{
				Aspect: a.name, Of: d.of, Weight: a.weight, Distance: d.distance, Staging: d.staging, Production: d.production,
			})
		}
	}
	if weights > 0 {
		score.Value = 100 * (1 - lost/weights)
	}
	for i := range score.Mismatches {
		m := &score.Mismatches[i]
		m.Points = 100 * m.Weight * m.Distance / weights
	}
	slices.SortStableFunc(score.Mismatches, func(a, b Mismatch) int { return cmp.Compare(b.Points, a.Points) })
	score.Weak = score.Value < least
	return score
}

// String is the score in one line, with what costs the most.
func (s Score) String() string {
	text := fmt.Sprintf("fidelity %.0f of 100", s.Value)
	if s.Weak {
		text += " (weak)"
	}
	var worst []string
	for _, m := range s.Mismatches[:min(3, len(s.Mismatches))] {
		worst = append(worst, fmt.Sprintf("%s %s against %s", strings.TrimSpace(m.Aspect+" "+m.Of), m.Staging, m.Production))
	}
	if len(worst) > 0 {
		text += ": " + strings.Join(worst, "; ")
	}
	return text
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// ratio is the distance of two positive numbers, 1 from a factor of far on. Not measured is 0.
func ratio(s, p, far float64, unit string) (difference, bool) {
	d := difference{staging: number(s) + unit, production: number(p) + unit}
	if s <= 0 && p <= 0 {
		return d, false
	}
	d.distance = factor(s, p, far)
	return d, true
}

func factor(s, p, far float64) float64 {
	if s <= 0 || p <= 0 {
		return flag(s > 0 || p > 0)
	}
	return min(math.Abs(math.Log(s/p))/math.Log(far), 1)
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }

func routeMix(s, p *Workload) (difference, bool) {
	a, b := s.mix(), p.mix()
	if a == nil && b == nil {
		return difference{}, false
	}
	of, apart := "", -1.0
	for _, name := range union(a, b) {
		if gap := math.Abs(a[name] - b[name]); gap > apart {
			of, apart = name, gap
		}
	}
	d := difference{of: of, staging: share(a[of]), production: share(b[of]), distance: 1}
	if a != nil && b != nil {
		d.distance = math.Sqrt(JensenShannon(a, b)) // the root is a metric, and small differences show
	}
	return d, true
}

func share(x float64) string { return number(100*x) + " %" }

// union is the names of both, in order.
func union[A, B any](a map[string]A, b map[string]B) []string {
	all := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// weighed is the mean distance over what is compared by name, with the weights given, and the worst of them.
func weighed(names []string, one func(name string) (d difference, weight float64)) (difference, bool) {
	var worst difference
	sum, weights, most := 0.0, 0.0, -1.0
	for _, name := range names {
		d, w := one(name)
		if w <= 0 {
			continue
		}
		sum, weights = sum+w*d.distance, weights+w
		if cost := w * d.distance; cost > most {
			most, worst = cost, d
			if worst.of == "" {
				worst.of = name
			}
		}
	}
	if weights == 0 {
		return difference{}, false
	}
	worst.distance = sum / weights
	return worst, true
}

// onRoutes compares route by route, those that both have, by their share of production's calls.
func onRoutes(one func(s, p RouteLoad) (difference, bool)) func(s, p *Workload) (difference, bool) {
	return func(s, p *Workload) (difference, bool) {
		mix := p.mix()
		return weighed(union(s.Routes, p.Routes), func(name string) (difference, float64) {
			a, inStaging := s.Routes[name]
			b, inProduction := p.Routes[name]
			if !inStaging || !inProduction || b.Calls == 0 {
				return difference{}, 0 // the route mix tells of it
			}
			d, known := one(a, b)
			if !known {
				return d, 0
			}
			return d, mix[name]
		})
	}
}

// perRoute compares a ratio of each route; the distance is 1 from a difference of far on.
func perRoute(of func(RouteLoad) float64, far float64) func(s, p *Workload) (difference, bool) {
	return onRoutes(func(s, p RouteLoad) (difference, bool) {
		a, b := of(s), of(p)
		return difference{distance: min(math.Abs(a-b)/far, 1), staging: share(a), production: share(b)}, true
	})
}

func payloads(s, p *Workload) (difference, bool) {
	return onRoutes(func(s, p RouteLoad) (difference, bool) {
		in, inKnown := sizes(s.RequestBytes, p.RequestBytes)
		out, outKnown := sizes(s.ResponseBytes, p.ResponseBytes)
		if in.distance > out.distance {
			in, out = out, in
		}
		out.distance = (in.distance + out.distance) / 2
		return out, inKnown || outKnown
	})(s, p)
}

func sizes(s, p Mix) (difference, bool) {
	d := difference{staging: typical(s), production: typical(p)}
	if s == nil && p == nil {
		return d, false
	}
	d.distance = 1
	if s != nil && p != nil {
		d.distance = math.Sqrt(JensenShannon(s, p))
	}
	return d, true
}

// typical is the class of sizes that most bodies are of.
func typical(m Mix) string {
	best := ""
	for _, bound := range sorted(m) {
		if best == "" || m[bound] > m[best] {
			best = bound
		}
	}
	if best == "" {
		return "not measured"
	}
	return fmt.Sprintf("%s up to %s bytes", share(m[best]), best)
}

func fanOut(s, p *Workload) (difference, bool) {
	return onRoutes(func(s, p RouteLoad) (difference, bool) {
		return weighed(union(s.FanOut, p.FanOut), func(name string) (difference, float64) {
			a, b := s.FanOut[name], p.FanOut[name]
			of := name
			if name == "" {
				of = "attempts"
			}
			return difference{of: of, distance: factor(a, b, 4), staging: number(a) + " per call", production: number(b) + " per call"}, max(a, b)
		})
	})(s, p)
}

// segmentLatency compares p50 and p99 of what is on the critical paths of both, by production's p99.
func segmentLatency(s, p *Workload) (difference, bool) {
	if len(s.Segments) == 0 && len(p.Segments) == 0 {
		return routeLatency(s, p)
	}
	return weighed(union(s.Segments, p.Segments), func(name string) (difference, float64) {
		a, b := s.Segments[name], p.Segments[name]
		return latencies(a, b), max(a.P99, b.P99)
	})
}

// routeLatency stands in for it where no traces came.
func routeLatency(s, p *Workload) (difference, bool) {
	return onRoutes(func(s, p RouteLoad) (difference, bool) {
		return latencies(s.Latency, p.Latency), s.Latency.P99 > 0 || p.Latency.P99 > 0
	})(s, p)
}

func latencies(s, p Latency) difference {
	return difference{
		distance:   (factor(s.P50, p.P50, 4) + factor(s.P99, p.P99, 4)) / 2,
		staging:    fmt.Sprintf("p50 %s, p99 %s ms", number(s.P50), number(s.P99)),
		production: fmt.Sprintf("p50 %s, p99 %s ms", number(p.P50), number(p.P99)),
	}
}

func instances(s, p *Workload) (difference, bool) {
	return weighed(union(s.Endpoints, p.Endpoints), func(name string) (difference, float64) {
		a, b := s.Endpoints[name], p.Endpoints[name]
		return difference{distance: factor(float64(a), float64(b), 4), staging: strconv.Itoa(a), production: strconv.Itoa(b)}, 1
	})
}

// topology is the share of the edges that both have, of all.
func topology(s, p *Workload) (difference, bool) {
	a, b := setOf(s.Edges), setOf(p.Edges)
	all := union(a, b)
	if len(all) == 0 {
		return difference{}, false
	}
	d := difference{staging: fmt.Sprintf("%d edges", len(a)), production: fmt.Sprintf("%d edges", len(b))}
	missing := 0
	for _, e := range all {
		if a[e] != b[e] {
			if missing++; missing == 1 {
				d.of = e
			}
		}
	}
	d.distance = float64(missing) / float64(len(all))
	return d, true
}

func setOf(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, one := range list {
		m[one] = true
	}
	return m
}

// settings is the share of the settings that differ; from a quarter on nothing is alike.
func settings(s, p *Workload) (difference, bool) {
	all, drift := 0, Drift(*s, *p)
	for _, name := range union(s.Routes, p.Routes) {
		all += len(union(s.Routes[name].Settings, p.Routes[name].Settings))
	}
	all += len(union(s.Settings, p.Settings))
	if all == 0 {
		return difference{}, false
	}
	d := difference{distance: min(4*float64(len(drift))/float64(all), 1), staging: "the same", production: "the same"}
	if len(drift) > 0 {
		d.of, d.staging, d.production = drift[0].Path, drift[0].Staging, drift[0].Production
	}
	return d, true
}

// Setting is one that differs.
type Setting struct {
	Path       string `json:"path"`
	Staging    string `json:"staging"` // "-" = not set there
	Production string `json:"production"`
}

// Drift is the settings of routes that both have, and of what is around them, that differ; in order of their path.
func Drift(staging, production Workload) (list []Setting) {
	compare := func(prefix string, a, b map[string]string) {
		for _, path := range union(a, b) {
			if a[path] != b[path] {
				list = append(list, Setting{prefix + path, cmp.Or(a[path], "-"), cmp.Or(b[path], "-")})
			}
		}
	}
	for _, name := range union(staging.Routes, production.Routes) {
		a, inStaging := staging.Routes[name]
		if b, inProduction := production.Routes[name]; inStaging && inProduction {
			compare("routes."+name+".", a.Settings, b.Settings)
		}
	}
	compare("", staging.Settings, production.Settings)
	return list
}
