package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// zone is a real name server, by UDP and TCP.
type zone struct {
	addr string

	mu      sync.Mutex
	records []dns.RR
	rcode   int
	queries []string
}

func newZone(t *testing.T, records ...string) *zone {
	t.Helper()
	z := &zone{}
	z.set(t, records...)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.addr = udp.LocalAddr().String()
	tcp, err := net.Listen("tcp", z.addr)
	if err != nil {
		t.Skip("the port of UDP is taken for TCP: ", err)
	}
	var run sync.WaitGroup
	t.Cleanup(run.Wait) // the last to be done
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		run.Go(func() { _ = s.ActivateAndServe() })
		<-ready
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return z
}

func (z *zone) set(t *testing.T, records ...string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records = nil
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		z.records = append(z.records, rr)
	}
}

// ServeDNS answers with all records of the name and kind; a name without records does not exist.
func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	network := w.RemoteAddr().Network()
	z.queries = append(z.queries, fmt.Sprintf("%s %s %s", network, dns.TypeToString[q.Question[0].Qtype], q.Question[0].Name))
	a.Rcode = dns.RcodeNameError
	for _, rr := range z.records {
		if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			continue
		}
		a.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == q.Question[0].Qtype {
			a.Answer = append(a.Answer, rr)
		}
	}
	if z.rcode != 0 {
		a.Rcode, a.Answer = z.rcode, nil
	}
	if network == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		a.Truncate(size)
	}
	_ = w.WriteMsg(a)
}

func (z *zone) asked() string {
	z.mu.Lock()
	defer z.mu.Unlock()
	defer func() { z.queries = nil }()
	return strings.Join(z.queries, ", ")
}

func resolve(t *testing.T, r *resolver) ([]Endpoint, time.Duration, error) {
	t.Helper()
	r.cfg = *(Config{DNS: &r.cfg}).WithDefaults().DNS
	found, ttl, err := r.pass(t.Context())
	found, _ = settle(found)
	return found, ttl, err
}

func urls(set []Endpoint) string {
	var all []string
	for _, e := range set {
		all = append(all, strings.TrimPrefix(e.URL, "http://"))
	}
	return strings.Join(all, " ")
}

func TestAHostHasItsAddresses(t *testing.T) {
	z := newZone(t, "h.example. 30 A 10.0.0.1", "h.example. 20 A 10.0.0.2", "h.example. 5 AAAA 2001:db8::1", "six.example. 9 AAAA 2001:db8::6")
	tests := []struct {
		c    DNS
		want string
		ttl  time.Duration
	}{
		{DNS{Name: "h.example", Port: 8080}, "10.0.0.1:8080 10.0.0.2:8080", 20 * time.Second},
		{DNS{Name: "h.example.", Family: familyAll}, "10.0.0.1:80 10.0.0.2:80 [2001:db8::1]:80", 5 * time.Second},
		{DNS{Name: "h.example.", Family: familyIPv6}, "[2001:db8::1]:80", 5 * time.Second},
		{DNS{Name: "six.example."}, "[2001:db8::6]:80", 0},
		{DNS{Name: "six.example.", Family: familyIPv4}, "", 0},
		{DNS{Name: "gone.example."}, "", 0},
		{DNS{Name: "h.example.", Scheme: "https"}, "https://10.0.0.1:443 https://10.0.0.2:443", 20 * time.Second},
	}
	for _, tt := range tests {
		tt.c.Nameserver = z.addr
		got, ttl, err := resolve(t, &resolver{cfg: tt.c})
		if err != nil || urls(got) != tt.want || ttl != tt.ttl {
			t.Errorf("%+v: %s, %v, %v", tt.c, urls(got), ttl, err)
		}
	}
	z.mu.Lock()
	z.rcode = dns.RcodeServerFailure
	z.mu.Unlock()
	if _, _, err := resolve(t, &resolver{cfg: DNS{Name: "h.example.", Nameserver: z.addr}}); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("got %v", err)
	}
}

func TestALongAnswerIsAskedForByTCP(t *testing.T) {
	var records []string
	for i := range 200 {
		records = append(records, fmt.Sprintf("many.example. 30 A 10.0.0.%d", i+1))
	}
	z := newZone(t, records...)
	got, _, err := resolve(t, &resolver{cfg: DNS{Name: "many.example.", Nameserver: z.addr}})
	if err != nil || len(got) != 200 {
		t.Errorf("%d endpoints, %v", len(got), err)
	}
	if q := z.asked(); q != "udp A many.example., tcp A many.example." {
		t.Error(q)
	}
}

func TestAServiceIsResolvedToItsHosts(t *testing.T) {
	z := newZone(t,
		"_http._tcp.shop.example. 60 SRV 1 3 8080 a.shop.example.", "_http._tcp.shop.example. 60 SRV 1 1 8081 B.shop.example.",
		"a.shop.example. 10 A 10.0.0.1", "b.shop.example. 20 A 10.0.0.2")
	got, ttl, err := resolve(t, &resolver{cfg: DNS{Name: "_http._tcp.shop.example.", Nameserver: z.addr}})
	if err != nil || ttl != 10*time.Second || len(got) != 2 || got[0] != (Endpoint{URL: "http://10.0.0.1:8080", Weight: 3}) || got[1] != (Endpoint{URL: "http://10.0.0.2:8081", Weight: 1}) {
		t.Errorf("%+v, %v, %v", got, ttl, err)
	}
}

func TestTheResolversOfTheSystemAreAsked(t *testing.T) {
	z := newZone(t, "orders.prod.example. 30 A 10.0.0.1")
	host, port, _ := net.SplitHostPort(z.addr)
	var dead atomic.Int32
	exchange := func(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error) {
		if server == "127.0.0.99:53" {
			dead.Add(1)
			return nil, errors.New("dead")
		}
		return overNetwork(ctx, m, net.JoinHostPort(host, port))
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.99\nnameserver 127.0.0.98\nsearch test.example prod.example\noptions ndots:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, _, err := resolve(t, &resolver{cfg: DNS{Name: "orders", Family: familyIPv4}, conf: conf, exchange: exchange})
	if err != nil || urls(got) != "10.0.0.1:80" || dead.Load() != 2 {
		t.Errorf("%s, %v, %d", urls(got), err, dead.Load())
	}
	if q := z.asked(); q != "udp A orders.test.example., udp A orders.prod.example." {
		t.Error(q)
	}
	for _, text := range []string{"", "search x\n"} {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := resolve(t, &resolver{cfg: DNS{Name: "orders"}, conf: conf}); err == nil {
			t.Errorf("%q names no server", text)
		}
	}
}

// scripted is a resolver whose server does as the test says.
type scripted struct {
	mu    sync.Mutex // guards all
	fails bool
	ttl   uint32
	ip    string // "" = the name does not exist
	asked []time.Duration
	start time.Time
}

func (s *scripted) exchange(_ context.Context, m *dns.Msg, _ string) (*dns.Msg, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Since(s.start))
	if s.fails {
		return nil, errors.New("no answer")
	}
	a := new(dns.Msg).SetReply(m)
	if s.ip == "" {
		a.Rcode = dns.RcodeNameError
		return a, nil
	}
	a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: s.ttl}, A: net.ParseIP(s.ip)}}
	return a, nil
}

// change waits until all is quiet, and lets f change s.
func (s *scripted) change(f func()) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *scripted) source(c DNS) Source {
	s.start = time.Now()
	c.Nameserver, c.Family = "127.0.0.1:53", familyIPv4
	src := New(Config{DNS: &c}, nil).(*source)
	r := &resolver{cfg: *(Config{DNS: &c}).WithDefaults().DNS, exchange: s.exchange}
	src.find = r.run
	return src
}

func TestANameIsResolvedAgainAsItsAnswerExpires(t *testing.T) {
	for _, tt := range []struct {
		ttl         uint32
		least, most time.Duration
	}{{0, time.Second, 1100 * time.Millisecond}, {10, 10 * time.Second, 11 * time.Second}, {86400, 5 * time.Minute, 330 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{ttl: tt.ttl, ip: "10.0.0.1"}
			got := observe(t, s.source(DNS{Name: "a.example."}), nil)
			time.Sleep(time.Hour)
			if got.urls() != "10.0.0.1:80" || got.n() != 1 {
				t.Errorf("%d sets", got.n())
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range s.asked[1:] {
				if pause := s.asked[i+1] - s.asked[i]; pause < tt.least || pause > tt.most {
					t.Errorf("ttl %d: a pause of %v", tt.ttl, pause)
				}
			}
		})
	}
}

func TestWhenDNSFailsTheLastGoodSetStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{ttl: 5, ip: "10.0.0.1"}
		got := observe(t, s.source(DNS{Name: "a.example."}), nil)
		if got.urls() != "10.0.0.1:80" {
			t.Error(got.urls())
		}
		before := 0
		s.change(func() { s.fails, before = true, len(s.asked) })
		time.Sleep(24 * time.Hour)
		after := 0
		s.change(func() { after = len(s.asked) })
		if n := after - before; got.urls() != "10.0.0.1:80" || n < 24*3600/30 || n > 24*3600/15 {
			t.Errorf("%s after %d questions", got.urls(), n)
		}
		s.change(func() { s.fails, s.ip = false, "10.0.0.2" })
		time.Sleep(31 * time.Second)
		if got.urls() != "10.0.0.2:80" || got.n() != 2 {
			t.Error(got.urls())
		}
		s.change(func() { s.ip = "" })
		time.Sleep(50 * time.Second)
		if got.urls() != "10.0.0.2:80" {
			t.Error("an empty answer was believed at once")
		}
		time.Sleep(20 * time.Second)
		if got.urls() != "" {
			t.Error("an empty answer was never believed")
		}
	})
}
