package advise

import (
	"time"

	longpole "github.com/longpole/longpole"
)

// envoy is c as Envoy's API v3 has it: the route's action, the cluster, and a filter for a cache.
func envoy(name string, c longpole.Config) string {
	var l lines
	envoyRoute(&l, name, c)
	envoyCluster(&l, name, c)
	if c.Cache != nil {
		l.add("# HTTP filter, before the router; it heeds the answer's Cache-Control, so the upstream must send")
		l.add("# Cache-Control: max-age=%d, stale-while-revalidate=%d (Envoy's cache is marked work in progress)", wholeSeconds(c.Cache.TTL), int64(c.Cache.StaleWhileRevalidate/time.Second))
		l.add("http_filters:")
		l.add("- name: envoy.filters.http.cache")
		l.add("  typed_config:")
		l.add(`    "@type": type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig`)
		l.add("    typed_config:")
		l.add(`      "@type": type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig`)
	}
	return l.text()
}

func envoyRoute(l *lines, name string, c longpole.Config) {
	if c.Timeout == 0 && c.TryTimeout == 0 && c.Retry == nil {
		return
	}
	l.add("# route")
	l.add("route:")
	l.add("  cluster: %s", name)
	if c.Timeout > 0 {
		l.add("  timeout: %s", seconds(c.Timeout))
	}
	perTry := c.TryTimeout
	hedged := c.Retry != nil && c.Retry.Hedge != nil && c.Retry.Hedge.After > 0
	if hedged {
		perTry = c.Retry.Hedge.After
	}
	if n := attempts(&c); n > 1 || perTry > 0 {
		l.add("  retry_policy:")
		l.add("    retry_on: connect-failure,refused-stream,reset,gateway-error,retriable-status-codes")
		l.add("    retriable_status_codes: [503]")
		l.add("    num_retries: %d", max(n-1, 1))
		if perTry > 0 {
			l.add("    per_try_timeout: %s", seconds(perTry))
		}
		if c.Retry != nil {
			l.add("    retry_back_off: {base_interval: %s, max_interval: %s}", seconds(c.Retry.BaseDelay), seconds(c.Retry.MaxDelay))
		}
		l.add("    retry_host_predicate:")
		l.add("    - name: envoy.retry_host_predicates.previous_hosts")
		l.add("      typed_config:")
		l.add(`        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate`)
		l.add("    host_selection_retry_max_attempts: 3")
	}
	if c.Retry != nil && attempts(&c) == 1 {
		l.add("  # no retry_policy: nothing is tried twice")
	}
	if hedged {
		l.add("  hedge_policy: {hedge_on_per_try_timeout: true}    # the first attempt runs on; idempotent routes only")
	}
}

func envoyCluster(l *lines, name string, c longpole.Config) {
	eject := c.Balance != nil && c.Balance.Eject != nil
	breaks := c.Breaker != nil && !c.Breaker.Off
	budget := c.Retry != nil && !c.Retry.Off
	if !eject && !breaks && !budget && c.Limit == nil && (c.Balance == nil || c.Balance.SlowStart == 0) {
		return
	}
	l.add("# cluster")
	l.add("name: %s", name)
	if c.Balance != nil && c.Balance.SlowStart > 0 {
		l.add("lb_policy: LEAST_REQUEST")
		l.add("least_request_lb_config: {slow_start_config: {slow_start_window: %s}}", seconds(c.Balance.SlowStart))
	}
	if c.Limit != nil || budget {
		l.add("circuit_breakers:")
		l.add("  thresholds:")
		l.add("  - priority: DEFAULT")
		if c.Limit != nil {
			l.add("    max_requests: %d          # fixed: Envoy's adaptive one is the filter envoy.filters.http.adaptive_concurrency", c.Limit.Limit)
			l.add("    max_pending_requests: %d", max(10, c.Limit.Limit/2))
		}
		if budget {
			l.add("    retry_budget: {budget_percent: {value: %g}, min_retry_concurrency: 3}", hundredths(c.Retry.BudgetRatio))
		}
	}
	if !eject && !breaks {
		return
	}
	l.add("outlier_detection:")
	if eject {
		e := c.Balance.Eject
		l.add("  consecutive_5xx: %d", e.Consecutive)
		l.add("  base_ejection_time: %s", seconds(e.For))
		l.add("  max_ejection_time: %s", seconds(e.MaxFor))
		l.add("  max_ejection_percent: %g    # by failures only: Envoy does not eject by latency", hundredths(e.MaxEjected))
	}
	if breaks {
		l.add("  interval: %s", seconds(c.Breaker.Window))
		l.add("  failure_percentage_threshold: %g", hundredths(c.Breaker.FailureRatio))
		l.add("  failure_percentage_request_volume: %d", c.Breaker.MinCalls)
		l.add("  failure_percentage_minimum_hosts: 1")
		l.add("  enforcing_failure_percentage: 100")
		if !eject {
			l.add("  base_ejection_time: %s", seconds(c.Breaker.OpenFor))
			l.add("  max_ejection_time: %s", seconds(c.Breaker.MaxOpenFor))
			l.add("  max_ejection_percent: 100")
		}
	}
}
