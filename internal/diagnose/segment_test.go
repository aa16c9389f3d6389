package diagnose

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

func TestTimeBelongsToASegment(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a server's own time", "get 0ms 9ms kind=server", "service svc get"},
		{"our gateway says so itself", "get 0ms 9ms kind=server longpole.segment=gateway", "gateway svc get"},
		{"a gateway by its name", "get 0ms 9ms service=ts-gateway-service", "gateway ts-gateway-service get"},
		{"a proxy by its component", "get 0ms 9ms component=proxy", "gateway svc get"},
		{"no gateway: part of a word", "get 0ms 9ms service=gatewayless", "service gatewayless get"},
		{"a browser", "click 0ms 9ms telemetry.sdk.language=webjs", "client svc click"},
		{"a client's call, the edge", "a 0ms 9ms\n  get 0ms 9ms kind=client\n    serve 3ms 6ms service=b kind=server", "network b serve"},
		{"the edge without kinds", "a 0ms 9ms\n  get 0ms 9ms\n    serve 3ms 6ms service=b", "network b serve"},
		{"an entry without kinds is no call", "get 0ms 9ms\n  serve 3ms 6ms service=b", "service svc get"},
		{"a span with local work is no call", "a 0ms 9ms\n  get 0ms 9ms\n    x 0ms 1ms\n    serve 3ms 6ms service=b", "service svc get"},
		{"a far side that nobody recorded", "a 0ms 9ms\n  get 0ms 9ms kind=client net.peer.name=bank net.peer.port=80", "downstream bank get"},
		{"named by its URL", "a 0ms 9ms\n  get 0ms 9ms kind=client http.url=http://u:p@bank:80/x", "downstream bank get"},
		{"a named peer wins over an address", "a 0ms 9ms\n  get 0ms 9ms kind=client server.address=10.0.0.1 peer.service=bank", "downstream bank get"},
		{"a database, current", "a 0ms 9ms\n  get 0ms 9ms kind=client db.system.name=postgresql", "database svc get"},
		{"a database, older", "a 0ms 9ms\n  get 0ms 9ms kind=client db.system=mysql", "database svc get"},
		{"a database, OpenTracing", "a 0ms 9ms\n  get 0ms 9ms kind=client component=java-jdbc db.type=sql", "database svc get"},
		{"an embedded database", "a 0ms 9ms\n  get 0ms 9ms kind=internal db.system=sqlite", "database svc get"},
		{"a database by its statement", "a 0ms 9ms\n  get 0ms 9ms db.statement=\"SELECT 1\"", "database svc get"},
		{"a cache", "a 0ms 9ms\n  get 0ms 9ms kind=client db.system=redis", "cache svc get"},
		{"a cache by its peer", "a 0ms 9ms\n  get 0ms 9ms kind=client peer.service=redis-cart", "cache svc get"},
		{"sending a message", "a 0ms 9ms\n  get 0ms 9ms kind=producer", "queue svc get"},
		{"receiving one", "a 0ms 9ms\n  get 0ms 9ms kind=client messaging.system=kafka messaging.operation.type=receive", "queue svc get"},
		{"processing one", "get 0ms 9ms kind=consumer messaging.system=kafka", "service svc get"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := Build(parsed(t, 0, c.text), ClockOptions{})
			at := locate(tree, slices.IndexFunc(tree.Spans, func(s trace.Span) bool { return s.Name == "get" || s.Name == "click" }))
			if got := fmt.Sprintf("%s %s %s", at.segment, at.service, at.operation); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestStoresAreKnownByTheirOperations(t *testing.T) {
	for name, want := range map[string]string{
		"SELECT ts.orders": "database", "sql.conn.query": "database", "pg.query": "database", "redis.get": "cache",
		"HTTP GET": "service", "select items": "service", "SELECTOR": "service", "cached": "service",
	} {
		tree := Build(parsed(t, 0, fmt.Sprintf("a 0ms 9ms\n  %q 0ms 9ms", name)), ClockOptions{})
		if got := string(locate(tree, 1).segment); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestOperationsWithIDsAreFewOnceThereAreMany(t *testing.T) {
	n := newNamer()
	for i := range 10 {
		n.count("few", fmt.Sprintf("GET /a/%d", i))
	}
	for i := range 100_000 {
		n.count("many", fmt.Sprintf("GET /v1/a/%d?x=%d", i, i))
	}
	if got := len(n.seen["many"]); got > maxOperations+1 {
		t.Errorf("%d names are kept", got)
	}
	if got := n.name("few", "GET /a/7"); got != "GET /a/7" {
		t.Errorf("few: %q", got)
	}
	if got := n.name("many", "GET /v1/a/7?x=8"); got != "GET /v1/a/{id}?x={id}" {
		t.Errorf("many: %q", got)
	}
}
