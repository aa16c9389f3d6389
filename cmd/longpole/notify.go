package main

import (
	"context"
	"net"
	"os"
	"strings"
)

// notify tells systemd what the service does (sd_notify(3)), where it asked to be told. That nobody listens is no fault
// of the service's.
func notify(ctx context.Context, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if name, abstract := strings.CutPrefix(path, "@"); abstract {
		path = "\x00" + name
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
