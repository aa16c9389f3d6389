package staging

import "time"

// Arrivals says how calls come: how many, and how unevenly.
type Arrivals struct {
	PerSecond  float64 `json:"per_second"`
	Dispersion float64 `json:"dispersion"`   // index of dispersion of the calls in 10 s: 1 = at random, above = in bursts; 0 = not known
	PeakToMean float64 `json:"peak_to_mean"` // of 10 s; 0 = not known
	Windows    int     `json:"windows"`      // of 10 s that it stands on
}

const (
	arrivalWindow  = 10 * time.Second
	arrivalWindows = 360 // the last hour
)

// Clock counts the calls of each 10 s of the last hour. The zero value is ready; not for concurrent use. It is told the time.
type Clock struct {
	counts []float64 // a ring once it is full
	next   int
	at     time.Time // when the window began
	total  uint64
}

// Observe is told the number of all calls so far, every 10 s or so. A total that shrank began anew.
func (c *Clock) Observe(now time.Time, total uint64) {
	if c.at.IsZero() || total < c.total {
		c.at, c.total = now, total
		return
	}
	gone := now.Sub(c.at)
	if gone < arrivalWindow*9/10 {
		return
	}
	count := float64(total-c.total) * arrivalWindow.Seconds() / gone.Seconds()
	if len(c.counts) < arrivalWindows {
		c.counts = append(c.counts, count)
	} else {
		c.counts[c.next] = count
		c.next = (c.next + 1) % arrivalWindows
	}
	c.at, c.total = now, total
}

// Arrivals are those of the last hour, as far as it was observed.
func (c *Clock) Arrivals() Arrivals {
	n := float64(len(c.counts))
	if n == 0 {
		return Arrivals{}
	}
	sum, squares, peak := 0.0, 0.0, 0.0
	for _, x := range c.counts {
		sum += x
		peak = max(peak, x)
	}
	mean := sum / n
	for _, x := range c.counts {
		squares += (x - mean) * (x - mean)
	}
	a := Arrivals{PerSecond: mean / arrivalWindow.Seconds(), Windows: len(c.counts)}
	if n >= 2 && mean > 0 {
		a.Dispersion, a.PeakToMean = squares/(n-1)/mean, peak/mean
	}
	return a
}
