package load

import (
	"bufio"
	"fmt"
	"io"
	"math"
)

// WriteHDR writes the percentiles of response time in milliseconds as HdrHistogram prints them, which is what
// https://hdrhistogram.github.io/HdrHistogram/plotFiles.html and hdrplot draw: five lines for each halving of the distance
// to 100 %.
func (r Report) WriteHDR(out io.Writer) error {
	var b Bins
	if r.Response != nil {
		b = *r.Response
	}
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")
	total := b.Count()
	line := func(q float64) {
		rank := uint64(min(max(math.Ceil(q*float64(total)-1e-9), 1), float64(total)))
		fmt.Fprintf(w, "%12.3f %2.12f %10d", milli(b.Quantile(q)), q, rank)
		if q < 1 {
			fmt.Fprintf(w, " %14.2f", 1/(1-q))
		}
		fmt.Fprintln(w)
	}
	if total > 0 {
		for rest := 1.0; rest > 1/float64(total); rest /= 2 {
			for tick := range 5 {
				line(1 - rest*(1-float64(tick)/10))
			}
		}
		line(1)
	}
	var mean, squares float64
	for i, n := range b.all() {
		v := milli(middle(i))
		mean += v * float64(n) / float64(max(total, 1))
		squares += v * v * float64(n) / float64(max(total, 1))
	}
	fmt.Fprintf(w, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", mean, math.Sqrt(max(squares-mean*mean, 0)))
	fmt.Fprintf(w, "#[Max     = %12.3f, Total count    = %12d]\n", milli(b.Quantile(1)), total)
	fmt.Fprintf(w, "#[Buckets = %12d, SubBuckets     = %12d]\n", 32, 64)
	return w.Flush()
}
