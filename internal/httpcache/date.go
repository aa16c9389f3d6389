package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// ParseDate reads a date in one of the three forms of RFC 9110 section 5.6.7, and in no other: a date that is only nearly
// one is no date, and what it bounds is stale. Letters may be in either case. now resolves the two digits of a year in
// the obsolete form: one that would lie more than 50 years ahead is past.
func ParseDate(s string, now time.Time) (time.Time, bool) {
	switch {
	case len(s) == 29 && s[3] == ',': // Sun, 06 Nov 1994 08:49:37 GMT
		if !isDay(s[:3]) || s[4] != ' ' || s[7] != ' ' || s[11] != ' ' || s[16] != ' ' || !strings.EqualFold(s[25:], " GMT") {
			return time.Time{}, false
		}
		return date(number(s[12:16]), s[8:11], number(s[5:7]), s[17:25])
	case len(s) == 24 && s[3] == ' ': // Sun Nov  6 08:49:37 1994
		day := s[8:10]
		if day[0] == ' ' {
			day = day[1:]
		}
		if !isDay(s[:3]) || s[7] != ' ' || s[10] != ' ' || s[19] != ' ' {
			return time.Time{}, false
		}
		return date(number(s[20:24]), s[4:7], number(day), s[11:19])
	}
	// Sunday, 06-Nov-94 08:49:37 GMT
	day, rest, ok := strings.Cut(s, ", ")
	if !ok || len(rest) != 22 || !isLongDay(day) || rest[2] != '-' || rest[6] != '-' || rest[9] != ' ' || !strings.EqualFold(rest[18:], " GMT") {
		return time.Time{}, false
	}
	year := number(rest[7:9])
	if year < 0 {
		return time.Time{}, false
	}
	if year += now.UTC().Year() / 100 * 100; year > now.UTC().Year()+50 {
		year -= 100
	}
	return date(year, rest[3:6], number(rest[:2]), rest[10:18])
}

const (
	days   = "monday tuesday wednesday thursday friday saturday sunday"
	months = "janfebmaraprmayjunjulaugsepoctnovdec"
)

func isDay(s string) bool {
	for day := range strings.FieldsSeq(days) {
		if strings.EqualFold(day[:3], s) {
			return true
		}
	}
	return false
}

func isLongDay(s string) bool {
	for day := range strings.FieldsSeq(days) {
		if strings.EqualFold(day, s) {
			return true
		}
	}
	return false
}

// number reads digits; -1 when it is anything else.
func number(s string) int {
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return -1
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

func date(year int, month string, day int, clock string) (time.Time, bool) {
	m := strings.Index(months, strings.ToLower(month))
	hour, minute, second := number(clock[:2]), number(clock[3:5]), number(clock[6:8])
	if m < 0 || m%3 != 0 || year < 0 || day < 1 || clock[2] != ':' || clock[5] != ':' ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(m/3+1), day, hour, minute, min(second, 59), 0, time.UTC)
	return t, t.Day() == day // the 31st of a shorter month is no date
}

// dateOf reads a field that is a single date.
func dateOf(h http.Header, name string, now time.Time) (time.Time, bool) {
	if lines := h[name]; len(lines) == 1 {
		return ParseDate(lines[0], now)
	}
	return time.Time{}, false
}

// httpDate writes t as a field value.
func httpDate(t time.Time) string { return t.UTC().Format(http.TimeFormat) }
