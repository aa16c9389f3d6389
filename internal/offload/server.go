package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embed starts a server that only this process can reach. Its folder is locked: two servers on one store would ruin it.
func embed(c StoreConfig, log *slog.Logger) (s *server.Server, unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("offload: the store's folder: %w", err)
	}
	if unlock, err = lock(filepath.Join(c.Dir, "lock")); err != nil {
		return nil, nil, fmt.Errorf("offload: the store %s is in use: %w", c.Dir, err)
	}
	s, err = server.NewServer(&server.Options{
		ServerName: "longpole", DontListen: true, NoSigs: true, JetStream: true, StoreDir: c.Dir,
		SyncAlways: c.SyncInterval == 0, SyncInterval: c.SyncInterval,
		MaxPayload: maxBody + maxHead + 64<<10, MaxPending: 256 << 20,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: math.MaxInt64 / 4, // each stream has its own bound
	})
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("offload: the embedded server: %w", err)
	}
	s.SetLoggerV2(&serverLog{log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		unlock()
		return nil, nil, errors.New("offload: the embedded server did not start; its log says why")
	}
	return s, unlock, nil
}

// serverLog passes on what an operator should know.
type serverLog struct{ log *slog.Logger }

// Noticef is for the course of things, of which nobody needs to know.
func (l *serverLog) Noticef(string, ...any) {}

// Warnf logs a warning.
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("the job store warns", "message", fmt.Sprintf(format, v...))
}

// Errorf logs an error.
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("the job store failed", "message", fmt.Sprintf(format, v...))
}

// Fatalf logs an error after which the server does not start; it must not end the process.
func (l *serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

// Debugf drops what it is given.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef drops what it is given.
func (l *serverLog) Tracef(string, ...any) {}
