package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
)

func TestAClientCannotPromoteItself(t *testing.T) {
	const header = "X-Request-Priority"
	tests := []struct {
		name     string
		p        Priority
		value    string
		believed bool
		want     call.Priority
	}{
		{"nothing said", Priority{}, "", true, call.Normal},
		{"route's own", Priority{Default: call.Important}, "", false, call.Important},
		{"a trusted peer may raise it", Priority{}, "critical", true, call.Critical},
		{"nobody else", Priority{}, "critical", false, call.Normal},
		{"anybody may lower it", Priority{}, "background", false, call.Background},
		{"with a cohort", Priority{}, "important;cohort=5", true, call.Important},
		{"not to be read", Priority{}, "URGENT", true, call.Normal},
		{"exempt is no word of a header", Priority{}, "exempt", true, call.Normal},
		{"own names", Priority{Values: map[string]call.Priority{"gold": call.Critical}}, "gold", true, call.Critical},
		{"own names replace the tiers", Priority{Values: map[string]call.Priority{"gold": call.Critical}}, "critical", true, call.Normal},
		{"exempt", Priority{Exempt: true}, "background", true, limit.Exempt},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.value != "" {
			h.Set(header, tt.value)
		}
		p := tt.p.WithDefaults()
		got, cohort, told := p.of(h, tt.believed)
		if got != tt.want || told != (tt.name == "with a cohort") || told && cohort != 5 {
			t.Errorf("%s: %v %d %v", tt.name, got, cohort, told)
		}
	}
}

func TestHealthChecksPassAGatewayThatIsFull(t *testing.T) {
	if !admitted(1, call.Info{Priority: limit.Exempt}) || admitted(1, call.Info{Priority: call.Critical}) {
		t.Error("at its bound the gateway must refuse all but health checks")
	}
}

func TestTenantsAreToldApart(t *testing.T) {
	visitOf := func(p peer, captures []string, header ...string) *visit {
		r := request(t, http.MethodGet, "http://h/", nil, header...)
		return &visit{r: r, peer: p, captures: captures, route: &route{names: []string{"org"}}}
	}
	outside, inside := peer{address: "9.9.9.9", client: "9.9.9.9"}, peer{address: "10.0.0.1", client: "8.8.8.8", trusted: true}
	tests := []struct {
		name string
		t    Tenant
		v    *visit
		want string
	}{
		{"trusted header", Tenant{Key: Key{Header: "X-Tenant"}}, visitOf(inside, nil, "X-Tenant", "acme"), "acme"},
		{"anybody's header", Tenant{Key: Key{Header: "X-Tenant"}}, visitOf(outside, nil, "X-Tenant", "acme"), "9.9.9.9"},
		{"believed header", Tenant{Key: Key{Header: "X-Tenant"}, TrustAll: true}, visitOf(outside, nil, "X-Tenant", "acme"), "acme"},
		{"no header", Tenant{Key: Key{Header: "X-Tenant"}}, visitOf(inside, nil), "8.8.8.8"},
		{"cookie", Tenant{Key: Key{Cookie: "org"}, TrustAll: true}, visitOf(outside, nil, "Cookie", "a=b; org=acme"), "acme"},
		{"capture", Tenant{Key: Key{Capture: "org"}}, visitOf(outside, []string{"acme"}), "acme"},
		{"address", Tenant{Key: Key{ClientIP: true}}, visitOf(inside, nil), "8.8.8.8"},
		{"one customer's IPv6", Tenant{Key: Key{ClientIP: true}}, visitOf(peer{client: "2001:db8:1:2:3::4"}, nil), "2001:db8:1:2::"},
	}
	for _, tt := range tests {
		if got := tt.t.of(tt.v); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	long := Tenant{Key: Key{Header: "X-Tenant"}, TrustAll: true}
	a := long.of(visitOf(outside, nil, "X-Tenant", strings.Repeat("a", 5000)))
	b := long.of(visitOf(outside, nil, "X-Tenant", strings.Repeat("a", 5001)))
	if len(a) != maxTenant || a == b {
		t.Errorf("long names are %q and %q", a, b)
	}
}

func TestThePriorityGoesOnToTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Header.Get("X-Request-Priority")) })
		n.start(t, `
listen: gw:80
upstreams: {up: {endpoints: http://a:1}}
routes:
- {name: vip, match: {path: /vip}, upstream: up, priority: critical, tenant: {header: X-Tenant, trust_all: true}}
- {name: health, match: {path: /healthz}, upstream: up, priority: exempt}
- {name: all, upstream: up}
`, nil)
		c := n.client(t)
		first := get(t, c, "http://gw:80/vip", "X-Tenant", "acme").body
		if !strings.HasPrefix(first, "critical;cohort=") || get(t, c, "http://gw:80/vip", "X-Tenant", "acme").body != first {
			t.Errorf("a tenant has %q", first)
		}
		for path, want := range map[string]string{"/healthz": "", "/": ""} {
			if got := get(t, c, "http://gw:80"+path); got.body != want {
				t.Errorf("%s: %q", path, got.body)
			}
		}
		if got := get(t, c, "http://gw:80/", "X-Request-Priority", "critical;cohort=0").body; !strings.HasPrefix(got, "normal;cohort=") {
			t.Errorf("a forged priority became %q", got)
		}
		if got := get(t, c, "http://gw:80/", "X-Request-Priority", "background").body; !strings.HasPrefix(got, "background;cohort=") {
			t.Errorf("a modest priority became %q", got)
		}
	})
}
