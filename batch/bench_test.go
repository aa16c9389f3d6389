package batch

import "testing"

func BenchmarkAKeyInABatchOfAHundred(b *testing.B) {
	j := New[int, string](Config{})
	var results [100]Result[string]
	for key := 0; b.Loop(); key++ {
		if _, err := j.Add(t0, key, none); err != nil {
			b.Fatal(err)
		}
		if key%100 == 99 {
			for next, _ := j.Next(at(1e9)); next != nil; next, _ = j.Next(at(1e9)) {
				j.Done(at(1e9), next, results[:len(next.Keys)], nil)
			}
		}
	}
}
