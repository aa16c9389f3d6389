package advise

import longpole "github.com/longpole/longpole"

// resilience4j is c as the application.yml of its Spring Boot starter.
func resilience4j(name string, c longpole.Config) string {
	var l lines
	instance := func(module string) {
		if l.Len() == 0 {
			l.add("resilience4j:")
		}
		l.add("  %s:", module)
		l.add("    instances:")
		l.add("      %s:", name)
	}
	if limit := c.TryTimeout; limit > 0 || c.Timeout > 0 {
		if limit == 0 {
			limit = c.Timeout
		}
		instance("timelimiter")
		l.add("        timeoutDuration: %dms", milliseconds(limit))
		l.add("        cancelRunningFuture: true")
	}
	if c.Retry != nil {
		instance("retry")
		l.add("        maxAttempts: %d", attempts(&c))
	}
	if attempts(&c) > 1 {
		l.add("        waitDuration: %dms", milliseconds(c.Retry.BaseDelay))
		l.add("        enableExponentialBackoff: true")
		l.add("        exponentialBackoffMultiplier: 2")
		l.add("        exponentialMaxWaitDuration: %dms", milliseconds(c.Retry.MaxDelay))
		l.add("        enableRandomizedWait: true")
		l.add("        randomizedWaitFactor: 0.5")
		l.add("        # no retry budget and no hedging in these settings")
	}
	if b := c.Breaker; b != nil && !b.Off {
		instance("circuitbreaker")
		l.add("        slidingWindowType: TIME_BASED")
		l.add("        slidingWindowSize: %d", wholeSeconds(b.Window))
		l.add("        minimumNumberOfCalls: %d", b.MinCalls)
		l.add("        failureRateThreshold: %g", hundredths(b.FailureRatio))
		if b.SlowAfter > 0 {
			l.add("        slowCallDurationThreshold: %dms", milliseconds(b.SlowAfter))
			l.add("        slowCallRateThreshold: %g", hundredths(b.SlowRatio))
		}
		l.add("        waitDurationInOpenState: %dms", milliseconds(b.OpenFor))
		l.add("        permittedNumberOfCallsInHalfOpenState: %d", b.Probes)
		l.add("        automaticTransitionFromOpenToHalfOpenEnabled: true")
	}
	if c.Limit != nil {
		instance("bulkhead")
		l.add("        maxConcurrentCalls: %d", c.Limit.Limit)
		l.add("        maxWaitDuration: 100ms")
		if r := c.Limit.Rate; r != nil {
			instance("ratelimiter")
			l.add("        limitForPeriod: %d", max(1, int64(r.PerSecond)))
			l.add("        limitRefreshPeriod: 1s")
			l.add("        timeoutDuration: 0ms")
		}
	}
	return l.text()
}
