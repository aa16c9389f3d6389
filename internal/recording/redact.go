package recording

import (
	"hash/maphash"
	"net/url"
	"strconv"
	"strings"
)

// seed is of this process: what it hides can be compared, and not be looked up.
var seed = maphash.MakeSeed()

// Redact returns a query with the values of parameters that carry credentials replaced by a hash, equal ones by equal
// ones. What cannot be read is taken by its raw name. It is for spans and logs, and safe for concurrent use.
func Redact(query string) string {
	if query == "" {
		return query
	}
	var b strings.Builder
	for rest := query; ; {
		part, separator := rest, ""
		if i := strings.IndexAny(rest, "&;"); i >= 0 {
			part, separator = rest[:i], rest[i:i+1]
		}
		rest = rest[len(part)+len(separator):]
		name, value, has := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil {
			plain = name
		}
		if has && value != "" && Secret(plain) {
			part = name + "=~" + strconv.FormatUint(maphash.String(seed, value), 36)
		}
		b.WriteString(part)
		b.WriteString(separator)
		if separator == "" {
			return b.String()
		}
	}
}
