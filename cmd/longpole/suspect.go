package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/setting"
)

// checkFiles reads the files that a valid configuration names, as far as it cannot do without them.
func checkFiles(path string, cfg gateway.Config) error {
	var f setting.Faults
	f.Within("", cfg.CheckFiles(time.Now()))
	if cfg.Offload.URL != "" {
		for field, name := range map[string]string{"offload.credentials": cfg.Offload.Credentials, "offload.ca": cfg.Offload.CA} {
			if name == "" {
				continue
			}
			_, err := os.ReadFile(name)
			f.Check(err == nil, field, name, fmt.Sprintf("a file that can be read: %v", err))
		}
	}
	if err := f.Err(); err != nil {
		return faulty(path, located(path, err), "")
	}
	return nil
}

// suspicions are what a valid configuration allows and probably does not mean, in the order of the file.
func suspicions(path string, cfg gateway.Config) []*conf.Error {
	var all []*conf.Error
	doubt := func(at, text string) {
		// The place of a fault there, with our own words.
		e, ok := errors.AsType[*conf.Error](located(path, &setting.Error{Path: at}))
		if !ok {
			e = &conf.Error{File: path, Path: at}
		}
		e.Msg = text
		all = append(all, e)
	}
	used := usedUpstreams(cfg)
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		at := "upstreams." + name
		if !used[name] {
			doubt(at, "nothing uses this upstream")
		}
		if t := cfg.Upstreams[name].TLS; t != nil && t.InsecureSkipVerify {
			doubt(at+".tls.insecure_skip_verify", "anybody on the way can read and change what is sent")
		}
	}
	for i, r := range cfg.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		if c := r.Policy.Cache; c != nil && c.Shared && cfg.Redis == nil {
			doubt(at+".policy.cache.shared", "without redis there is nothing to share by")
		}
		if len(r.Faults) > 0 {
			doubt(at+".faults", "these faults begin whenever the gateway starts; `longpole fault start` begins one once")
		}
	}
	slices.SortStableFunc(all, func(a, b *conf.Error) int { return a.Line - b.Line })
	return all
}

// usedUpstreams are those to which a route may send something.
func usedUpstreams(cfg gateway.Config) map[string]bool {
	used := map[string]bool{}
	for _, r := range cfg.Routes {
		used[r.Upstream] = true
		for _, v := range r.Split {
			used[v.Upstream] = true
		}
		if r.Mirror != nil {
			used[r.Mirror.Upstream] = true
		}
		if r.Aggregate != nil {
			for _, p := range r.Aggregate.Parts {
				used[p.Upstream] = true
			}
		}
	}
	return used
}
