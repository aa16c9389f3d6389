package gateway

import (
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/payload"
	"github.com/longpole/longpole/internal/stats"
)

// The sliding window of what Routes shows: the last 20 s to 30 s.
const (
	windowSlots = 3
	windowWidth = 10 * time.Second
)

// counters are the counts of a stats.Tally. They are safe for concurrent use.
type counters struct {
	calls, failed, timedOut, shed, attempts, hedges, hedgesWon, retries, cacheHits atomic.Uint64
}

func (c *counters) count(rec *call.Record) {
	c.calls.Add(1)
	if rec.Class.Failed() {
		c.failed.Add(1)
	}
	switch rec.Class {
	case call.Timeout:
		c.timedOut.Add(1)
	case call.Shed:
		c.shed.Add(1)
	}
	if rec.Cache == call.Hit || rec.Cache == call.Stale {
		c.cacheHits.Add(1)
	}
	if rec.Count == 0 {
		return
	}
	hedges := 0
	for _, a := range rec.Kept() {
		if a.Hedge {
			hedges++
			if a.Won {
				c.hedgesWon.Add(1)
			}
		}
	}
	c.attempts.Add(uint64(rec.Count))
	c.hedges.Add(uint64(hedges))
	c.retries.Add(uint64(max(0, rec.Count-1-hedges)))
}

func (c *counters) tally() stats.Tally {
	return stats.Tally{
		Calls: c.calls.Load(), Failed: c.failed.Load(), TimedOut: c.timedOut.Load(), Shed: c.shed.Load(),
		Attempts: c.attempts.Load(), Hedges: c.hedges.Load(), HedgesWon: c.hedgesWon.Load(), Retries: c.retries.Load(), CacheHits: c.cacheHits.Load(),
	}
}

// figures are what is measured of one route. They survive a reload.
type figures struct {
	since        time.Time
	latency      stats.Histogram // of all calls
	total        counters
	classes      [call.Shed + 1]atomic.Uint64
	caches       [call.Revalidated + 1]stats.Histogram // by call.CacheState
	recent       *stats.Windowed
	recentFailed *stats.Windowed
	sampler      sampler

	requestBytes, responseBytes payload.Sizes // of bodies
}

func newFigures(now time.Time) *figures {
	return &figures{since: now, recent: stats.NewWindowed(windowSlots, windowWidth), recentFailed: stats.NewWindowed(windowSlots, windowWidth)}
}

func (f *figures) add(now time.Time, rec *call.Record) {
	f.latency.Record(rec.Latency)
	f.total.count(rec)
	f.classes[min(rec.Class, call.Shed)].Add(1)
	f.caches[min(rec.Cache, call.Revalidated)].Record(rec.Latency)
	f.requestBytes.Record(rec.RequestBytes)
	f.responseBytes.Record(rec.ResponseBytes)
	f.recent.Record(now, rec.Latency)
	if bad(rec.Class) {
		f.recentFailed.Record(now, rec.Latency)
	}
}

func (f *figures) tally() stats.Tally {
	t := f.total.tally()
	t.Latency = f.latency.Snapshot()
	return t
}

// bad reports whether a call got no good answer for a reason that is not the client's.
func bad(c call.Class) bool { return c.Failed() || c == call.Shed }

// span is the length of the window at now.
func (f *figures) span(now time.Time) time.Duration {
	full := (windowSlots-1)*windowWidth + time.Duration(now.UnixNano()%int64(windowWidth))
	return min(full, max(now.Sub(f.since), time.Second))
}
