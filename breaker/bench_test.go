package breaker

import (
	"testing"
	"time"
)

func BenchmarkAllowAndRecord(b *testing.B) {
	for name, c := range map[string]Config{"time": {}, "calls": {WindowCalls: 100}, "slow": {SlowAfter: time.Second}} {
		b.Run(name, func(b *testing.B) {
			br := New(c)
			for b.Loop() {
				if br.Allow(t0) == nil {
					br.Record(t0, good)
				}
			}
		})
	}
}
