package diagnose

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

// population is n traces of one route; shape gives the i-th its duration in ms and the attributes of its spans.
func population(n int, shape func(i int) (took float64, attributes []trace.Attribute)) []trace.Trace {
	traces := make([]trace.Trace, n)
	for i := range traces {
		took, attributes := shape(i)
		id := fmt.Sprint("t", i)
		end := int64(took * 1e6)
		traces[i] = trace.Trace{ID: id, Spans: []trace.Span{
			{TraceID: id, ID: "r", Service: "shop", Name: "get", Kind: trace.Server, End: end, Attributes: attributes[:len(attributes)/2]},
			{TraceID: id, ID: "c", Parent: "r", Service: "shop", Name: "load", Start: end / 10, End: end * 9 / 10, Attributes: attributes[len(attributes)/2:]},
		}}
	}
	return traces
}

func logNormal(r *rand.Rand) float64 { return 20 * math.Exp(0.4*r.NormFloat64()) }

func attribute(key, format string, args ...any) trace.Attribute {
	return trace.Attribute{Key: key, Value: fmt.Sprintf(format, args...)}
}

// healthy is attributes that have nothing to do with how long a trace takes.
func healthy(r *rand.Rand) []trace.Attribute {
	return []trace.Attribute{
		attribute("tenant", "t%d", r.IntN(20)), attribute("service.version", "1.%d", r.IntN(2)),
		attribute("service.instance.id", "pod-%d", r.IntN(8)), attribute("http.request.body.size", "%d", 100+r.IntN(100_000)),
		attribute("user.id", "%x", r.Uint64()), attribute("region", "%s", []string{"eu", "us", "asia"}[r.IntN(3)]),
		attribute("http.response.status_code", "%d", []int{200, 200, 200, 404}[r.IntN(4)]), attribute("thread.id", "%d", r.IntN(64)),
	}
}

func TestHealthyRoutesHaveNoDifferences(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	routes := 1000
	if RaceDetector {
		routes = 200
	}
	for route := range routes {
		n := 60 + r.IntN(100)
		traces := population(n, func(int) (float64, []trace.Attribute) { return logNormal(r), healthy(r) })
		v := viewOf(traces)
		if found, _ := v.differences(); len(found) > 0 {
			t.Errorf("route %d of %d traces: %+v", route, n, found)
		}
	}
}

// viewOf is the only route of traces.
func viewOf(traces []trace.Trace) *view {
	set := newSet(traces, ClockOptions{})
	return set.views(set.named(), Options{MaxRoutes: 1})[0]
}

func TestWhatGoesWithSlowTracesIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		slow func(r *rand.Rand, i int, at []trace.Attribute) float64 // added to the duration, ms
		want string
	}{
		"a tenant": {1000, func(r *rand.Rand, i int, at []trace.Attribute) float64 {
			if at[0].Value == "t7" && r.IntN(3) == 0 {
				return 300
			}
			return 0
		}, "shop tenant=t7"},
		"a version": {400, func(r *rand.Rand, i int, at []trace.Attribute) float64 {
			if i%20 == 0 {
				at[1].Value = "2.0"
				return 200
			}
			return 0
		}, "shop service.version=2.0"},
		"an instance": {2000, func(r *rand.Rand, i int, at []trace.Attribute) float64 {
			if at[2].Value == "pod-3" && r.IntN(5) == 0 {
				return 300
			}
			return 0
		}, "shop service.instance.id=pod-3"},
		"a payload": {1000, func(r *rand.Rand, i int, at []trace.Attribute) float64 {
			if i%25 == 0 {
				at[3].Value = fmt.Sprint(3_000_000 + i)
				return 250
			}
			return 0
		}, "shop http.request.body.size=>= 131072"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 5))
			report := Run(population(c.n, func(i int) (float64, []trace.Attribute) {
				at := healthy(r)
				return logNormal(r) + c.slow(r, i, at), at
			}), Options{})
			route := report.Routes[0]
			if len(route.Differences) != 1 {
				t.Fatalf("want one, got %+v", route.Differences)
			}
			d := route.Differences[0]
			if got := d.Service + " " + d.Key + "=" + d.Value; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if d.SlowShare < 0.5 || d.HealthyShare > 0.2 || d.ExcessMS < 50 || d.P > 1e-6 {
				t.Errorf("%+v", d)
			}
			if route.Cut == 0 {
				t.Error("user.id has too many values to be compared, and that is not said")
			}
		})
	}
}

func TestWhatTheSameTracesHaveIsOneDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	report := Run(population(400, func(i int) (float64, []trace.Attribute) {
		host, extra := "a", 0.0
		if i%20 == 0 {
			host, extra = "b", 200
		}
		return logNormal(r) + extra, []trace.Attribute{attribute("host.name", "%s", host), attribute("host.ip", "ip-%s", host)}
	}), Options{})
	d := report.Routes[0].Differences
	if len(d) != 1 || len(d[0].Also) != 1 || d[0].Value == d[0].Also[0] {
		t.Errorf("%+v", d)
	}
}

func TestFisherIsExact(t *testing.T) {
	// R: fisher.test(matrix(c(3,1,1,3),2), alternative="greater") and two more.
	for _, c := range []struct {
		hits, marked, drawn, all int
		want                     float64
	}{{3, 4, 4, 8, 0.24285714285714285}, {5, 5, 10, 100, 252.0 / 75287520}, {0, 5, 10, 100, 1}} {
		if got := fisher(c.hits, c.marked, c.drawn, c.all); math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTracesCountAsOftenAsTheyStandFor(t *testing.T) {
	// Of a thousand requests of 10 ms one in ten was kept, and all ten of 500 ms.
	var traces []trace.Trace
	for i := range 110 {
		took, weight := 10*time.Millisecond, 10.0
		if i < 10 {
			took, weight = 500*time.Millisecond, 0
		}
		id := fmt.Sprint("t", i)
		traces = append(traces, trace.Trace{ID: id, Weight: weight, Spans: []trace.Span{{TraceID: id, ID: "r", Service: "shop", Name: "get", End: int64(took)}}})
	}
	r := Run(traces, Options{}).Routes[0]
	if want := (Latency{P50: 10, P90: 10, P95: 10, P99: 10, P999: 500, Max: 500}); r.Latency != want {
		t.Errorf("%+v", r.Latency)
	}
	if r.Traces != 110 || r.Represented != 1010 {
		t.Errorf("%d traces that stand for %v", r.Traces, r.Represented)
	}
	// The slow band is the slowest 10.1: the ten, and one of 10 ms that stands for ten.
	if got, want := r.Segments[0].CriticalMS, (Bands{P50: 10, P95: 10, P99: (10*500 + 10*10) / 20.0}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
