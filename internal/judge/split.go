package judge

import (
	"math"

	"github.com/longpole/longpole/internal/stats"
)

// splitFirst is the number of calls of both arms at which an even split is first tested.
const splitFirst = 3200

// split tests whether the arms got as many calls as each other. Two tests share AlphaInvalid: evidence that may be looked
// at any time, at a third of it; and a chi-square at 3,200 calls and at each doubling, which sees a small imbalance in
// fewer calls, at a third and then at half of what the look before had.
type split struct {
	looks  int
	uneven bool
}

func (s *split) look(b, c float64) {
	n := b + c
	if n < splitFirst*math.Exp2(float64(s.looks)) {
		return
	}
	s.looks = int(math.Log2(n / splitFirst))
	s.uneven = s.uneven || stats.SampleRatioP(uint64(b), uint64(c)) < AlphaInvalid/3*math.Exp2(-float64(s.looks))
	s.looks++
}

// uneven reports whether the cohorts are no even split of the calls.
func (j *Judge) uneven() bool {
	if j.config.Blocks || !j.Enough() {
		return false
	}
	return j.split.uneven || stats.SampleRatioLogE(uint64(j.total[0].calls), uint64(j.total[1].calls)) >= math.Log(3/AlphaInvalid)
}
