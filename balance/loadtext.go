package balance

import (
	"strconv"
	"strings"
	"time"
)

// String is the load as it travels in a header: "rif=3, latency-us=1250", a dictionary of RFC 9651.
func (l Load) String() string {
	b := make([]byte, 0, 32)
	b = strconv.AppendInt(append(b, "rif="...), int64(l.RIF), 10)
	b = strconv.AppendInt(append(b, ", latency-us="...), l.Latency.Microseconds(), 10)
	return string(b)
}

// ParseLoad reads what String wrote, in any order and with members it does not know. ok is false without a rif.
func ParseLoad(s string) (l Load, ok bool) {
	for member := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(member), "=")
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			continue
		}
		switch key {
		case "rif":
			l.RIF, ok = int(n), true
		case "latency-us":
			l.Latency = time.Duration(n) * time.Microsecond
		}
	}
	return l, ok
}
