package gateway

import (
	"strings"
	"testing"
)

func TestFaultyWaysToAnswerAreNamed(t *testing.T) {
	const part = `{name: a, path: "/x"}`
	for _, tt := range []struct{ way, path string }{
		{`offload: {concurrency: 5000}`, "routes[0].offload.concurrency"},
		{`offload: {on_error: maybe}`, "routes[0].offload.on_error"},
		{`aggregate: {parts: []}`, "routes[0].aggregate.parts"},
		{`aggregate: {mode: all, parts: [` + part + `]}`, "routes[0].aggregate.mode"},
		{`aggregate: {bytes: 1GiB, parts: [` + part + `]}`, "routes[0].aggregate.bytes"},
		{`aggregate: {parts: [{name: errors, path: /x}]}`, "routes[0].aggregate.parts[0].name"},
		{`aggregate: {parts: [` + part + `, ` + part + `]}`, "routes[0].aggregate.parts[1].name"},
		{`aggregate: {parts: [{name: a, path: "/{segment.0}"}]}`, "routes[0].aggregate.parts[0].path"},
		{`aggregate: {parts: [{name: a, path: "/{ids}"}]}`, "routes[0].aggregate.parts[0].path"},
		{`aggregate: {parts: [{name: a, path: /x, upstream: none}]}`, "routes[0].aggregate.parts[0].upstream"},
		{`aggregate: {parts: [{name: a, path: /x, policy: {timeout: -1s}}]}`, "routes[0].aggregate.parts[0].policy.timeout"},
		{`batch: {id: path, target: "/x?ids={ids}"}`, "routes[0].batch.id"},
		{`batch: {id: "query.a}{path", target: "/x?ids={ids}"}`, "routes[0].batch.id"},
		{`batch: {id: query.id, target: "/x"}`, "routes[0].batch.target"},
		{`batch: {id: query.id, target: "/x?ids={ids}", size: 5000}`, "routes[0].batch.size"},
		{`batch: {id: query.id, target: "/x?ids={ids}"}, policy: {cache: {}}`, "routes[0].batch"},
		{`batch: {id: query.id, target: "/x?ids={ids}"}, offload: {}`, "routes[0]"},
	} {
		_, err := Load("test", []byte("upstreams: {up: {endpoints: [\"http://a:1\"]}}\nroutes:\n- {name: r, upstream: up, "+tt.way+"}\n"))
		if err == nil || !strings.Contains(err.Error(), tt.path+":") {
			t.Errorf("%s: %v; want a fault at %s", tt.way, err, tt.path)
		}
	}
	_, err := Load("test", []byte("offload: {dir: x, url: \"nats://a\"}\nupstreams: {up: {endpoints: [\"http://a:1\"]}}\nroutes:\n- {name: r, upstream: up}\n"))
	if err == nil || !strings.Contains(err.Error(), "offload.dir") {
		t.Error(err)
	}
}

func TestDefaultsOfWaysToAnswerAreSpeltOut(t *testing.T) {
	c := load(t, `
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- {name: a, match: {path: /a}, upstream: up, offload: {}}
- {name: b, match: {path: /b}, aggregate: {parts: [{name: p, upstream: up, path: /x}]}}
- {name: c, match: {path: /c}, upstream: up, batch: {id: segment.2, target: "/x?ids={ids}"}}
`)
	if o := c.Routes[0].Offload; o.Concurrency != 16 || o.MaxAttempts != 10 || c.Offload.Dir == "" {
		t.Errorf("%+v, %+v", o, c.Offload)
	}
	if a := c.Routes[1].Aggregate; a.Mode != modeFirstError || a.Timeout == 0 || a.Bytes == 0 {
		t.Errorf("%+v", a)
	}
	if b := c.Routes[2].Batch; b.Size != 100 || b.Separator != "," || b.Bytes == 0 {
		t.Errorf("%+v", b)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
