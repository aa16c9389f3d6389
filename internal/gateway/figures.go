package gateway

import (
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/cache/redis"
)

// ListenerStatus is one address where calls come in. It is a copy.
type ListenerStatus struct {
	Address  string `json:"address"`  // as configured
	Open     int64  `json:"open"`     // connections, those that were switched to another protocol included
	Limit    int    `json:"limit"`    // on them; more wait to be accepted
	Accepted uint64 `json:"accepted"` // since the gateway began
}

// Listeners is the state of all addresses, in the order of Config.Listen; empty before Run.
func (g *Gateway) Listeners() []ListenerStatus {
	var all []ListenerStatus
	for _, s := range g.servers {
		if b := s.bound.Load(); b != nil {
			all = append(all, ListenerStatus{Address: s.listener.Address, Open: b.open.Load(), Limit: cap(b.slots), Accepted: b.accepted.Load()})
		}
	}
	return all
}

// Tunnels is how many connections were switched to another protocol, as WebSocket is, and are open.
func (g *Gateway) Tunnels() int { return g.tunnels.count() }

// DiscoveryStatus is how the endpoints of one upstream are found. It is a copy.
type DiscoveryStatus struct {
	Upstream  string    `json:"upstream"`
	Endpoints int       `json:"endpoints"`          // in force
	LastGood  time.Time `json:"last_good,omitzero"` // when the source last told a set; zero = not yet. A file is read when it changes only
	Failing   string    `json:"failing,omitempty"`  // why it does not at present; the last good set stays in force
}

// Discovery is the state of all upstreams that discover their endpoints, by name; empty before Run.
func (g *Gateway) Discovery() []DiscoveryStatus {
	var all []DiscoveryStatus
	upstreams := g.table.Load().upstreams
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		u := upstreams[name]
		if s := u.source.Load(); s != nil && u.cfg.Load().Discover != nil {
			h := (*s).Health()
			all = append(all, DiscoveryStatus{Upstream: name, Endpoints: len(u.cfg.Load().names), LastGood: h.LastGood, Failing: h.Failing})
		}
	}
	return all
}

// TierStatus is what the second tier of the caches did since the gateway began. It is a copy.
type TierStatus struct {
	Found   uint64 `json:"found"`   // reads with an answer
	Missing uint64 `json:"missing"` // reads without one
	Stored  uint64 `json:"stored"`  // answers written, and keys forgotten
	Failed  uint64 `json:"failed"`  // reads and writes that it did not do, or not in time
	Skipped uint64 `json:"skipped"` // reads and writes that were not tried, as it had failed lately
}

// CacheTier is the state of the second tier; false = there is none.
func (g *Gateway) CacheTier() (TierStatus, bool) {
	c := &g.second.counts
	s := TierStatus{Found: c.found.Load(), Missing: c.missing.Load(), Stored: c.stored.Load(), Failed: c.failed.Load(), Skipped: c.skipped.Load()}
	return s, g.second.tier.Load() != nil
}

type tierCounts struct{ found, missing, stored, failed, skipped atomic.Uint64 }

// told counts what came of one use of the tier, of which done is the good end, and returns err.
func (c *tierCounts) told(err error, done *atomic.Uint64) error {
	switch {
	case err == nil:
		done.Add(1)
	case errors.Is(err, cache.ErrNotFound):
		c.missing.Add(1)
	case errors.Is(err, redis.ErrDown), errors.Is(err, redis.ErrClosed):
		c.skipped.Add(1)
	default:
		c.failed.Add(1)
	}
	return err
}
