package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// The shop that the traces are of: services that call each other, a cache, a database and a queue.
var shop = map[string][]string{
	"frontend":       {"cart", "catalog", "recommendation", "checkout", "ads"},
	"checkout":       {"cart", "catalog", "payment", "shipping", "currency"},
	"cart":           {"redis"},
	"catalog":        {"postgresql"},
	"recommendation": {"catalog"},
	"payment":        {"postgresql"},
	"shipping":       {"currency", "postgresql"},
	"ads":            {"redis"},
	"currency":       {},
}

// batchSpans is how many spans an SDK sends at once, as its batch processor does by default.
const batchSpans = 512

// A generator makes traces as a fleet of SDKs would send them: each process its own spans, in batches, so that the
// spans of a trace are far apart. Equal seeds make equal bytes.
type generator struct {
	random *rand.Rand
	open   map[process][]*tracepb.Span
	order  []process
	spans  int
	emit   func(message []byte)
	now    uint64
}

type process struct {
	service string
	replica int
}

func newGenerator(seed uint64, emit func(message []byte)) *generator {
	return &generator{random: rand.New(rand.NewPCG(seed, 1)), open: make(map[process][]*tracepb.Span), emit: emit, now: 1_760_000_000_000_000_000}
}

// generate makes traces until there are at least so many spans, and returns how many there are.
func (g *generator) generate(spans int) int {
	for g.spans < spans {
		g.trace()
	}
	for _, p := range g.order {
		g.flush(p)
	}
	return g.spans
}

// trace makes one request of the frontend: 10 to 60 spans.
func (g *generator) trace() {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id, g.random.Uint64())
	binary.BigEndian.PutUint64(id[8:], g.random.Uint64()|1)
	routes := []string{"GET /", "GET /product/{id}", "POST /cart", "POST /checkout", "GET /recommendations", "GET /ads"}
	g.now += uint64(g.random.ExpFloat64() * 2e6)
	g.serve(id, nil, process{"frontend", g.random.IntN(3)}, routes[g.random.IntN(len(routes))], g.now, 0)
}

// took is a log-normal duration around middle, in nanoseconds.
func (g *generator) took(middle float64) uint64 {
	return uint64(middle * math.Exp(0.5*g.random.NormFloat64()))
}

func (g *generator) id() []byte {
	return binary.BigEndian.AppendUint64(nil, g.random.Uint64()|1)
}

// serve makes the server span of a call and what it does meanwhile; it returns when it ended.
func (g *generator) serve(trace, parent []byte, p process, route string, start uint64, depth int) (end uint64) {
	me := g.id()
	at := start + g.took(3e5)
	for _, callee := range shop[p.service] {
		for range 1 + g.random.IntN(2) {
			if depth > 3 || g.random.IntN(4) == 0 {
				continue
			}
			at = g.call(trace, me, p, callee, at, depth) + g.took(1e5)
		}
	}
	end = at + g.took(8e5)
	failed := g.random.IntN(200) == 0
	g.add(p, &tracepb.Span{
		TraceId: trace, SpanId: me, ParentSpanId: parent, Name: route, Kind: tracepb.Span_SPAN_KIND_SERVER, StartTimeUnixNano: start, EndTimeUnixNano: end,
		Flags: 257, Status: status(failed), Attributes: []*commonpb.KeyValue{
			text("http.request.method", route[:3]), number("http.response.status_code", 200), text("http.route", route), text("url.scheme", "https"),
			text("url.path", fmt.Sprint("/v1/items/", g.random.IntN(1e6))), text("server.address", p.service+".shop.svc.cluster.local"), number("server.port", 8443),
			text("client.address", fmt.Sprint("10.4.", g.random.IntN(4), ".", g.random.IntN(250))), text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
			text("network.protocol.version", "2"), number("http.response.body.size", int64(g.random.IntN(1<<16))), text("tenant.id", fmt.Sprint("tenant-", g.random.IntN(300))),
		},
	})
	return end
}

// call makes the client span of a call and what is behind it; it returns when the answer was there.
func (g *generator) call(trace, parent []byte, p process, callee string, start uint64, depth int) (end uint64) {
	me := g.id()
	span := &tracepb.Span{TraceId: trace, SpanId: me, ParentSpanId: parent, Kind: tracepb.Span_SPAN_KIND_CLIENT, Flags: 257, StartTimeUnixNano: start, Status: status(false)}
	switch callee {
	case "redis":
		span.Name = "HGETALL"
		end = start + g.took(4e5)
		span.Attributes = []*commonpb.KeyValue{
			text("db.system.name", "redis"), text("db.operation.name", "HGETALL"), text("db.query.text", fmt.Sprint("HGETALL cart:", g.random.IntN(1e5))), text("db.namespace", "0"),
			text("server.address", "redis-master.shop.svc.cluster.local"), number("server.port", 6379), text("network.peer.address", "10.4.9.17"), number("network.peer.port", 6379),
		}
	case "postgresql":
		span.Name = "SELECT products"
		end = start + g.took(2e6)
		span.Attributes = []*commonpb.KeyValue{
			text("db.system.name", "postgresql"), text("db.operation.name", "SELECT"), text("db.collection.name", "products"), text("db.namespace", "shop"),
			text("db.query.text", "SELECT id, name, price, stock FROM products WHERE category = $1 AND deleted_at IS NULL ORDER BY rank LIMIT $2"),
			text("server.address", "postgres-primary.shop.svc.cluster.local"), number("server.port", 5432), text("network.peer.address", "10.4.9.20"), number("db.response.returned_rows", int64(g.random.IntN(50))),
			text("thread.name", fmt.Sprint("pool-", g.random.IntN(16))),
		}
	default:
		span.Name = "POST"
		served := g.serve(trace, me, process{callee, g.random.IntN(3)}, "POST /"+callee+"/v1/get", start+g.took(1.5e5), depth+1)
		end = served + g.took(1.5e5)
		span.Attributes = []*commonpb.KeyValue{
			text("http.request.method", "POST"), number("http.response.status_code", 200), text("url.full", "https://"+callee+".shop.svc.cluster.local:8443/"+callee+"/v1/get"),
			text("server.address", callee+".shop.svc.cluster.local"), number("server.port", 8443), text("network.peer.address", fmt.Sprint("10.4.2.", g.random.IntN(30))), number("network.peer.port", 8443),
			text("network.protocol.version", "2"), number("http.request.body.size", int64(g.random.IntN(4096))), text("url.scheme", "https"),
		}
	}
	span.EndTimeUnixNano = end
	g.add(p, span)
	return end
}

func (g *generator) add(p process, s *tracepb.Span) {
	g.spans++
	if _, ok := g.open[p]; !ok {
		g.order = append(g.order, p)
	}
	g.open[p] = append(g.open[p], s)
	if len(g.open[p]) == batchSpans {
		g.flush(p)
	}
}

// flush sends what a process has.
func (g *generator) flush(p process) {
	spans := g.open[p]
	g.open[p] = g.open[p][:0]
	if len(spans) == 0 {
		return
	}
	pod := fmt.Sprintf("%s-7d9c5b6f4-x%d", p.service, p.replica)
	message, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			text("service.name", p.service), text("service.version", "1.14.2"), text("service.instance.id", pod), text("deployment.environment.name", "production"),
			text("k8s.pod.name", pod), text("k8s.namespace.name", "shop"), text("host.name", fmt.Sprint("node-", p.replica)), text("telemetry.sdk.language", "go"),
		}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", Version: "0.68.0"}, Spans: spans}},
		SchemaUrl:  "https://opentelemetry.io/schemas/1.37.0",
	}}})
	if err != nil {
		panic(err) // every text of ours is UTF-8
	}
	g.emit(message)
}

func status(failed bool) *tracepb.Status {
	if failed {
		return &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "deadline exceeded"}
	}
	return nil
}

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func number(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}
