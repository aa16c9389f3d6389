package judge

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Calibration measures the judge on one's own traffic: it lets it compare two halves of the baseline, which cannot
// differ, over and over. What it calls worse is a false alarm. When there are too many, because something in the
// traffic wanders for longer than a slice, slices should be joined into longer ones, as Join says; when it was quiet for
// long, they are made shorter again. Where even the longest are no help, the traffic is Noisy. Judge.Heed does what follows.
//
// Make one with NewCalibration. Not for concurrent use.
type Calibration struct {
	config Config
	width  int // index of widths
	judges [2]Judge
	slices int // of the comparison that runs
	since  stats.Tally
	kept   CalibrationState
}

// CalibrationState is what a Calibration found, but for the comparison that runs, in a form that may outlive the process.
type CalibrationState struct {
	Join    int                          `json:"join"`    // slices that are joined
	History [calibrationRuns / 64]uint64 `json:"history"` // a bit for each of the last comparisons: 1 = a false alarm
	Runs    int                          `json:"runs"`    // at this Join, up to 128
	Next    int                          `json:"next"`    // place of the next one in History
	Total   uint64                       `json:"total"`   // comparisons ever
	Alarms  uint64                       `json:"alarms"`  // of them
}

// ErrCalibration is a CalibrationState that no Calibration can have.
var ErrCalibration = errors.New("judge: no state of a calibration")

const (
	calibrationRuns = 128 // comparisons that are remembered
	leastRuns       = 50  // taken as the number of runs while there are fewer: one alarm is no reason yet
	tooNoisy        = 2   // times AlphaWorse
)

// widths are how many slices are joined: 10, 30 and 60 s. lengths are how many slices a comparison then takes, 10, 15 and 30
// minutes: with fewer than 30 judged slices there is little that could be a false alarm.
var (
	widths  = [...]int{1, 3, 6}
	lengths = [...]int{60, 90, 180}
)

// CalibrationStatus is what a Calibration found.
type CalibrationStatus struct {
	// FalseAlarmRatio is the share of the comparisons at this width that ended worse, of 50 at least; to be held against
	// AlphaWorse.
	FalseAlarmRatio float64 `json:"false_alarm_ratio"`
	Runs            int     `json:"runs"`   // comparisons that FalseAlarmRatio stands on
	Total           uint64  `json:"total"`  // comparisons ever
	Alarms          uint64  `json:"alarms"` // of them
	Join            int     `json:"join"`   // slices of 10 s to be judged as one: 1, 3 or 6; 0 = nothing was measured
	// Noisy is that there are too many false alarms even with the longest slices.
	Noisy bool `json:"noisy,omitempty"`
}

// NewCalibration judges by c, except for its Join.
func NewCalibration(c Config) *Calibration {
	k := &Calibration{config: c, kept: CalibrationState{Join: widths[0]}}
	k.restart()
	return k
}

// RestoreCalibration is NewCalibration that goes on from s; ErrCalibration when no Calibration can have left it.
func RestoreCalibration(c Config, s CalibrationState) (*Calibration, error) {
	width := slices.Index(widths[:], s.Join)
	if width < 0 || s.Runs < 0 || s.Runs > calibrationRuns || s.Next < 0 || s.Next >= calibrationRuns || s.Alarms > s.Total || uint64(s.Runs) > s.Total {
		return nil, fmt.Errorf("%w: %+v", ErrCalibration, s)
	}
	k := &Calibration{config: c, width: width, kept: s}
	k.restart()
	return k, nil
}

// State is what RestoreCalibration takes.
func (k *Calibration) State() CalibrationState { return k.kept }

// Add takes what two halves of the baseline did in one slice of ten seconds. They are compared both ways.
func (k *Calibration) Add(a, b stats.Tally) {
	k.since = k.since.Merge(a).Merge(b)
	if k.judges[0].Referred() == 0 { // the first slices are the reference
		k.judges[0].Freeze(k.since)
		k.judges[1].Freeze(k.since)
		return
	}
	k.judges[0].Add(a, b)
	k.judges[1].Add(b, a)
	k.judges[0].Freeze(k.since)
	k.judges[1].Freeze(k.since)
	k.advance()
}

// advance ends the comparison when it is long enough, or when it is decided both ways.
func (k *Calibration) advance() {
	k.slices++
	worse := [2]bool{k.judges[0].Verdict() == Worse, k.judges[1].Verdict() == Worse}
	if k.slices < lengths[k.width] && !worse[0] && !worse[1] {
		return
	}
	for i := range k.judges {
		if k.judges[i].Enough() {
			k.count(worse[i])
		}
	}
	k.adapt()
	k.restart()
}

func (k *Calibration) restart() {
	c := k.config
	c.Join = widths[k.width]
	k.judges = [2]Judge{New(c), New(c)}
	k.slices, k.since = 0, stats.Tally{}
}

func (k *Calibration) count(alarm bool) {
	s := &k.kept
	word, bit := &s.History[s.Next/64], uint64(1)<<(s.Next%64)
	*word &^= bit
	s.Total++
	if alarm {
		*word |= bit
		s.Alarms++
	}
	s.Next = (s.Next + 1) % calibrationRuns
	s.Runs = min(s.Runs+1, calibrationRuns)
}

// adapt makes slices longer as soon as there were too many alarms, and shorter after a full history without too many.
func (k *Calibration) adapt() {
	switch ratio := k.ratio(); {
	case ratio > tooNoisy*AlphaWorse && k.width < len(widths)-1:
		k.width++
	case ratio <= AlphaWorse && k.kept.Runs == calibrationRuns && k.width > 0:
		k.width--
	default:
		return
	}
	k.kept = CalibrationState{Join: widths[k.width], Total: k.kept.Total, Alarms: k.kept.Alarms}
}

func (k *Calibration) ratio() float64 {
	alarms := 0
	for _, word := range k.kept.History {
		alarms += bits.OnesCount64(word)
	}
	return float64(alarms) / float64(max(k.kept.Runs, leastRuns))
}

// Join is how many slices should be judged as one: 1, 3 or 6.
func (k *Calibration) Join() int { return widths[k.width] }

// Status is what was found so far.
func (k *Calibration) Status() CalibrationStatus {
	ratio := k.ratio()
	return CalibrationStatus{
		FalseAlarmRatio: ratio, Runs: k.kept.Runs, Total: k.kept.Total, Alarms: k.kept.Alarms, Join: k.Join(),
		Noisy: ratio > tooNoisy*AlphaWorse && k.width == len(widths)-1,
	}
}

// Slice is the length that is judged as one where slices come in the given length.
func (s CalibrationStatus) Slice(length time.Duration) time.Duration {
	if s.Join > 1 {
		return max(length, time.Duration(s.Join)*mainSlice)
	}
	return length
}

// Heed makes j judge as a calibration on the same traffic says: slices, which come in the given length, are joined into as long
// ones, and noisy traffic gets nothing promoted. Call it before the first Add. The zero CalibrationStatus changes nothing.
func (j *Judge) Heed(s CalibrationStatus, slice time.Duration) {
	if slice > 0 {
		j.config.Join = max(j.config.Join, int((s.Slice(slice)+slice-1)/slice))
	}
	j.config.Noisy = s.Noisy
}
