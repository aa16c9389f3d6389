package advise

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// builder makes the spans of one trace, the way the gateway and the services of a shop send them.
type builder struct {
	trace.Trace
}

func (b *builder) span(parent int, kind trace.Kind, service, name string, start, end time.Duration, attributes ...string) int {
	s := trace.Span{
		TraceID: b.ID, ID: b.ID + "-" + strconv.Itoa(len(b.Spans)), Kind: kind, Service: service, Name: name,
		Start: int64(start), End: int64(end), Host: "host-" + service,
	}
	if parent >= 0 {
		s.Parent = b.Spans[parent].ID
	}
	for i := 0; i+1 < len(attributes); i += 2 {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: attributes[i], Value: attributes[i+1]})
	}
	b.Spans = append(b.Spans, s)
	return len(b.Spans) - 1
}

// gatewayLag is the gateway's own time before the attempt, and again after it.
const gatewayLag = 200 * time.Microsecond

// through makes a call through the gateway: its span, one attempt and the upstream's span. It returns the upstream's.
func (b *builder) through(parent int, route, endpoint, service, target string, start, took time.Duration) int {
	gw := b.span(parent, trace.Server, gatewayService, route, start, start+took+2*gatewayLag,
		"longpole.segment", "gateway", "http.request.method", "GET", "url.path", "/"+route, "url.query", target, "http.response.status_code", "200")
	at := b.span(gw, trace.Client, gatewayService, "attempt", start+gatewayLag, start+gatewayLag+took, "longpole.endpoint", endpoint)
	return b.span(at, trace.Server, service, "GET /"+route, start+gatewayLag, start+gatewayLag+took,
		"http.request.method", "GET", "url.path", "/"+route, "url.query", target)
}

// lag is what a healthy endpoint takes: log-normal around 20 ms.
func lag(r *rand.Rand) time.Duration {
	return time.Duration(20e6 * math.Exp(0.3*r.NormFloat64()))
}

// orders is what endpoint n of three takes; the last one is late with 200 ms to 400 ms in one call of five.
func orders(r *rand.Rand, n int) time.Duration {
	d := lag(r)
	if n == 2 && r.Float64() < 0.2 {
		d += 200*time.Millisecond + time.Duration(r.Float64()*2e8)
	}
	return d
}

// shop records n checkouts: gateway, frontend, then orders, pricing and inventory one after the other, each through the gateway.
func shop(seed uint64, n int) []trace.Trace {
	r := rand.New(rand.NewPCG(seed, 1))
	traces := make([]trace.Trace, n)
	for i := range traces {
		endpoint := r.IntN(3)
		traces[i] = checkout(i, endpoint, orders(r, endpoint), lag(r)/4, lag(r)/4)
	}
	return traces
}

// checkout records the ith of them, whose calls take o, p and v.
func checkout(i, endpoint int, o, p, v time.Duration) trace.Trace {
	b := &builder{trace.Trace{ID: fmt.Sprintf("%06d", i)}}
	start := time.Duration(i) * 20 * time.Millisecond
	front := o + p + v + 6*gatewayLag + 4*time.Millisecond
	f := b.through(-1, "checkout", "f1", "frontend", fmt.Sprintf("cart=%d", i), start, front)
	at := start + gatewayLag + time.Millisecond
	b.through(f, "orders", fmt.Sprintf("o%d", endpoint), "orders", fmt.Sprintf("id=%d", i), at, o)
	at += o + 2*gatewayLag + time.Millisecond
	b.through(f, "pricing", "p1", "pricing", fmt.Sprintf("cart=%d", i), at, p)
	at += p + 2*gatewayLag + time.Millisecond
	b.through(f, "inventory", "v1", "inventory", fmt.Sprintf("cart=%d", i), at, v)
	return b.Trace
}

// expensive is what the catalogue needs for one answer.
func expensive(r *rand.Rand) time.Duration { return 150*time.Millisecond + lag(r) }

// arrival is one call for a product.
type arrival struct {
	at   time.Duration
	key  int
	took time.Duration // were it fetched
}

// arrivals are Poisson at rate per second for window, over keys with a Zipf popularity.
func arrivals(seed uint64, rate float64, window time.Duration, keys uint64) []arrival {
	r := rand.New(rand.NewPCG(seed, 2))
	zipf := rand.NewZipf(r, 1.3, 1, keys-1)
	return poisson(r, rate, window, func() int { return int(zipf.Uint64()) })
}

// weighted are the same over keys with given weights.
func weighted(seed uint64, rate float64, window time.Duration, weights []float64) []arrival {
	r := rand.New(rand.NewPCG(seed, 3))
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	return poisson(r, rate, window, func() int {
		at := r.Float64() * sum
		for i, w := range weights {
			if at -= w; at < 0 {
				return i
			}
		}
		return 0
	})
}

func poisson(r *rand.Rand, rate float64, window time.Duration, key func() int) []arrival {
	var list []arrival
	for at := time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() / rate * 1e9)
		if at > window {
			return list
		}
		list = append(list, arrival{at, key(), expensive(r)})
	}
}

// catalogue records the arrivals: gateway route browse, frontend, gateway route catalogue, the service, its database.
func catalogue(list []arrival) []trace.Trace {
	traces := make([]trace.Trace, len(list))
	for i, a := range list {
		b := &builder{trace.Trace{ID: fmt.Sprintf("%06d", i)}}
		target := fmt.Sprintf("id=%d", a.key)
		f := b.through(-1, "browse", "f1", "frontend", target, a.at, a.took+2*gatewayLag+2*time.Millisecond)
		at := a.at + gatewayLag + time.Millisecond
		s := b.through(f, "catalogue", "c1", "catalogue", target, at, a.took)
		b.span(s, trace.Client, "catalogue", "SELECT products", at+gatewayLag+time.Millisecond, at+gatewayLag+a.took-time.Millisecond,
			"db.system.name", "sqlite", "db.query.text", "SELECT * FROM products WHERE id = ?")
		traces[i] = b.Trace
	}
	return traces
}

// after is a quantile in milliseconds of durations, which it sorts.
func after(list []time.Duration, q float64) float64 {
	slices.Sort(list)
	return float64(list[int(math.Ceil(q*float64(len(list))))-1]) / 1e6
}

func near(got, want, share float64) bool { return math.Abs(got-want) <= share*math.Abs(want) }

// on is the corpus of traces and a situation in it.
func situationOf(traces []trace.Trace, f diagnose.Finding, root string) *situation {
	return &situation{corpus: load(traces, diagnose.ClockOptions{}), finding: &f, route: routeKey{gatewayService, root}}
}

// dur is milliseconds as a duration.
func dur(ms float64) time.Duration { return time.Duration(ms * 1e6) }
