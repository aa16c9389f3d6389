package cache

import "time"

const (
	privateFor = 10 * time.Second // how long calls for a key that cannot be stored do not wait for each other
	generation = 4096             // keys in one half of the memory
)

// memory remembers keys whose answers may not be stored, the latest 4096 at least and 8192 at most: two generations,
// of which the older one is dropped when the younger one is full. Forgetting a key costs one shared fetch.
type memory struct{ young, old map[string]time.Time }

func (m *memory) add(now time.Time, key string) {
	if m.young == nil || len(m.young) >= generation {
		m.old, m.young = m.young, make(map[string]time.Time)
	}
	m.young[key] = now.Add(privateFor)
}

func (m *memory) holds(now time.Time, key string) bool {
	until, ok := m.young[key]
	if !ok {
		until, ok = m.old[key]
	}
	return ok && now.Before(until)
}

func (m *memory) forget(key string) {
	delete(m.young, key)
	delete(m.old, key)
}
