package advise

import (
	"time"

	longpole "github.com/longpole/longpole"
)

// nginx is c as directives of the http block: an upstream and a server with one location.
func nginx(name string, c longpole.Config) string {
	if c.Timeout == 0 && c.TryTimeout == 0 && c.Retry == nil && c.Breaker == nil && c.Limit == nil && c.Cache == nil && (c.Balance == nil || c.Balance.Eject == nil) {
		return ""
	}
	var l lines
	if c.Cache != nil {
		l.add("proxy_cache_path /var/cache/nginx/%[1]s levels=1:2 keys_zone=%[1]s:10m max_size=%[2]dm inactive=%[3]ds;", name, max(1, c.Cache.MaxBytes>>20), wholeSeconds(c.Cache.TTL+c.Cache.StaleWhileRevalidate))
	}
	if c.Limit != nil {
		l.add("limit_conn_zone $server_name zone=%s_calls:1m;", name)
	}
	l.add("upstream %s {", name)
	l.add("    least_conn;")
	server := ""
	switch {
	case c.Balance != nil && c.Balance.Eject != nil:
		server = fmtServer(c.Balance.Eject.Consecutive, c.Balance.Eject.For)
	case c.Breaker != nil && !c.Breaker.Off:
		server = fmtServer(max(1, c.Breaker.MinCalls/4), c.Breaker.OpenFor)
	}
	l.add("    server 127.0.0.1:9001%s;    # yours, one line each", server)
	l.add("    server 127.0.0.1:9002%s;", server)
	l.add("    keepalive 32;")
	l.add("}")
	l.add("server {")
	l.add("    listen 127.0.0.1:8080;")
	l.add("    location / {")
	l.add("        proxy_pass http://%s;", name)
	l.add("        proxy_http_version 1.1;")
	l.add(`        proxy_set_header Connection "";`)
	nginxTries(&l, c)
	if c.Limit != nil {
		l.add("        limit_conn %s_calls %d;", name, c.Limit.Limit)
		l.add("        limit_conn_status 503;")
	}
	if c.Cache != nil {
		l.add("        proxy_cache %s;", name)
		l.add("        proxy_cache_valid 200 %ds;", wholeSeconds(c.Cache.TTL))
		l.add("        proxy_cache_lock on;")
		if c.Cache.StaleWhileRevalidate > 0 {
			l.add("        proxy_cache_use_stale updating error timeout http_500 http_502 http_503 http_504;")
			l.add("        proxy_cache_background_update on;")
		}
	}
	l.add("    }")
	l.add("}")
	return l.text()
}

// nginxTries is how long an attempt may take, and what follows one that failed.
func nginxTries(l *lines, c longpole.Config) {
	try := c.TryTimeout
	if try == 0 {
		try = c.Timeout
	}
	if try > 0 {
		l.add("        proxy_connect_timeout %dms;", min(milliseconds(try), 1000))
		l.add("        proxy_read_timeout %dms;    # between two reads, not of the whole answer", milliseconds(try))
	}
	if c.Retry == nil {
		return
	}
	if n := attempts(&c); n > 1 {
		l.add("        proxy_next_upstream error timeout http_502 http_503 http_504;    # not for POST, unless non_idempotent is added")
		l.add("        proxy_next_upstream_tries %d;", n)
		if c.Timeout > 0 {
			l.add("        proxy_next_upstream_timeout %dms;", milliseconds(c.Timeout))
		}
	} else {
		l.add("        proxy_next_upstream off;")
	}
	if c.Retry.Hedge != nil {
		l.add("        # no hedging in nginx")
	}
	l.add("        # no retry budget in nginx: the tries above are the only bound")
}

func fmtServer(fails int, pause time.Duration) string {
	var l lines
	l.add(" max_fails=%d fail_timeout=%ds", fails, wholeSeconds(pause))
	return l.text()
}
