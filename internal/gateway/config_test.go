package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/conf"
)

const smallest = `
listen: 127.0.0.1:8080            # or a list, each with its own TLS
admin: 127.0.0.1:9901
upstreams:
  orders:
    endpoints: [http://127.0.0.1:9001, http://127.0.0.1:9002]
routes:
  - name: all
    match: {path: /}              # prefix
    upstream: orders
    policy: {}                    # a longpole.Config; {} = the safe defaults
`

func TestTheSmallestFileHasSafeDefaults(t *testing.T) {
	c, err := Load("f", []byte(smallest))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Routes[0].Policy
	if p.Timeout != 30*time.Second || p.Retry == nil || p.Retry.MaxAttempts != 3 || p.Breaker == nil || p.Balance == nil || p.Cache != nil {
		t.Errorf("policy is %+v", p)
	}
	if c.OTLP != (OTLP{GRPC: "127.0.0.1:4317", HTTP: "127.0.0.1:4318"}) || c.Limits.ReplayBytes != 64<<10 || c.Listen[0].Address != "127.0.0.1:8080" {
		t.Errorf("got %+v", c)
	}
	// What is in force can be written out, read back, and means the same.
	text, err := conf.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load("f", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cmp.Diff(c, again); d != "" {
		t.Error(d)
	}
}

func TestAFullFileIsRead(t *testing.T) {
	c, err := Load("f", []byte(`
listen:
  - 127.0.0.1:0
  - {address: "[::1]:8443", tls: {cert: c.pem, key: k.pem}}
admin: off
otlp: {grpc: off, http: off}
limits: {header_bytes: 32KiB, replay_bytes: 1MiB, body_bytes: 10MiB, stall_timeout: 5s}
upstreams:
  a: {endpoints: https://a.example/base, health: {path: /healthz, interval: 2s}, rewrite_host: true}
routes:
  - {name: writes, match: {host: "*.example.com", path: /api, method: [POST, PUT]}, upstream: a}
  - {name: api, match: {path: /api/}, upstream: a, policy: {timeout: 1s, try_timeout: 300ms, cache: {ttl: 5s}, retry: {hedge: {}}}}
  - {name: rest, upstream: a, policy: {breaker: {off: true}, retry: {budget_ratio: 10%}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen[1].TLS.Key != "k.pem" || c.Upstreams["a"].Health.Interval != 2*time.Second || c.Routes[1].Policy.Retry.Hedge.BudgetRatio != 0.1 {
		t.Errorf("got %+v", c)
	}
}

func TestLoadReportsEveryFaultWithItsLine(t *testing.T) {
	_, err := Load("gw.yaml", []byte(`listen: nowhere
admin: 127.0.0.1:4317
upstreams:
  a:
    endpoints: [http://h:1, "ftp://h", http://h:1/]
    helth: {path: /}
  b: {endpoints: []}
routes:
  - name: one
    match: {path: /x}
    upstream: c
    policy:
      timeout: 1s
      try_timeout: 2s
      retry:
        max_attempts: 99
        base_delay: quick
  - name: one
    match: {path: /x/y}
    upstream: a
    policy:
      timeout: 100ms
      retry: {hedge: {after: 200ms}}
  - match: {path: x, method: get}
    upstream: a
`))
	if err == nil {
		t.Fatal("accepted")
	}
	want := `gw.yaml:1:9: listen[0].address: "nowhere" is not allowed; want host:port
gw.yaml:5:29: upstreams.a.endpoints[1].url: "ftp://h" is not allowed; want the scheme http or https
gw.yaml:5:40: upstreams.a.endpoints[2].url: "http://h:1/" is not allowed; want an endpoint that is not listed before
gw.yaml:6:5: upstreams.a.helth: unknown field; did you mean "health"?
gw.yaml:7:7: upstreams.b.endpoints: is missing; want at least one URL, or discover
gw.yaml:11:15: routes[0].upstream: "c" is not allowed; want one of upstreams: a, b
gw.yaml:14:20: routes[0].policy.try_timeout: 2s is not allowed; want at most timeout
gw.yaml:16:23: routes[0].policy.retry.max_attempts: 99 is not allowed; want 1..10
gw.yaml:17:21: routes[0].policy.retry.base_delay: "quick" is not allowed; want a duration such as 250ms
gw.yaml:18:11: routes[1].name: "one" is not allowed; want a name that routes[0] does not have
gw.yaml:19:5: routes[1].match: "/x/y" is not allowed; want a match that routes[0] (one) does not take whole before it
gw.yaml:23:30: routes[1].policy.retry.hedge.after: 200ms is not allowed; want less than timeout (100ms), or no copy is ever sent
gw.yaml:24:5: routes[2].name: "" is not allowed; want a name of 1..64 letters, digits and -_./ characters
gw.yaml:24:19: routes[2].match.path: "x" is not allowed; want a path that starts with /
gw.yaml:24:30: routes[2].match.method: "get" is not allowed; want a method in capitals`
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); d != "" {
		t.Fatal(d)
	}
}

func TestLoadAcceptsNothingThatNewRefuses(t *testing.T) {
	for _, policy := range []string{"{timeout: 10ms}", "{try_timeout: 40s}", "{retry: {hedge: {after: 31s}}}", "{cache: {max_bytes: 1KiB}}", "{retry: {off: true, hedge: {}}}"} {
		c, err := Load("f", []byte(strings.Replace(smallest, "policy: {}", "policy: "+policy, 1)))
		if err != nil {
			continue
		}
		if _, err := New(c, Options{}); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add([]byte(everyRoute))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Load("f", data)
		if err != nil {
			return
		}
		for i := range c.Listen {
			c.Listen[i].TLS = nil // its files are not there
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("Validate refuses what Load accepted: %v", err)
		}
		g, err := New(c, Options{})
		if err != nil {
			t.Fatalf("New refuses what Load accepted: %v", err)
		}
		text, err := conf.Marshal(g.Effective())
		if err != nil {
			t.Fatalf("what is in force cannot be written: %v", err)
		}
		if _, err := Load("again", text); err != nil {
			t.Fatalf("what is in force cannot be read: %v\n%s", err, text)
		}
	})
}
