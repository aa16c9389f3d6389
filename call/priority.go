package call

import (
	"errors"
	"slices"
)

var priorities = []string{"speculative", "background", "deferrable", "normal", "important", "critical"}

// String is the lower-case name used in settings, headers and metrics.
func (p Priority) String() string {
	if p < Speculative || p > Critical {
		return "unknown"
	}
	return priorities[p-Speculative]
}

// MarshalText is String.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what String writes.
func (p *Priority) UnmarshalText(text []byte) error {
	i := slices.Index(priorities, string(text))
	if i < 0 {
		return errors.New("want critical, important, normal, deferrable, background or speculative")
	}
	*p = Speculative + Priority(i)
	return nil
}
