package scale

import (
	"math"
	"time"
)

const (
	memory   = 60 * time.Second // what the forecasts look at
	panicky  = 6 * time.Second  // the shortest time whose rate counts
	smoothed = 60 * time.Second // time constant of the average
	points   = int(memory / panicky)

	straight    = 0.85
	maxForecast = 2 // times the fastest window: a line drawn through the begin of a spike ends in the sky
)

// arrivals is how many calls came in each second of the last minute, and their slow average.
type arrivals struct {
	seconds [int(memory/time.Second) + 1]struct{ number, calls int64 }
	average float64 // per second
	begin   time.Time
	last    time.Time
	total   uint64
}

// observe takes the cumulative number of calls. A number that shrank began anew.
func (a *arrivals) observe(now time.Time, total uint64) {
	added := total - a.total
	if total < a.total {
		added = total
	}
	dt := now.Sub(a.last).Seconds()
	first := a.begin.IsZero()
	a.total, a.last = total, now
	if first {
		a.begin = now
		return
	}
	number := now.Unix()
	s := &a.seconds[number%int64(len(a.seconds))]
	if s.number != number {
		s.number, s.calls = number, 0
	}
	s.calls += int64(added)
	if dt <= 0 {
		return
	}
	// The average begins as a plain one, so that it need not climb from 0 for a minute.
	weight := max(1-math.Exp(-dt/smoothed.Seconds()), dt/max(now.Sub(a.begin).Seconds(), dt))
	a.average += weight * (float64(added)/dt - a.average)
}

// windows are the rates of the last minute in steps of six seconds, the newest first; fewer after the begin.
func (a *arrivals) windows(now time.Time) []float64 {
	all := make([]float64, 0, points)
	for i := range points {
		end := now.Unix() - int64(i)*int64(panicky/time.Second)
		if end-int64(panicky/time.Second) < a.begin.Unix() {
			break
		}
		sum := int64(0)
		for k := end - int64(panicky/time.Second) + 1; k <= end; k++ {
			if s := a.seconds[k%int64(len(a.seconds))]; s.number == k {
				sum += s.calls
			}
		}
		all = append(all, float64(sum)/panicky.Seconds())
	}
	return all
}

// forecast is how many calls a second are expected until a replica that is ordered now has started, and by which rule.
func (a *arrivals) forecast(now time.Time, ahead time.Duration) (perSecond float64, rule string) {
	perSecond, rule = a.average, "average of a minute"
	windows := a.windows(now)
	fastest := 0.0
	for _, w := range windows {
		fastest = max(fastest, w)
	}
	if fastest > perSecond {
		perSecond, rule = fastest, "fastest 6 s of the last minute"
	}
	if trend := min(line(windows, ahead), maxForecast*fastest); trend > perSecond {
		perSecond, rule = trend, "trend of the last minute"
	}
	return perSecond, rule
}

// line draws a straight line through the rates of a whole minute (the newest first) by least squares, and gives its value ahead of
// now. It is 0 when the line explains less than straight of the variance: of a step it explains about 3/4, and a step is over when it is seen.
func line(rates []float64, ahead time.Duration) float64 {
	n := float64(len(rates))
	if len(rates) < points {
		return 0
	}
	step := panicky.Seconds()
	var sx, sy, sxx, sxy, syy float64
	for i, y := range rates {
		x := -(float64(i) + 0.5) * step
		sx, sy, sxx, sxy, syy = sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
	}
	spread, along, variance := sxx-sx*sx/n, sxy-sx*sy/n, syy-sy*sy/n
	slope := along / spread
	if slope <= 0 || slope*along < straight*variance {
		return 0
	}
	return sy/n - slope*sx/n + slope*ahead.Seconds()
}
