package servers

import (
	"context"
	"syscall"
)

// Redis starts a Redis server, or Valkey where there is no Redis. It keeps nothing on disk. settings are further arguments, as
// "--maxmemory", "64mb". ErrMissing = there is none here.
func Redis(ctx context.Context, settings ...string) (*Server, error) {
	path, ok := find("redis-server")
	if !ok {
		if path, ok = find("valkey-server"); !ok {
			return nil, missing("Redis", "redis-server")
		}
	}
	return start(ctx, plan{
		title: "Redis", as: &syscall.SysProcAttr{}, signal: "KILL", says: "Ready to accept connections",
		command: func(folder, port string) []string {
			return append([]string{path, "--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--appendonly", "no"}, settings...)
		},
		ready: func(ctx context.Context, address string) bool { return greets(ctx, address, "PING\r\n", "+PONG") },
	})
}
