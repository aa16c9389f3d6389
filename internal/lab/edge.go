package lab

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// GatewayYAML is a whole gateway configuration for the system: calls come in at listen, the admin API is at admin, spans
// are received over OTLP/HTTP at otlp; each is host:port or "off". Each operation of a service behind the gateway is a
// route, SERVICE.OPERATION. Call it after Start.
func (s *System) GatewayYAML(listen, admin, otlp string) []byte {
	var b, routes strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin: %s\notlp: {grpc: off, http: %s}\ntracing: {traces_per_second: 100000, held_spans: 200000, held_bytes: 256MiB}\nupstreams:\n", listen, admin, otlp)
	for _, e := range s.spec.Gateway {
		fmt.Fprintf(&b, "  %q:\n    endpoints: [%s]\n    health: {path: %s}\n", e.Service, strings.Join(s.Endpoints(e.Service), ", "), HealthPath)
		x := s.spec.Service(e.Service)
		if x.Protocol == scenario.GRPC {
			b.WriteString("    protocol: h2c\n")
		}
		for _, o := range x.Operations {
			fmt.Fprintf(&routes, "  - name: %q\n    match: {path: /%s/%s}\n    upstream: %q\n", e.Service+"."+o.Name, e.Service, o.Name, e.Service)
			routes.WriteString(indent(e.Route, "    "))
			if policy := indent(e.Policy, "      "); policy != "" {
				routes.WriteString("    policy:\n" + policy)
			} else {
				routes.WriteString("    policy: {}\n")
			}
		}
	}
	return []byte(b.String() + "routes:\n" + routes.String() + s.evidenceYAML())
}

// indent puts space before every line of text; "" stays "".
func indent(text, space string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(space + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// maxInFlight bounds the calls of one route that wait for an answer.
const maxInFlight = 2000

// clientTimeout is how long a client waits for an answer.
const clientTimeout = 8 * time.Second

// Traffic is the load of a scenario for a gateway at that base URL, factor times as high as there.
func Traffic(spec *scenario.Scenario, gateway string, factor float64, seed uint64) load.Plan {
	p := load.Plan{Arrivals: load.Arrivals(spec.Load.Arrivals), Seed: seed, MaxInFlight: maxInFlight, Timeout: clientTimeout}
	for _, r := range spec.Load.Routes {
		service, operation, _ := strings.Cut(r.To, ".")
		path := "/" + service + "/" + operation
		key := popularity(r.Keys, r.Zipf)
		p.Targets = append(p.Targets, load.Target{
			Name: r.Name, Template: path, PerSecond: r.Rate * factor,
			Request: func(rng *rand.Rand) (*http.Request, error) {
				q, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("%s%s?key=%d", gateway, path, key(rng)), nil)
				if err != nil {
					return nil, err
				}
				for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
					q.Header.Set(name, r.Headers[name])
				}
				return q, nil
			},
		})
	}
	return p
}

// popularity draws keys 1..n with weights 1/rank^s.
func popularity(n int, s float64) func(*rand.Rand) int {
	if s == 0 {
		return func(r *rand.Rand) int { return 1 + r.IntN(n) }
	}
	sums := make([]float64, n)
	total := 0.0
	for i := range sums {
		total += math.Pow(float64(i+1), -s)
		sums[i] = total
	}
	return func(r *rand.Rand) int {
		i, _ := slices.BinarySearch(sums, r.Float64()*total)
		return min(i, n-1) + 1
	}
}

// maxCollected bounds the spans of one window.
const maxCollected = 1_000_000

// collection gathers the spans of a window.
type collection struct {
	mu      sync.Mutex
	spans   []trace.Span
	dropped int
}

func (c *collection) add(spans []trace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := min(maxCollected-len(c.spans), len(spans))
	c.spans = append(c.spans, spans[:room]...)
	c.dropped += len(spans) - room
}

// window is the traces that a client began within it; all spans are forgotten.
func (c *collection) window(from, to time.Time) []trace.Trace {
	c.mu.Lock()
	spans := c.spans
	c.spans = nil
	c.mu.Unlock()
	began := func(s trace.Span) bool {
		return s.Parent == "" && s.Kind == trace.Client && s.Start >= from.UnixNano() && s.Start < to.UnixNano()
	}
	return slices.DeleteFunc(trace.Group(spans), func(t trace.Trace) bool { return !slices.ContainsFunc(t.Spans, began) })
}
