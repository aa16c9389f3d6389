package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOnlyTrustedProxiesAreBelieved(t *testing.T) {
	tests := []struct {
		name, remote, chain   string
		client, chainNow, who string
	}{
		{"nobody is trusted", "192.0.2.1:1", "6.6.6.6", "192.0.2.1", "192.0.2.1", "a.example"},
		{"a trusted proxy", "10.0.0.1:1", "203.0.113.9", "203.0.113.9", "203.0.113.9, 10.0.0.1", "front.example"},
		{"a chain of them", "10.0.0.1:1", "6.6.6.6, 203.0.113.9, 10.1.1.1", "203.0.113.9", "6.6.6.6, 203.0.113.9, 10.1.1.1, 10.0.0.1", "front.example"},
		{"rubbish in the chain", "10.0.0.1:1", "6.6.6.6, rubbish, 10.1.1.1", "10.1.1.1", "6.6.6.6, rubbish, 10.1.1.1, 10.0.0.1", "front.example"},
		{"nothing in it", "10.0.0.1:1", "", "10.0.0.1", "10.0.0.1", "front.example"},
		{"by one address", "[2001:db8::1]:1", "203.0.113.9", "203.0.113.9", "203.0.113.9, 2001:db8::1", "front.example"},
		{"an address in another form", "[::ffff:10.0.0.1]:1", "203.0.113.9", "203.0.113.9", "203.0.113.9, ::ffff:10.0.0.1", "front.example"},
	}
	trust := trustedOf([]string{"10.0.0.0/8", "2001:db8::1"})
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "http://a.example/", nil)
		r.RemoteAddr = tt.remote
		r.Header.Set("X-Forwarded-Host", "front.example")
		r.Header.Set("X-Forwarded-Proto", "https")
		if tt.chain != "" {
			r.Header.Set("X-Forwarded-For", tt.chain)
		}
		p := trust.peerOf(r)
		h := forwardHeader(r, &p)
		if p.client != tt.client || h.Get("X-Forwarded-For") != tt.chainNow || h.Get("X-Forwarded-Host") != tt.who {
			t.Errorf("%s: client %s, %v", tt.name, p.client, h)
		}
	}
}

func TestAChainOfProxiesIsBounded(t *testing.T) {
	if got := forwardedFor(http.Header{"X-Forwarded-For": {strings.Repeat("10.0.0.1,", 10_000) + "10.0.0.2"}}); len(got) != maxForwarded || got[maxForwarded-1] != "10.0.0.2" {
		t.Errorf("%d entries", len(got))
	}
}

func FuzzPeer(f *testing.F) {
	f.Add("10.0.0.1:1", "1.2.3.4, 10.0.0.2")
	trust := trustedOf([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, remote, chain string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		r.Header["X-Forwarded-For"] = []string{chain}
		if p := trust.peerOf(r); !p.trusted && p.client != p.address {
			t.Errorf("%+v", p)
		}
	})
}
