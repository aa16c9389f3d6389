package policies

import (
	"context"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/maypok86/otter/v2"
)

type value string

func (v value) Size() int64 { return int64(len(v)) }

// storable is a Work whose answers are kept.
type storable struct{ contextual }

func (w *storable) Keep(*int, int64) (longpole.Kept[*int], bool) {
	return longpole.Kept[*int]{Value: value("answer"), Terms: cache.Terms{Fresh: time.Hour}}, true
}
func (w *storable) Open(cache.Value, call.CacheState) *int { return &w.n }

// A hit of one key. Ours also knows freshness, and whether a fetch is under way.
func BenchmarkCacheHit(b *testing.B) {
	b.Run("longpole", func(b *testing.B) {
		c := cache.New(cache.Config{})
		defer c.Close()
		now := time.Now()
		c.Fill(now, c.Lookup(now, "key").Flight, value("answer"), time.Hour)
		both(b, func() {
			if c.Lookup(now, "key").State != call.Hit {
				b.Error("no hit")
			}
		})
	})
	b.Run("longpole-do", func(b *testing.B) {
		p := policy(b, longpole.Config{Cache: &cache.Config{}})
		w, ctx := &storable{}, context.Background()
		keyed := call.Info{Key: "key", Idempotent: true}
		both(b, func() {
			if _, err := longpole.Do(ctx, p, keyed, nil, w); err != nil {
				b.Error(err)
			}
		})
	})
	b.Run("otter", func(b *testing.B) {
		c := otter.Must(&otter.Options[string, value]{MaximumSize: 1000, ExpiryCalculator: otter.ExpiryWriting[string, value](time.Hour)})
		c.Set("key", "answer")
		both(b, func() {
			if _, ok := c.GetIfPresent("key"); !ok {
				b.Error("no hit")
			}
		})
	})
	b.Run("ristretto", func(b *testing.B) {
		c, err := ristretto.NewCache(&ristretto.Config[string, value]{NumCounters: 10_000, MaxCost: 1000, BufferItems: 64})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		c.SetWithTTL("key", "answer", 1, time.Hour)
		c.Wait()
		both(b, func() {
			if _, ok := c.Get("key"); !ok {
				b.Error("no hit")
			}
		})
	})
}
