package advise

import (
	"time"

	longpole "github.com/longpole/longpole"
)

// haproxy is c as a backend, and the cache that it uses.
func haproxy(name string, c longpole.Config) string {
	if c.Timeout == 0 && c.TryTimeout == 0 && c.Retry == nil && c.Breaker == nil && c.Limit == nil && c.Cache == nil && c.Balance == nil {
		return ""
	}
	var l lines
	if c.Cache != nil {
		l.add("cache %s", name)
		l.add("    total-max-size %d", min(4095, max(1, c.Cache.MaxBytes>>20)))
		l.add("    max-object-size %d", min(c.Cache.MaxEntryBytes, c.Cache.MaxBytes/2))
		l.add("    max-age %d", wholeSeconds(c.Cache.TTL))
		l.add("")
	}
	l.add("backend %s", name)
	l.add("    mode http")
	l.add("    balance leastconn")
	l.add("    timeout connect 1s")
	try := c.TryTimeout
	if try == 0 {
		try = c.Timeout
	}
	if try == 0 {
		try = 30 * time.Second
	}
	l.add("    timeout server %dms", milliseconds(try))
	if c.Limit != nil {
		l.add("    timeout queue 1s")
	}
	if c.Retry != nil {
		if n := attempts(&c); n > 1 {
			l.add("    retries %d", n-1)
			l.add("    retry-on conn-failure empty-response response-timeout 502 503 504    # also for POST, unless disabled:")
			l.add("    http-request disable-l7-retry if METH_POST")
			l.add("    option redispatch 1")
		} else {
			l.add("    retries 0")
		}
		if c.Retry.Hedge != nil {
			l.add("    # no hedging in HAProxy")
		}
	}
	if c.Cache != nil {
		l.add("    http-request cache-use %s", name)
		l.add("    http-response cache-store %s", name)
		l.add("    # it stores what Cache-Control allows; no stale answers in HAProxy")
	}
	server := haproxyServer(c)
	l.add("    server s1 127.0.0.1:9001%s    # yours, one line each", server)
	l.add("    server s2 127.0.0.1:9002%s", server)
	return l.text()
}

// haproxyServer is the options of a server line.
func haproxyServer(c longpole.Config) string {
	text := ""
	add := func(format string, args ...any) {
		var l lines
		l.add(" "+format, args...)
		text += l.text()
	}
	if c.Balance != nil && c.Balance.SlowStart > 0 {
		add("slowstart %ds", wholeSeconds(c.Balance.SlowStart))
		if c.Balance.Eject == nil && (c.Breaker == nil || c.Breaker.Off) {
			add("check inter 2s")
		}
	}
	if c.Limit != nil {
		add("maxconn %d", max(1, c.Limit.Limit/2))
	}
	switch {
	case c.Balance != nil && c.Balance.Eject != nil:
		add("check inter %ds observe layer7 error-limit %d on-error mark-down", wholeSeconds(c.Balance.Eject.For), c.Balance.Eject.Consecutive)
	case c.Breaker != nil && !c.Breaker.Off:
		add("check inter %ds observe layer7 error-limit %d on-error mark-down", wholeSeconds(c.Breaker.OpenFor), max(1, c.Breaker.MinCalls/4))
	}
	return text
}
