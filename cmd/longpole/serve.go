package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/setting"
)

const serveLong = `Run the gateway of a configuration file: the data plane, OTLP receivers, the live diagnosis, rollouts, and the page and
API on the admin address.

The file is read again on SIGHUP, on POST /-/reload of the admin address, and when it changes. A bad file is refused with all its faults and the running one stays.
SIGTERM and SIGINT drain: no new calls, running ones end; a second one stops at once.

An admin address that is not loopback needs a token in LONGPOLE_ADMIN_TOKEN, which its users then have to send.

The log goes to standard error: text on a terminal, JSON elsewhere. Exits 104 when the configuration is invalid.`

func newServe() *cobra.Command {
	var path, level string
	var profile bool
	cmd := &cobra.Command{
		Use:     "serve --config FILE [--log-level LEVEL] [--pprof]",
		Short:   "Run the gateway, the live diagnosis and rollouts",
		Long:    serveLong,
		Example: "  longpole serve --config longpole.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef(smallestConfig, "longpole serve needs --config FILE")
			}
			log, err := newLog(cmd.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), path, profile, log)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`")
	cmd.Flags().BoolVar(&profile, "pprof", false, "offer profiles of the Go runtime under /debug/pprof/ on the admin address")
	cmd.Flags().StringVar(&level, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	return cmd
}

// newLog writes text to a terminal and JSON elsewhere.
func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("want debug, info, warn or error", "unknown --log-level %q", level)
	}
	o := &slog.HandlerOptions{Level: l}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o)), nil
	}
	return slog.New(slog.NewJSONHandler(w, o)), nil
}

func serve(ctx context.Context, path string, profile bool, log *slog.Logger) error {
	stamp := fileStamp(path)
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	s, err := newServer(ctx, cfg, log)
	if _, ok := errors.AsType[*setting.Error](err); ok {
		return faulty(path, located(path, err), "")
	}
	if err != nil {
		return err
	}
	s.profile, s.reload = profile, func() error { return s.reread(path) }
	log.Info("serving", "config", path, "routes", len(cfg.Routes), "admin", pageOf(s.admin),
		"otlp_http", address(s.otlpHTTP), "otlp_grpc", address(s.otlpGRPC))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var beside sync.WaitGroup
	beside.Go(func() { s.watchConfig(ctx, path, stamp) })
	beside.Go(func() { s.notify(ctx) })
	beside.Go(func() { easeCollector(ctx) })
	err = s.Run(ctx)
	stop()
	beside.Wait()
	log.Info("stopped")
	return err
}

// located gives faults that came to light after the file was read their lines in it.
func located(path string, faults error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return faults
	}
	return conf.Locate(path, data, faults)
}

// watchConfig reloads on SIGHUP and when the file's content may have changed. It polls: a mounted ConfigMap is replaced
// through symbolic links, which file notifications miss.
func (s *server) watchConfig(ctx context.Context, path, stamp string) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			stamp = fileStamp(path)
			_ = s.reread(path) // which logs it
		case <-tick.C:
			if now := fileStamp(path); now != stamp {
				stamp = now
				_ = s.reread(path) // which logs it
			}
		}
	}
}

// fileStamp changes when the file does; a missing file has the stamp "".
func fileStamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// reread puts the file in force. On error, which is logged, the running configuration stays.
func (s *server) reread(path string) error {
	cfg, err := loadConfig(path)
	if err == nil {
		err = located(path, s.gateway.Reload(cfg))
	}
	if err != nil {
		s.log.Error("reload refused; the running configuration stays", "config", path, "error", err.Error())
		return err
	}
	s.signals.Reconfigure(s.gateway.Config())
	s.log.Info("reloaded", "config", path, "routes", len(cfg.Routes))
	return nil
}

// notify tells the service manager when calls are taken, and when no longer.
func (s *server) notify(ctx context.Context) {
	select {
	case <-s.gateway.Ready():
		notify(ctx, "READY=1")
	case <-ctx.Done():
		return
	}
	<-ctx.Done()
	notify(context.WithoutCancel(ctx), "STOPPING=1")
}
