package discover

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/longpole/longpole/setting"
)

func set(urls ...string) []Endpoint {
	var all []Endpoint
	for _, u := range urls {
		all = append(all, Endpoint{URL: u, Weight: 1})
	}
	return all
}

func TestAnEmptySetIsBelievedOnlyAfterAWhile(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	h := hold{keep: time.Minute}
	step := func(what string, changed bool, wait time.Duration, wantChanged bool, wantWait time.Duration, inForce ...string) {
		t.Helper()
		if changed != wantChanged || wait != wantWait || !slices.Equal(h.set, set(inForce...)) {
			t.Errorf("%s: changed %v, wait %v, in force %v", what, changed, wait, h.set)
		}
	}
	c, w := h.take(at(0), set("a", "b"))
	step("the first", c, w, true, 0, "a", "b")
	c, w = h.take(at(1), set("a", "b"))
	step("the same", c, w, false, 0, "a", "b")
	c, w = h.take(at(10), nil)
	step("nothing", c, w, false, time.Minute, "a", "b")
	c, w = h.take(at(40), nil)
	step("still nothing", c, w, false, 30*time.Second, "a", "b")
	c, w = h.take(at(50), set("b"))
	step("something", c, w, true, 0, "b")
	c, w = h.expire(at(70))
	step("an old timer", c, w, false, 0, "b")
	c, w = h.take(at(80), nil)
	step("nothing again", c, w, false, time.Minute, "b")
	c, w = h.expire(at(140))
	step("for a minute", c, w, true, 0)
	c, w = h.take(at(150), nil)
	step("as before", c, w, false, 0)
	h = hold{keep: time.Minute}
	c, w = h.take(at(0), nil)
	step("nothing at the start", c, w, true, 0)
}

func TestPausesDoubleUpToABound(t *testing.T) {
	b := backoff{first: time.Second, most: 30 * time.Second}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if got := b.next(0.999999); got > want*time.Second || got < want*time.Second*99/100 {
			t.Errorf("pause %d is %v", i, got)
		}
	}
	for range 100 {
		b.next(0)
	}
	if got := b.next(0); got != 15*time.Second {
		t.Errorf("the least is half: %v", got)
	}
	b.reset()
	if got := b.next(0); got != 500*time.Millisecond {
		t.Errorf("after a success: %v", got)
	}
}

func TestASetIsOrderedAndBounded(t *testing.T) {
	got, dropped := settle([]Endpoint{{URL: "b", Weight: 2}, {URL: "a"}, {URL: "b", Weight: 3}})
	if d := cmp.Diff([]Endpoint{{URL: "a", Weight: 1}, {URL: "b", Weight: 2}}, got); d != "" || dropped != 0 {
		t.Error(d, dropped)
	}
	many := make([]Endpoint, MaxEndpoints+3)
	for i := range many {
		many[i].URL = strings.Repeat("a", i+1)
	}
	if got, dropped := settle(many); len(got) != MaxEndpoints || dropped != 3 {
		t.Errorf("%d kept, %d dropped", len(got), dropped)
	}
}

// message is an answer to a question, from records in the notation of a zone file; those after "extra" and "ns" go there.
func message(t *testing.T, name string, kind uint16, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion(name, kind))
	to := &m.Answer
	for _, r := range records {
		switch r {
		case "extra":
			to = &m.Extra
			continue
		case "ns":
			to = &m.Ns
			continue
		}
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		*to = append(*to, rr)
	}
	return m
}

func TestAddressesAreReadAlongAliases(t *testing.T) {
	tests := []struct {
		name    string
		records []string
		want    string
		ttl     time.Duration
	}{
		{"two", []string{"h.example. 30 A 10.0.0.1", "H.Example. 20 A 10.0.0.2"}, "10.0.0.1 10.0.0.2", 20 * time.Second},
		{"aliases", []string{"h.example. 300 CNAME x.example.", "x.example. 5 CNAME y.example.", "y.example. 60 A 10.0.0.3"}, "10.0.0.3", 5 * time.Second},
		{"of somebody else", []string{"evil.example. 30 A 6.6.6.6"}, "", 0},
		{"a loop", []string{"h.example. 300 CNAME x.example.", "x.example. 5 CNAME h.example."}, "", 0},
		{"none", []string{"ns", "example. 3600 SOA ns. host. 1 2 3 4 7"}, "", 7 * time.Second},
		{"none that can be called", []string{"h.example. 30 A 0.0.0.0", "h.example. 30 A 224.0.0.1"}, "", 30 * time.Second},
	}
	for _, tt := range tests {
		ips, ttl, err := addresses(message(t, "h.example.", dns.TypeA, tt.records...), "h.example.", dns.TypeA)
		var got []string
		for _, ip := range ips {
			got = append(got, ip.String())
		}
		if err != nil || strings.Join(got, " ") != tt.want || ttl != tt.ttl {
			t.Errorf("%s: %v, %v, %v", tt.name, got, ttl, err)
		}
	}
}

func TestAnAnswerIsToTheQuestion(t *testing.T) {
	m := message(t, "h.example.", dns.TypeA, "h.example. 30 A 10.0.0.1")
	for _, change := range []func(*dns.Msg){
		func(m *dns.Msg) { m.Question[0].Name = "x.example." }, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		func(m *dns.Msg) { m.Question = nil }, func(m *dns.Msg) { m.Response = false },
		func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }, func(m *dns.Msg) { m.Rcode = dns.RcodeRefused },
	} {
		other := m.Copy()
		change(other)
		if _, _, err := addresses(other, "h.example.", dns.TypeA); err == nil {
			t.Errorf("accepted %v", other)
		}
	}
	m.Rcode = dns.RcodeNameError
	m.Answer = nil
	if ips, _, err := addresses(m, "h.example.", dns.TypeA); err != nil || len(ips) != 0 {
		t.Errorf("a name that does not exist has no addresses: %v, %v", ips, err)
	}
}

func TestServicesHavePrioritiesAndWeights(t *testing.T) {
	const name = "_http._tcp.example."
	tests := []struct {
		what    string
		records []string
		want    []Endpoint
	}{
		{"weights, shared by the addresses of a host", []string{
			name + " 30 SRV 1 60 8080 a.example.", name + " 30 SRV 1 40 8081 b.example.", "extra", "a.example. 30 A 10.0.0.1", "A.example. 30 A 10.0.0.2", "b.example. 30 AAAA 2001:db8::1",
		}, []Endpoint{{URL: "http://10.0.0.1:8080", Weight: 30}, {URL: "http://10.0.0.2:8080", Weight: 30}, {URL: "http://[2001:db8::1]:8081", Weight: 40}}},
		{"the lowest priority", []string{
			name + " 30 SRV 20 1 80 a.example.", name + " 30 SRV 10 1 80 b.example.", "extra", "a.example. 30 A 10.0.0.1", "b.example. 30 A 10.0.0.2",
		}, []Endpoint{{URL: "http://10.0.0.2:80", Weight: 1}}},
		{"the lowest priority that has addresses", []string{
			name + " 30 SRV 20 1 80 a.example.", name + " 30 SRV 10 1 80 b.example.", "extra", "a.example. 30 A 10.0.0.1",
		}, []Endpoint{{URL: "http://10.0.0.1:80", Weight: 1}}},
		{"a weight of 0 beside another one", []string{
			name + " 30 SRV 1 0 80 a.example.", name + " 30 SRV 1 5 80 b.example.", "extra", "a.example. 30 A 10.0.0.1", "b.example. 30 A 10.0.0.2",
		}, []Endpoint{{URL: "http://10.0.0.1:80", Weight: 0.1}, {URL: "http://10.0.0.2:80", Weight: 5}}},
		{"all weights 0", []string{
			name + " 30 SRV 1 0 80 a.example.", name + " 30 SRV 1 0 80 b.example.", "extra", "a.example. 30 A 10.0.0.1", "b.example. 30 A 10.0.0.2",
		}, []Endpoint{{URL: "http://10.0.0.1:80", Weight: 1}, {URL: "http://10.0.0.2:80", Weight: 1}}},
		{"decidedly not there", []string{name + " 30 SRV 0 0 0 ."}, nil},
	}
	for _, tt := range tests {
		list, hosts, ttl, err := services(message(t, name, dns.TypeSRV, tt.records...), name)
		if err != nil || len(list) > 0 && ttl != 30*time.Second {
			t.Errorf("%s: %v, %v", tt.what, ttl, err)
		}
		got, _ := settle(placed(list, hosts, "http"))
		if d := cmp.Diff(tt.want, got, cmp.Transformer("empty", func(e []Endpoint) []Endpoint { return append([]Endpoint{}, e...) })); d != "" {
			t.Errorf("%s: %s", tt.what, d)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("a.", dns.TypeSRV))
	for _, r := range []string{"a. 30 SRV 1 2 80 b.", "b. 30 A 10.0.0.1"} {
		rr, _ := dns.NewRR(r)
		m.Answer = append(m.Answer, rr)
		m.Extra = append(m.Extra, rr)
	}
	wire, _ := m.Pack()
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		var m dns.Msg
		if m.Unpack(wire) != nil || len(m.Question) == 0 {
			return
		}
		name := m.Question[0].Name
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			ips, ttl, _ := addresses(&m, name, kind)
			if ttl < 0 || slices.ContainsFunc(ips, netip.Addr.IsUnspecified) {
				t.Fatalf("%v, %v", ips, ttl)
			}
		}
		list, hosts, ttl, err := services(&m, name)
		if err != nil {
			return
		}
		for _, e := range placed(list, hosts, "http") {
			if e.Validate() != nil || !(e.Weight > 0) || ttl < 0 {
				t.Fatalf("%+v, %v", e, ttl)
			}
		}
	})
}

func TestValidateFindsEveryFault(t *testing.T) {
	tests := []struct {
		c    Config
		want []string
	}{
		{Config{}, []string{""}},
		{Config{DNS: &DNS{Name: "a"}, File: &File{Path: "f"}}, []string{""}},
		{Config{DNS: &DNS{Name: "a"}, KeepEmpty: -1}, []string{"keep_empty"}},
		{Config{DNS: &DNS{}}, []string{"dns.name"}},
		{
			Config{DNS: &DNS{Name: "a b", Type: "mx", Port: -1, Family: "ipx", Scheme: "ftp", Nameserver: "x", MinTTL: 1, MaxTTL: 1}},
			[]string{"dns.name", "dns.type", "dns.port", "dns.family", "dns.scheme", "dns.nameserver", "dns.min_ttl", "dns.max_ttl"},
		},
		{Config{DNS: &DNS{Name: "_http._tcp.a", Port: 80}}, []string{"dns.port"}},
		{Config{DNS: &DNS{Name: "a", MinTTL: time.Minute, MaxTTL: time.Second}}, []string{"dns.max_ttl"}},
		{Config{File: &File{Interval: 1}}, []string{"file.path", "file.interval"}},
		{Config{Kubernetes: &Kubernetes{}}, []string{"kubernetes.service"}},
		{
			Config{Kubernetes: &Kubernetes{Service: "Orders", Namespace: "-a", Port: strings.Repeat("a", 64), Scheme: "x", Server: "x"}},
			[]string{"kubernetes.service", "kubernetes.namespace", "kubernetes.port", "kubernetes.scheme", "kubernetes.server"},
		},
		{Config{Kubernetes: &Kubernetes{Service: "orders"}}, nil},
	}
	for _, tt := range tests {
		var got []string
		for _, e := range setting.List(tt.c.Validate()) {
			if fault, ok := errors.AsType[*setting.Error](e); ok {
				got = append(got, fault.Path)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%+v: %s", tt.c, d)
		}
		if err := tt.c.WithDefaults().Validate(); (err == nil) != (tt.want == nil) {
			t.Errorf("%+v with its defaults: %v", tt.c, err)
		}
	}
}

func TestDefaultsFollowFromTheName(t *testing.T) {
	tests := []struct{ c, want DNS }{
		{DNS{Name: "a"}, DNS{Name: "a", Type: Addresses, Port: 80, Scheme: "http", MinTTL: time.Second, MaxTTL: 5 * time.Minute}},
		{DNS{Name: "a", Scheme: "https"}, DNS{Name: "a", Type: Addresses, Port: 443, Scheme: "https", MinTTL: time.Second, MaxTTL: 5 * time.Minute}},
		{DNS{Name: "_http._tcp.a"}, DNS{Name: "_http._tcp.a", Type: Services, Scheme: "http", MinTTL: time.Second, MaxTTL: 5 * time.Minute}},
		{DNS{Name: "_a", Type: Addresses, MinTTL: time.Hour}, DNS{Name: "_a", Type: Addresses, Port: 80, Scheme: "http", MinTTL: time.Hour, MaxTTL: time.Hour}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, *(Config{DNS: &tt.c}).WithDefaults().DNS); d != "" {
			t.Error(d)
		}
	}
}
