package slo

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours: days that summer time lengthens or shortens count as any other.
const Day = 24 * time.Hour

// ErrPeriod is what a text that is no Period gives.
var ErrPeriod = errors.New("slo: want a whole number of days such as 30d, or of hours such as 720h")

// Period is the time over which an error budget is counted, as a sliding window. It is written in days: 30d.
type Period time.Duration

// Duration is p as such.
func (p Period) Duration() time.Duration { return time.Duration(p) }

// String is p in days, or in hours if it is no whole number of days.
func (p Period) String() string {
	if d := time.Duration(p); d%Day != 0 {
		return d.String()
	}
	return strconv.FormatInt(int64(p)/int64(Day), 10) + "d"
}

// MarshalText is String.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads days, weeks or a duration of whole hours: 30d, 4w, 720h. Its error is ErrPeriod.
func (p *Period) UnmarshalText(text []byte) error {
	s := string(text)
	for suffix, unit := range map[string]time.Duration{"d": Day, "w": 7 * Day} {
		if number, found := strings.CutSuffix(s, suffix); found {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return ErrPeriod
			}
			*p = Period(time.Duration(n) * unit)
			return nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d%time.Hour != 0 {
		return ErrPeriod
	}
	*p = Period(d)
	return nil
}
