package gateway

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/setting"
)

// Listener is one address that accepts calls. In a file its address alone may stand for it.
type Listener struct {
	Address string              `yaml:"address"` // host:port; port 0 = any free one
	TLS     *certs.ServerConfig `yaml:"tls"`     // nil = in the clear
}

// UnmarshalText reads an address alone.
func (l *Listener) UnmarshalText(text []byte) error {
	*l = Listener{Address: string(text)}
	return nil
}

func (c Config) validateListeners(f *setting.Faults) {
	seen := make(map[string]string)
	check := func(path, address string) {
		if address == "" || address == Off {
			return
		}
		_, port, err := net.SplitHostPort(address)
		f.Check(err == nil && portOK(port), path, address, "host:port")
		first, taken := seen[address]
		f.Check(!taken || port == "0", path, address, "an address that "+first+" does not use")
		seen[address] = path
	}
	for i, l := range c.Listen {
		path := fmt.Sprintf("listen[%d]", i)
		f.Check(l.Address != "" && l.Address != Off, path+".address", l.Address, "host:port")
		check(path+".address", l.Address)
		if l.TLS != nil {
			f.Within(path+".tls", l.TLS.Validate())
			if a := l.TLS.ACME; a != nil && a.Challenge == certs.HTTP01 {
				f.Check(slices.ContainsFunc(c.Listen, func(l Listener) bool { return l.TLS == nil }), path+".tls.acme.challenge", a.Challenge,
					"a listener in the clear beside it, that the CA reaches at port 80")
			}
		}
	}
	check("admin", c.Admin)
	check("otlp.grpc", c.OTLP.GRPC)
	check("otlp.http", c.OTLP.HTTP)
	check("zipkin", c.Zipkin)
	check("jaeger", c.Jaeger)
	check("keda", c.KEDA)
}

func portOK(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n < 1<<16
}
