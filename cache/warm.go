package cache

import "time"

const (
	maxWarm      = 1 << 16                // keys of a Warm list; more are ignored
	warmPause    = 500 * time.Millisecond // after a first failed fetch ahead, doubled with each that follows
	maxWarmPause = time.Minute
)

// warm is the list of keys that are fetched before they expire. It is guarded by the cache's lock.
type warm struct {
	keys  []string // in the order given: what matters most comes first
	state map[string]*warmKey
	next  time.Time // nothing is due before it
}

type warmKey struct {
	due    time.Time // not before it, after a failure
	failed int       // fetches in a row
}

// Warm sets the keys whose answers shall always be there: what is computed for all callers, such as a start page. What
// is due of them is told by Due, those named first coming first; beyond 65536 keys they are ignored. The list replaces
// the one before it.
func (c *Cache) Warm(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := make(map[string]*warmKey, min(len(keys), maxWarm))
	var list []string
	for _, k := range keys {
		if _, twice := state[k]; twice || len(list) == maxWarm {
			continue
		}
		if state[k] = c.warm.state[k]; state[k] == nil {
			state[k] = new(warmKey)
		}
		list = append(list, k)
	}
	c.warm = warm{keys: list, state: state}
}

// Due begins the fetches of the Warm list that are due at now, n at most, and returns their Flights: who asks shall
// fetch each one's Key and end it with Fill or Refuse. A key is due when it has no answer, or when its answer has less
// than Config.RefreshAhead of its time left and nobody fetches it already. A fetch that failed is due again after
// 0.5 s, then 1 s, up to a minute.
//
// next is when to ask again: never before something is due, unless an answer is evicted meanwhile. It is zero when the
// list is empty. A call that comes before next costs next to nothing, a later one a look at every key.
func (c *Cache) Due(now time.Time, n int) (flights []*Flight, next time.Time) {
	cfg := c.cfg.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.warm.next) {
		return nil, c.warm.next
	}
	next = now.Add(maxWarmPause)
	for _, key := range c.warm.keys {
		if _, running := c.flights[key]; running {
			continue // its end asks anew
		}
		due := c.dueAt(now, key, cfg)
		switch {
		case due.After(now):
		case len(flights) >= n:
			due = now
		default:
			flights = append(flights, c.begin(now, key))
			continue
		}
		if due.Before(next) {
			next = due
		}
	}
	if len(c.warm.keys) == 0 {
		return nil, time.Time{}
	}
	c.warm.next = next
	return flights, next
}

// dueAt is when a key of the Warm list is to be fetched.
func (c *Cache) dueAt(now time.Time, key string, cfg *Config) time.Time {
	due := now
	if e, ok := c.store.GetEntryQuietly(key); ok {
		due = e.Value.until.Add(-time.Duration(cfg.RefreshAhead * float64(e.Value.fresh)))
	}
	if again := c.warm.state[key].due; again.After(due) {
		due = again
	}
	return due
}

// landed takes note of the end of a fetch, whoever began it.
func (w *warm) landed(now time.Time, key string, ok bool) {
	k := w.state[key]
	if k == nil {
		return
	}
	w.next = time.Time{}
	if ok {
		*k = warmKey{}
		return
	}
	k.due = now.Add(min(warmPause<<min(k.failed, 16), maxWarmPause))
	k.failed++
}
