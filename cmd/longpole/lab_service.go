package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/lab"
)

// newLabService is what the lab starts as a process of its own for each replica of a service. People do not.
func newLabService() *cobra.Command {
	return &cobra.Command{
		Use: "service", Short: "Be one process of a lab that runs for real (started by the lab)", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, out := cmd.InOrStdin(), cmd.OutOrStdout()
			return lab.Serve(cmd.Context(), io.NopCloser(in), closer{out})
		},
	}
}

// closer has nothing to close.
type closer struct{ io.Writer }

// Close does nothing.
func (closer) Close() error { return nil }

// realFlags are the flags of a lab on real servers.
type realFlags struct {
	on   bool
	with lab.Real
}

const realLong = `

With --real, each replica is a process of its own, and stores, caches and queues are in PostgreSQL, Redis and NATS. The lab
starts those that the scenario needs from this machine's packages, in folders and on ports of their own, and removes
everything at the end. Instead, name servers that are there with --postgres, --redis and --nats: the lab works in a schema, keys
and streams of its own there.`

func (r *realFlags) add(cmd *cobra.Command) {
	cmd.Long += realLong
	f := cmd.Flags()
	f.BoolVar(&r.on, "real", false, "processes of their own, and PostgreSQL, Redis and NATS")
	f.StringVar(&r.with.Postgres, "postgres", "", "with --real: the `DSN` of a server that is there, postgres://user@host:port/database")
	f.StringVar(&r.with.Redis, "redis", "", "with --real: `ADDRESS` of a server that is there, host:port")
	f.StringVar(&r.with.NATS, "nats", "", "with --real: `URL` of a server with JetStream that is there, nats://host:port")
}

// read is what the flags ask for; nil = all in this process.
func (r *realFlags) read() (*lab.Real, error) {
	hosted := func(address string) bool {
		u, err := url.Parse(address)
		return err == nil && u.Scheme != "" && u.Host != ""
	}
	for _, x := range []struct {
		flag, value, want string
		ok                func(string) bool
	}{
		{"--postgres", r.with.Postgres, "postgres://user@host:port/database", hosted},
		{"--redis", r.with.Redis, "host:port", func(a string) bool { _, _, err := net.SplitHostPort(a); return err == nil }},
		{"--nats", r.with.NATS, "nats://host:port", hosted},
	} {
		switch {
		case x.value == "":
		case !r.on:
			return nil, usagef("add --real", "%s needs --real", x.flag)
		case !x.ok(x.value):
			return nil, usagef("want "+x.want, "%s cannot be read", x.flag) // its value may hold a password
		}
	}
	if !r.on {
		return nil, nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil, &failure{code: exitError, err: fmt.Errorf("this program's own file: %w", err)}
	}
	with := r.with
	with.Program = []string{program, "lab", "service"}
	return &with, nil
}
