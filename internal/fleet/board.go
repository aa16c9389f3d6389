package fleet

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/longpole/longpole/internal/scale"
)

// staleAfter is how old a recommendation may be and still be acted upon.
const staleAfter = time.Minute

// Board holds the latest recommendation for each workload, for all who act on them. The zero value is empty and ready to
// use; all methods are safe for concurrent use. As an http.Handler it answers with all of them as a JSON list.
type Board struct {
	mu      sync.Mutex
	latest  map[string]scale.Recommendation
	changed chan struct{} // closed and replaced by Set; nil = nobody waits
}

// Set replaces the recommendation for r.Name.
func (b *Board) Set(r scale.Recommendation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latest == nil {
		b.latest = map[string]scale.Recommendation{}
	}
	b.latest[r.Name] = r
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Get is the recommendation for a workload; ok is false when there is none, or none of the last minute: whoever made it may
// be gone.
func (b *Board) Get(now time.Time, name string) (r scale.Recommendation, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok = b.latest[name]
	return r, ok && now.Sub(r.At) <= staleAfter
}

// All are the latest recommendations, old ones as well, by name.
func (b *Board) All() []scale.Recommendation {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]scale.Recommendation, 0, len(b.latest))
	for _, r := range b.latest {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b scale.Recommendation) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Changed is closed by the next Set.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// ServeHTTP answers with All.
func (b *Board) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(b.All()) // an error means that the client has gone
}
