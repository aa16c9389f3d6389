package main

import "testing"

func TestTheCollectorLeavesSmallHeapsAlone(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 1500}, {4 << 20, 700}, {8 << 20, 300}, {16 << 20, 100}, {32 << 20, 100}, {1 << 30, 100}} {
		if got := paceFor(c.live); got != c.want {
			t.Errorf("%d MiB alive: %d%%, want %d%%", c.live>>20, got, c.want)
		}
	}
}
