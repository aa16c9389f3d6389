package gateway

import (
	"strings"
	"testing"
)

func TestReloadRefusesWhatNeedsARestart(t *testing.T) {
	base := one("{}", "http://a:80")
	g, err := New(load(t, base), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, path string }{
		{"another address", strings.Replace(base, "gw:80", "gw:81", 1), "listen"},
		{"another admin address", base + "admin: 127.0.0.1:1\n", "admin"},
		{"larger heads", base + "limits: {header_bytes: 128KiB}\n", "limits.header_bytes"},
		{"more connections", base + "limits: {connections: 5}\n", "limits.connections"},
		{"more time for heads", base + "limits: {header_timeout: 5s}\n", "limits.header_timeout"},
		{"less idle time", base + "limits: {idle_timeout: 5s}\n", "limits.idle_timeout"},
	} {
		if err := g.Reload(load(t, c.file)); err == nil || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := g.Reload(load(t, base+"limits: {drain_timeout: 1s, drain_delay: 1s, stall_timeout: 1s}\n")); err != nil {
		t.Errorf("what holds from the next moment on: %v", err)
	}
}
