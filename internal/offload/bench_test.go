package offload

import (
	"context"
	"testing"
	"time"
)

func benchmarkStore(b *testing.B, c StoreConfig) *Queue {
	b.Helper()
	c.Dir = b.TempDir()
	s, err := Open(c, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	return s.Queue("q", QueueConfig{Jobs: 1 << 20})
}

// One acknowledgement at a time, and many at once; with fsync before each, and without.
func BenchmarkSubmit(b *testing.B) {
	for name, c := range map[string]StoreConfig{"fsync": {}, "interval": {SyncInterval: time.Minute}} {
		b.Run(name+"/one", func(b *testing.B) {
			q := benchmarkStore(b, c)
			for b.Loop() {
				if _, err := q.Submit(b.Context(), job(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/many", func(b *testing.B) {
			q := benchmarkStore(b, c)
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := q.Submit(b.Context(), job(1)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// From acceptance to the stored end, by 16 workers that do nothing.
func BenchmarkDeliver(b *testing.B) {
	for name, c := range map[string]StoreConfig{"fsync": {}, "interval": {SyncInterval: time.Minute}} {
		b.Run(name, func(b *testing.B) {
			q := benchmarkStore(b, c)
			for range b.N {
				if _, err := q.Submit(b.Context(), job(1)); err != nil {
					b.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{}, b.N)
			b.ResetTimer()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				q.Run(ctx, time.Second, func(context.Context, Delivery) Outcome { done <- struct{}{}; return Outcome{} })
			}()
			for range b.N {
				<-done
			}
			b.StopTimer()
			cancel()
			<-ended
		})
	}
}
