package certs_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/systemtest"
)

func TestAGatewayGetsItsCertificates(t *testing.T) {
	listeners := make(map[string]net.Listener)
	for _, name := range []string{"gw:80", "gw:443"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[name] = l
	}
	at := make(map[string]string) // where the second gateway listens, too
	address := listeners["gw:443"].Addr().String()
	port := func(name string) int { return listeners[name].Addr().(*net.TCPAddr).Port }
	directory, root := certs.StartPebble(t, port("gw:80"), port("gw:443"))
	for _, challenge := range []string{certs.HTTP01, certs.TLSALPN01} {
		cfg, err := gateway.Load("f", []byte(strings.NewReplacer("DIRECTORY", directory, "ROOT", root, "STORAGE", t.TempDir(), "CHALLENGE", challenge).Replace(`
listen: ["gw:80", {address: "gw:443", tls: {acme: {hosts: [shop.example.com], directory: "DIRECTORY", root: ROOT, storage: STORAGE, challenge: CHALLENGE}}}]
admin: off
otlp: {grpc: off, http: off}
upstreams: {a: {endpoints: http://127.0.0.1:1}}
routes: [{name: all, upstream: a}]
`)))
		if err != nil {
			t.Fatal(err)
		}
		g, err := gateway.New(cfg, gateway.Options{
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Listen: func(_, address string) (net.Listener, error) {
				if l := listeners[address]; l != nil {
					delete(listeners, address)
					at[address] = l.Addr().String()
					return l, nil
				}
				return net.Listen("tcp", at[address])
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		systemtest.Eventually(t, challenge+" ends in a certificate", func() bool {
			c, err := tls.Dial("tcp", address, &tls.Config{ServerName: "shop.example.com", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err != nil {
				return false
			}
			defer c.Close()
			s := c.ConnectionState()
			return s.PeerCertificates[0].VerifyHostname("shop.example.com") == nil && s.NegotiatedProtocol == "h2"
		})
		if all := g.Certificates(); len(all) != 1 || all[0].File != "" || all[0].Names[0] != "shop.example.com" {
			t.Errorf("certificates %+v", all)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
