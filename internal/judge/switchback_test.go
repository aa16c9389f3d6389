package judge

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

var begin = time.Unix(1_800_000_000, 0)

func TestEachPairOfBlocksHasOneOfEachArm(t *testing.T) {
	s := Switchback{Seed: 4, Start: begin}
	first := 0
	for pair := range 1000 {
		a, b := s.At(begin.Add(time.Duration(2*pair)*45*time.Second)), s.At(begin.Add(time.Duration(2*pair+1)*45*time.Second))
		if a.Candidate == b.Candidate || a.Number != 2*pair || b.Number != 2*pair+1 {
			t.Fatalf("pair %d: %+v, %+v", pair, a, b)
		}
		if a.Candidate {
			first++
		}
	}
	if first < 430 || first > 570 {
		t.Errorf("the candidate began %d of 1000 pairs", first)
	}
	if other := (Switchback{Seed: 5, Start: begin}); other.candidateFirst(0) == s.candidateFirst(0) && other.candidateFirst(1) == s.candidateFirst(1) &&
		other.candidateFirst(2) == s.candidateFirst(2) && other.candidateFirst(3) == s.candidateFirst(3) && other.candidateFirst(5) == s.candidateFirst(5) {
		t.Error("another seed gives the same order")
	}
}

func TestTheHeadOfABlockIsNotJudged(t *testing.T) {
	s := Switchback{Start: begin, Block: 30 * time.Second}
	for _, c := range []struct {
		at     time.Duration
		number int
		judged bool
		ends   time.Duration
	}{
		{-time.Second, -1, false, 0},
		{0, 0, false, 30 * time.Second},
		{4999 * time.Millisecond, 0, false, 30 * time.Second},
		{5 * time.Second, 0, true, 30 * time.Second},
		{29 * time.Second, 0, true, 30 * time.Second},
		{30 * time.Second, 1, false, time.Minute},
	} {
		got := s.At(begin.Add(c.at))
		if got.Number != c.number || got.Judged != c.judged || !got.Ends.Equal(begin.Add(c.ends)) {
			t.Errorf("at %v: %+v", c.at, got)
		}
	}
	if (Switchback{Start: begin}).At(begin.Add(-time.Second)).Candidate {
		t.Error("the candidate is on before the start")
	}
}

// road gives all calls to the arm that is on; what the one before left behind lasts for three seconds.
type road struct {
	rng   *rand.Rand
	s     Switchback
	arms  [2]stats.Tally
	scale [2]float64
	load  float64
}

func (r *road) second(now time.Time) {
	on := 0
	if r.s.At(now).Candidate {
		on = 1
	}
	r.load = wanders(r.rng, r.load, .2)
	scale := r.scale[on]
	if into := now.Sub(begin) % (45 * time.Second); into < 3*time.Second {
		scale = r.scale[1-on]
	}
	n := int(rare(r.rng, 40*math.Exp(r.load)))
	if calls := cohort(r.rng, n, scale*math.Exp(r.load)); r.s.At(now).Judged {
		r.arms[on] = r.arms[on].Merge(calls)
	}
}

// switched runs a switchback with a judge for so long.
func switched(seed uint64, scale float64, length time.Duration) Verdict {
	r := road{rng: rand.New(rand.NewPCG(seed, 9)), s: Switchback{Seed: seed, Start: begin}, scale: [2]float64{1, scale}}
	j := New(Config{Blocks: true, Target: "p50"})
	j.Freeze(cohort(r.rng, 3000, 1))
	var blocks Blocks
	for at := time.Duration(0); at < length; at += time.Second {
		now := begin.Add(at)
		if b, c, ok := blocks.Look(r.s, now, r.arms[0], r.arms[1]); ok {
			j.Watch(b, c)
			j.Add(b, c)
			j.Freeze(r.arms[0])
			if v := j.Verdict(); v == Worse || v == Invalid {
				return v
			}
		}
		r.second(now)
	}
	return j.Verdict()
}

func TestSwitchbackFindsWhatBothCohortsWouldFeel(t *testing.T) {
	ends := map[float64]map[Verdict]int{}
	runs := few(24)
	for _, scale := range []float64{.7, 1, 1.5} {
		ends[scale] = map[Verdict]int{}
		for seed := range runs {
			ends[scale][switched(uint64(seed), scale, 45*time.Minute)]++
		}
	}
	t.Log(ends)
	if ends[1][Worse]+ends[1][Invalid]+ends[.7][Worse]+ends[.7][Invalid] > 0 {
		t.Errorf("false alarms: %v", ends)
	}
	if float64(ends[1.5][Worse]) < .9*float64(runs) {
		t.Errorf("half as slow again was found in %v", ends[1.5])
	}
}

func TestABlockThatWasNotSeenIsLeftOut(t *testing.T) {
	s := Switchback{Seed: 1, Start: begin}
	var blocks Blocks
	var arms [2]stats.Tally
	pairs := 0
	var calls uint64
	for at := range 45 * 8 { // 4 pairs
		now := begin.Add(time.Duration(at) * time.Second)
		if at < 60 || at > 70 { // nobody looks around the end of the first washout of block 1
			if b, c, ok := blocks.Look(s, now, arms[0], arms[1]); ok {
				pairs++
				calls = b.Calls + c.Calls
			}
		}
		on := 0
		if s.At(now).Candidate {
			on = 1
		}
		if s.At(now).Judged {
			arms[on].Calls += 10
		}
	}
	_, _, last := blocks.Look(s, begin.Add(365*time.Second), arms[0], arms[1])
	if pairs != 3 || !last || calls != 800 {
		t.Errorf("%d pairs before the end, %v at it, %d calls in the last; a pair has 80 judged seconds", pairs, last, calls)
	}
	var late Blocks
	late.Look(s, begin.Add(10*time.Second), arms[0], arms[1])
	if _, _, ok := late.Look(s, begin.Add(200*time.Second), arms[0], arms[1]); ok {
		t.Error("a pair of which only a second was seen was judged")
	}
}

// TestACallThatEndsInTheNextWashoutCounts has a block whose last calls take three seconds.
func TestACallThatEndsInTheNextWashoutCounts(t *testing.T) {
	s := Switchback{Seed: 1, Start: begin, Block: 10 * time.Second, Washout: 4 * time.Second}
	var blocks Blocks
	var arms [2]stats.Tally
	var base, cand stats.Tally
	for at := range 30 {
		now := begin.Add(time.Duration(at) * time.Second)
		if b, c, ok := blocks.Look(s, now, arms[0], arms[1]); ok {
			base, cand = b, c
		}
		if began := s.At(now.Add(-3 * time.Second)); began.Judged { // one call a second
			on := 0
			if began.Candidate {
				on = 1
			}
			arms[on].Calls++
		}
	}
	if base.Calls != 6 || cand.Calls != 6 {
		t.Errorf("%d and %d calls, want the 6 that began in each block past its washout", base.Calls, cand.Calls)
	}
}
