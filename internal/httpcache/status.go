package httpcache

import (
	"strconv"
	"strings"
	"time"
)

// Status is what a cache did for one request, for the Cache-Status field (RFC 9211).
type Status struct {
	Hit       bool          // answered with a kept answer, without asking
	Forward   string        // why the origin was asked: bypass, method, request, uri-miss, vary-miss, miss, stale, partial; "" with Hit
	Answered  int           // status of the origin's answer, where it differs from the one given; 0 = not said
	Timed     bool          // TTL is known
	TTL       time.Duration // for how long the answer is fresh; negative = stale
	Stored    bool          // the origin's answer was kept
	Collapsed bool          // waited for the fetch of another request
	Detail    string        // a token for people; "" = none
}

// Line is s as a member of the field, for the cache of that name, which must be a token.
func (s Status) Line(name string) string {
	var b strings.Builder
	b.WriteString(name)
	if s.Hit {
		b.WriteString("; hit")
	} else if s.Forward != "" {
		b.WriteString("; fwd=" + s.Forward)
	}
	if s.Answered != 0 {
		b.WriteString("; fwd-status=" + strconv.Itoa(s.Answered))
	}
	if s.Timed {
		b.WriteString("; ttl=" + strconv.FormatInt(int64(s.TTL/time.Second), 10))
	}
	if s.Stored {
		b.WriteString("; stored")
	}
	if s.Collapsed {
		b.WriteString("; collapsed")
	}
	if s.Detail != "" {
		b.WriteString("; detail=" + s.Detail)
	}
	return b.String()
}
