package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/discover"
	"github.com/longpole/longpole/internal/fleet"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/servers"
	"github.com/longpole/longpole/limit"
)

// What holds for the services of a lab whose number of replicas follows the load.
const (
	scaledLatency = 250 * time.Millisecond // at the p99
	scaledStart   = time.Second            // a replica begins at once
	scaledIn      = time.Minute            // so that one sees it
	scaledLook    = 100 * time.Millisecond // of the gateway into the list of replicas
)

// scaledService is a service whose replicas are started and stopped as the gateway recommends.
type scaledService struct {
	name string
	max  int
}

// readScaled reads SERVICE[:MAX].
func readScaled(flags []string, spec *scenario.Scenario, real *lab.Real) (all []scaledService, err error) {
	for _, flag := range flags {
		name, most, limited := strings.Cut(flag, ":")
		x := scaledService{name: name, max: scenario.MaxReplicas}
		if limited {
			x.max, err = strconv.Atoi(most)
		}
		service := spec.Service(name)
		switch {
		case real != nil:
			return nil, usagef("leave out --real or --scale", "--scale is for services in this process; with --real each replica is a process of its own")
		case service == nil || !spec.Behind(name):
			return nil, usagef("see `gateway:` in the scenario", "--scale %s: expected a service behind the gateway of %s", flag, spec.Name)
		case err != nil || x.max < service.Replicas || x.max > scenario.MaxReplicas:
			return nil, usagef("as in --scale "+name+":6", "--scale %s: expected a number of replicas from %d to %d", flag, service.Replicas, scenario.MaxReplicas)
		case slices.ContainsFunc(all, func(y scaledService) bool { return y.name == name }):
			return nil, usagef("name each service once", "--scale %s: it is there twice", name)
		}
		all = append(all, x)
	}
	return all, nil
}

// follow has the gateway read the replicas of the services that are scaled from files in a new folder, and recommend their number; a
// route of theirs without a limit gets the adaptive one, which finds out how many calls a replica holds. nil = none is scaled.
func (u *labUp) follow(cfg *gateway.Config) (folder *servers.Folder, err error) {
	if len(u.scaled) == 0 {
		return nil, nil
	}
	if folder, err = servers.NewFolder("lab-scale"); err != nil {
		return nil, err
	}
	list := func(service string) string { return filepath.Join(folder.Path(), service+".json") }
	tell := func(service string, endpoints []string) error { return writeList(list(service), endpoints) }
	for _, x := range u.scaled {
		if err := tell(x.name, u.system.Endpoints(x.name)); err != nil {
			return folder, err
		}
		up := cfg.Upstreams[x.name]
		up.Discover = &discover.Config{File: &discover.File{Path: list(x.name), Interval: scaledLook}}
		cfg.Upstreams[x.name] = up.WithDefaults()
		w := scale.Config{Name: x.name, Max: x.max, Latency: scaledLatency, Start: scaledStart, ScaleInAfter: scaledIn}
		for i := range cfg.Routes {
			if r := &cfg.Routes[i]; r.Upstream == x.name {
				w.Routes = append(w.Routes, r.Name)
				r.Policy.Limit = cmp.Or(r.Policy.Limit, &limit.Config{Queue: &limit.Queue{}})
			}
		}
		cfg.Scale = append(cfg.Scale, w.WithDefaults())
	}
	u.system.Announce(tell)
	return folder, cfg.Validate()
}

// writeList replaces a list of endpoints as a whole, so that nobody reads half of it.
func writeList(path string, endpoints []string) error {
	data, err := json.Marshal(endpoints)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keep has as many replicas as the board says, until ctx ends.
func (u *labUp) keep(ctx context.Context, g *errgroup.Group, board *fleet.Board) {
	for _, x := range u.scaled {
		local := fleet.Local{
			Board: board, Workload: x.name, Log: slog.New(slog.NewTextHandler(u.out, &slog.HandlerOptions{Level: slog.LevelWarn})),
			Replicas: labReplicas{system: u.system, service: x.name, out: u.out, why: func() string {
				r, _ := board.Get(time.Now(), x.name)
				return r.Reason
			}},
		}
		g.Go(func() error { local.Run(ctx); return nil })
	}
}

// labReplicas is the replicas of a service of a lab, as fleet.Local starts and stops them.
type labReplicas struct {
	system  *lab.System
	service string
	out     io.Writer
	why     func() string // the last recommendation
}

// Start implements fleet.Replicas.
func (r labReplicas) Start(ctx context.Context) error {
	return r.told(r.system.AddReplica(ctx, r.service))
}

// Stop implements fleet.Replicas.
func (r labReplicas) Stop(ctx context.Context) error {
	return r.told(r.system.RemoveReplica(ctx, r.service))
}

// Count implements fleet.Replicas. A replica that was started takes calls at once.
func (r labReplicas) Count() (ready, starting int) { return len(r.system.Endpoints(r.service)), 0 }

func (r labReplicas) told(err error) error {
	if err == nil {
		n, _ := r.Count()
		fmt.Fprintf(r.out, "longpole: replicas of %s now: %d (wanted are %s)\n", r.service, n, r.why())
	}
	return err
}
