package store_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

// lot is n traces of a route, the i-th of which takes i+1 ms; every 50th failed.
func lot(route string, n int) (all []store.Kept) {
	for i := range n {
		id := fmt.Sprintf("%s-%d", route, i)
		all = append(all, store.Kept{Route: route, Failed: i%50 == 7, Trace: trace.Trace{ID: id, Spans: []trace.Span{{TraceID: id, ID: "1", End: int64(i+1) * int64(time.Millisecond)}}}})
	}
	return all
}

func TestThinningKeepsTheSlowAndTheFailedFirstAndWeighsTheRest(t *testing.T) {
	list := append(lot("busy", 2000), lot("quiet", 10)...)
	got := store.Thin(list, 210)
	if n := len(got); n < 200 || n > 210 {
		t.Errorf("%d traces of at most 210", n)
	}
	weights, quiet, rare, slowMean, allMean := map[string]float64{}, 0, 0, 0.0, 0.0
	for _, k := range got {
		w := max(k.Trace.Weight, 1)
		weights[k.Route] += w
		if k.Route == "quiet" {
			quiet++
			continue
		}
		ms := float64(k.Trace.Spans[0].End) / 1e6
		allMean += w * ms / 2000
		if ms > 1900 || k.Failed {
			rare++
			slowMean += w
		}
	}
	if quiet != 10 {
		t.Errorf("%d of the 10 traces of a route with few", quiet)
	}
	if math.Abs(weights["busy"]-2000) > 1 || weights["quiet"] != 10 {
		t.Errorf("the sample stands for %v, of 2000 and 10", weights)
	}
	if rare != 100 || math.Abs(slowMean-138) > 1 {
		t.Errorf("%d of the slow and failed, standing for %.1f; want half of the room, standing for 138", rare, slowMean)
	}
	if math.Abs(allMean-1000.5) > 100 {
		t.Errorf("the weighted mean is %.0f ms, that of all 1000 ms", allMean)
	}
	again := store.Thin(list, 210)
	seen := map[string]bool{}
	for _, k := range again {
		seen[k.Trace.ID] = true
	}
	for _, k := range got {
		if !seen[k.Trace.ID] {
			t.Fatalf("%s is kept once and not the second time", k.Trace.ID)
		}
	}
}

func TestThinningLeavesAloneWhatFits(t *testing.T) {
	for _, k := range store.Thin(lot("a", 20), 20) {
		if k.Trace.Weight != 0 {
			t.Errorf("%s got the weight %v", k.Trace.ID, k.Trace.Weight)
		}
	}
	if n := len(store.Thin(append(lot("a", 5), lot("b", 5)...), 0)); n > 4 {
		t.Errorf("%d traces stay of two routes without room", n)
	}
}
