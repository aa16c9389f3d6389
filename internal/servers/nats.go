package servers

import (
	"context"
	"path/filepath"
	"syscall"
)

// NATS starts a NATS server with JetStream, whose streams live in its folder. settings are further arguments, as
// "--max_payload". ErrMissing = there is none here.
func NATS(ctx context.Context, settings ...string) (*Server, error) {
	path, ok := find("nats-server")
	if !ok {
		return nil, missing("NATS", "nats-server")
	}
	return start(ctx, plan{
		title: "NATS", as: &syscall.SysProcAttr{}, signal: "KILL", says: "Server is ready",
		command: func(folder, port string) []string {
			return append([]string{path, "--addr", "127.0.0.1", "--port", port, "--jetstream", "--store_dir", filepath.Join(folder, "streams")}, settings...)
		},
		ready: func(ctx context.Context, address string) bool { return greets(ctx, address, "", "INFO ") },
	})
}
