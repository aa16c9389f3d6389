package judge

import (
	"math"
	"slices"

	"github.com/longpole/longpole/internal/judge/peers"
)

// flagger feeds that rule with each second of a simulation.
type flagger struct {
	rule       peers.Flagger
	minute     []float64
	errors     float64
	rolledBack int // second; 0 = not
}

func (f *flagger) see(at int, _, c second) {
	if at < 0 {
		return
	}
	f.minute = append(f.minute, c.ms...)
	f.errors += c.errors
	if at%60 != 59 {
		return
	}
	if f.rule.Minute(quantile(f.minute, .99), f.errors/max(float64(len(f.minute)), 1)) && f.rolledBack == 0 {
		f.rolledBack = at + 1
	}
	f.minute, f.errors = f.minute[:0], 0
}

func quantile(ms []float64, q float64) float64 {
	if len(ms) == 0 {
		return 0
	}
	slices.Sort(ms)
	return ms[int(math.Ceil(q*float64(len(ms))))-1]
}

// kayenta feeds that rule with points of five seconds. peeked is judged once a minute, ended once after ten.
type kayenta struct {
	rule   peers.Kayenta
	bucket [2][]float64
	errors [2]float64
	peeked int // second of the first failure; 0 = none
	ended  bool
}

func (k *kayenta) see(at int, b, c second) {
	if at < 0 {
		return
	}
	for arm, s := range [2]second{b, c} {
		k.bucket[arm] = append(k.bucket[arm], s.ms...)
		k.errors[arm] += s.errors
	}
	if at%5 == 4 {
		var of [2]peers.Figures
		for arm, ms := range k.bucket {
			of[arm] = peers.Figures{quantile(ms, .5), quantile(ms, .95), quantile(ms, .99), k.errors[arm] / max(float64(len(ms)), 1)}
			k.bucket[arm], k.errors[arm] = ms[:0], 0
		}
		k.rule.Add(of[0], of[1])
	}
	if at%60 != 59 {
		return
	}
	k.ended = k.rule.High()
	if k.ended && k.peeked == 0 {
		k.peeked = at + 1
	}
}
