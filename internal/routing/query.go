package routing

import (
	"iter"
	"net/url"
	"strings"
)

// pairs are the parameters of a query as they stand in it. Empty ones are left out.
func pairs(raw string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for raw != "" {
			var pair string
			pair, raw, _ = strings.Cut(raw, "&")
			if pair != "" && !yield(pair) {
				return
			}
		}
	}
}

// unquote decodes a name or a value of a query; one that cannot be decoded stands for itself.
func unquote(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}
