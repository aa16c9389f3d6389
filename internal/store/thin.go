package store

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

const (
	slowRatio = 0.05 // the share of a route's traces that counts as slow
	slowFrom  = 20   // traces from which on a route has slow ones
)

// Thin chooses about most of the traces, fairly between routes: of each route as many as of the others, as far as it
// has them, and of its share half for the slow and the failed. Who is chosen gets a weight that stands for those of its
// kind that are not, so that weighted counts and quantiles of a route mean the same as before. At least one trace of each
// kind of each route stays, and the IDs decide which: the same traces thinned again are the same.
//
// Source: stratified sampling; see Cochran, Sampling Techniques, chapter 5.
func Thin(list []Kept, most int) []Kept {
	if len(list) <= most {
		return list
	}
	routes := map[string][]Kept{}
	for i := range list {
		routes[list[i].Route] = append(routes[list[i].Route], list[i])
	}
	sizes := make([]int, 0, len(routes))
	for _, of := range routes {
		sizes = append(sizes, len(of))
	}
	share := fairShare(sizes, most)
	out := make([]Kept, 0, most)
	for _, of := range routes {
		if len(of) <= share {
			out = append(out, of...)
			continue
		}
		rare, usual := split(of)
		room := max(share/2, share-len(usual), 1)
		rare = draw(rare, room)
		out = append(append(out, rare...), draw(usual, max(share-len(rare), 1))...)
	}
	return out
}

// fairShare is how many each may have at most so that all have most together; at least 1.
func fairShare(sizes []int, most int) int {
	slices.Sort(sizes)
	share := 1
	for i, n := range sizes {
		share = max(most/(len(sizes)-i), 1)
		if n > share {
			break
		}
		most -= n
	}
	return share
}

// split parts the slow and the failed from the others.
func split(all []Kept) (rare, usual []Kept) {
	lengths := make([]int64, len(all))
	for i := range all {
		lengths[i] = length(&all[i].Trace)
	}
	sorted := slices.Sorted(slices.Values(lengths))
	bound := sorted[len(sorted)-1-int(slowRatio*float64(len(sorted)))]
	for i := range all {
		if all[i].Failed || len(all) >= slowFrom && lengths[i] > bound {
			rare = append(rare, all[i])
		} else {
			usual = append(usual, all[i])
		}
	}
	return rare, usual
}

// length is from the start of the first span to the end of the last.
func length(t *trace.Trace) int64 {
	if len(t.Spans) == 0 {
		return 0
	}
	start, end := t.Spans[0].Start, t.Spans[0].End
	for i := range t.Spans {
		start, end = min(start, t.Spans[i].Start), max(end, t.Spans[i].End)
	}
	return end - start
}

// draw chooses most of all by a hash of their IDs.
func draw(all []Kept, most int) []Kept {
	if len(all) <= most {
		return all
	}
	type ranked struct {
		Kept
		rank uint64
	}
	by := make([]ranked, len(all))
	for i := range all {
		h := fnv.New64a()
		_, _ = h.Write([]byte(all[i].Trace.ID)) // never an error
		by[i] = ranked{all[i], spread(h.Sum64())}
	}
	slices.SortFunc(by, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Trace.ID, b.Trace.ID))
	})
	factor := float64(len(all)) / float64(most)
	out := make([]Kept, most)
	for i := range out {
		out[i] = by[i].Kept
		if out[i].Trace.Weight == 0 {
			out[i].Trace.Weight = 1
		}
		out[i].Trace.Weight *= factor
	}
	return out
}

// spread is the last step of MurmurHash3: IDs that count up must not stay close together.
func spread(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
