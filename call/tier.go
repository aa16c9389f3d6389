package call

import (
	"strconv"
	"strings"
)

// FormatTier writes a priority and a cohort as one hop tells them to the next: "critical;cohort=17", an item of RFC 9651.
// A priority outside of the tiers is written as the nearest one.
func FormatTier(p Priority, cohort uint8) string {
	return min(max(p, Speculative), Critical).String() + ";cohort=" + strconv.Itoa(int(min(cohort, 127)))
}

// ParseTier reads what FormatTier writes, or a tier alone. ok is false for anything else.
func ParseTier(s string) (p Priority, cohort uint8, withCohort, ok bool) {
	tier, parameter, more := strings.Cut(strings.TrimSpace(s), ";")
	if p.UnmarshalText([]byte(tier)) != nil {
		return 0, 0, false, false
	}
	if !more {
		return p, 0, false, true
	}
	text, named := strings.CutPrefix(strings.TrimSpace(parameter), "cohort=")
	n, err := strconv.ParseUint(text, 10, 7)
	if !named || err != nil {
		return 0, 0, false, false
	}
	return p, uint8(n), true, true
}
