package judge

import (
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Switchback is for a change that both cohorts would feel: a limit, a cache's size, a retry budget. Instead of splitting the calls
// it gives all of them to one arm for a while, then all to the other. Blocks come in pairs, one of each arm, in an order
// that is tossed for each pair; a pair is a slice of the Judge, which must be told by Config.Blocks. The head of each
// block still shows what the arm before left behind and is not judged.
//
// All is a pure function of the settings and the time, so that several gateways agree and a restart changes nothing.
//
// Source: Bojinov, Simchi-Levi, Zhao 2023, "Design and Analysis of Switchback Experiments" (Management Science 69:7).
type Switchback struct {
	Seed    uint64        // of the order of arms
	Start   time.Time     // of the first block
	Block   time.Duration // length of a block; 0 = 45 s, at least 1 s; 30 s to 60 s suit most
	Washout time.Duration // head of a block that is not judged; 0 = 5 s, negative = none; at most half of the block
}

// Turn says who is on.
type Turn struct {
	Number    int       // of the block, from 0; negative before Start
	Candidate bool      // gets all calls; false before Start
	Judged    bool      // past the washout
	Ends      time.Time // of the block
}

func (s Switchback) lengths() (block, washout time.Duration) {
	block, washout = s.Block, s.Washout
	if block == 0 {
		block = 45 * time.Second
	}
	if washout == 0 {
		washout = 5 * time.Second
	}
	block = max(block, time.Second)
	return block, min(max(washout, 0), block/2)
}

// At is whose turn it is.
func (s Switchback) At(now time.Time) Turn {
	block, washout := s.lengths()
	since := now.Sub(s.Start)
	if since < 0 {
		return Turn{Number: -1, Ends: s.Start}
	}
	n := int(since / block)
	return Turn{
		Number: n, Candidate: s.candidateFirst(n/2) == (n%2 == 0), Judged: since%block >= washout,
		Ends: s.Start.Add(block * time.Duration(n+1)),
	}
}

// candidateFirst tosses a pair's coin: the mix of SplitMix64.
func (s Switchback) candidateFirst(pair int) bool {
	x := s.Seed + (uint64(pair)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x^x>>31)&1 == 1
}

// Blocks turns the growing tallies of two arms that take turns into slices. The tallies must be of calls that began past the
// washout of their block; such a call counts when it ends within the washout that follows, so that the slow ones at the end of
// a block are not lost. The zero value is ready. It is a value: a copy shares nothing that changes. Not for concurrent use.
type Blocks struct {
	turn   int  // whose tallies are being taken, plus 1; 0 = none yet
	marked bool // from holds the tally at the end of its washout
	over   bool // the block before was seen to its end; its last calls may still come
	from   stats.Tally
	half   [2]stats.Tally // of the pair: baseline, candidate
	have   [2]bool
}

// Look takes both arms' tallies at now; look several times a block. It returns a pair of blocks, without their
// washouts, past the washout after it. A pair that was not seen from the end of its first washout to that of the next pair
// is left out.
func (b *Blocks) Look(s Switchback, now time.Time, baseline, candidate stats.Tally) (base, cand stats.Tally, ok bool) {
	t := s.At(now)
	if t.Number+1 != b.turn {
		b.over = b.marked && t.Number == b.turn
		b.turn, b.marked = t.Number+1, false
	}
	if !t.Judged || b.marked {
		return base, cand, false
	}
	if b.over {
		base, cand, ok = b.close(s, t.Number-1, baseline, candidate)
	} else {
		b.have = [2]bool{}
	}
	b.marked, b.over, b.from = true, false, pick(t.Candidate, baseline, candidate)
	return base, cand, ok
}

// close takes the block that was on, and the pair when it was its second.
func (b *Blocks) close(s Switchback, was int, baseline, candidate stats.Tally) (base, cand stats.Tally, ok bool) {
	onCandidate := s.candidateFirst(was/2) == (was%2 == 0)
	arm := 0
	if onCandidate {
		arm = 1
	}
	b.half[arm] = pick(onCandidate, baseline, candidate).Sub(b.from)
	b.have[arm] = true
	if was%2 == 0 {
		b.have[1-arm] = false
		return base, cand, false
	}
	ok = b.have[0] && b.have[1]
	base, cand = b.half[0], b.half[1]
	b.have, b.half = [2]bool{}, [2]stats.Tally{}
	if !ok {
		return stats.Tally{}, stats.Tally{}, false
	}
	return base, cand, true
}

func pick(candidate bool, b, c stats.Tally) stats.Tally {
	if candidate {
		return c
	}
	return b
}
