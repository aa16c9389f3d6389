package advise

import (
	"cmp"
	"math"
	"slices"
)

// A dist is latencies, each with the number of calls that it stands for: a sampled trace speaks for those that were
// not kept. The zero value is empty.
type dist struct {
	list []weighed
	upTo []float64 // weight of list[:i+1]; nil = not sorted
}

type weighed struct {
	took   int64 // ns
	weight float64
}

func (d *dist) add(took int64, weight float64) {
	d.list = append(d.list, weighed{took, weight})
	d.upTo = nil
}

// sort must follow the last add.
func (d *dist) sort() {
	slices.SortFunc(d.list, func(a, b weighed) int { return cmp.Or(cmp.Compare(a.took, b.took), cmp.Compare(a.weight, b.weight)) })
	d.upTo = make([]float64, len(d.list))
	sum := 0.0
	for i, x := range d.list {
		sum += x.weight
		d.upTo[i] = sum
	}
}

// total is the number of calls that d stands for.
func (d *dist) total() float64 {
	if len(d.upTo) == 0 {
		return 0
	}
	return d.upTo[len(d.upTo)-1]
}

// above is how many calls took longer than x ns.
func (d *dist) above(x int64) float64 {
	at, _ := slices.BinarySearchFunc(d.list, x+1, func(w weighed, x int64) int { return cmp.Compare(w.took, x) })
	if at == 0 {
		return d.total()
	}
	return d.total() - d.upTo[at-1]
}

// rank is the latency in ns of the call with that many calls at or below it.
func (d *dist) rank(calls float64) int64 {
	if len(d.list) == 0 {
		return 0
	}
	const slip = 1e-9 // of sums of weights that are no whole numbers
	at, _ := slices.BinarySearchFunc(d.upTo, calls*(1-slip), cmp.Compare[float64])
	return d.list[min(at, len(d.list)-1)].took
}

// quantile is the nearest rank in ns; 0 when there are no calls.
func (d *dist) quantile(q float64) int64 { return d.rank(q * d.total()) }

// effective is how many equally weighted calls would tell as much as d does: Kish's effective sample size.
func (d *dist) effective() float64 {
	squares := 0.0
	for _, x := range d.list {
		squares += x.weight * x.weight
	}
	return share(d.total()*d.total(), squares)
}

// moments are the mean and the squared coefficient of variation of d.
func (d *dist) moments() (mean, variation float64) {
	var sum, squares float64
	for _, x := range d.list {
		sum += x.weight * float64(x.took)
		squares += x.weight * float64(x.took) * float64(x.took)
	}
	mean = share(sum, d.total())
	return mean, share(max(0, share(squares, d.total())-mean*mean), mean*mean)
}

// quantile is the nearest rank in sorted values; 0 when there are none.
func quantile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}
