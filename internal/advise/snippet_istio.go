package advise

import longpole "github.com/longpole/longpole"

// istio is c as a VirtualService and a DestinationRule.
func istio(name string, c longpole.Config) string {
	var l lines
	if c.Timeout > 0 || c.TryTimeout > 0 || c.Retry != nil {
		l.add("apiVersion: networking.istio.io/v1")
		l.add("kind: VirtualService")
		l.add("metadata: {name: %s}", name)
		l.add("spec:")
		l.add("  hosts: [%s]", name)
		l.add("  http:")
		l.add("  - route: [{destination: {host: %s}}]", name)
		if c.Timeout > 0 {
			l.add("    timeout: %s", seconds(c.Timeout))
		}
		if n := attempts(&c); n > 1 {
			l.add("    retries:")
			l.add("      attempts: %d", n-1)
			if c.TryTimeout > 0 {
				l.add("      perTryTimeout: %s", seconds(c.TryTimeout))
			}
			l.add("      retryOn: connect-failure,refused-stream,reset,gateway-error,503")
		} else if c.Retry != nil {
			l.add("    retries: {attempts: 0}")
		}
		if c.Retry != nil && c.Retry.Hedge != nil {
			l.add("    # no hedging in Istio's API: an EnvoyFilter with hedge_policy does it")
		}
	}
	istioRule(&l, name, c)
	return l.text()
}

func istioRule(l *lines, name string, c longpole.Config) {
	eject := c.Balance != nil && c.Balance.Eject != nil
	breaks := c.Breaker != nil && !c.Breaker.Off
	warm := c.Balance != nil && c.Balance.SlowStart > 0
	if !eject && !breaks && !warm && c.Limit == nil {
		return
	}
	if l.Len() > 0 {
		l.add("---")
	}
	l.add("apiVersion: networking.istio.io/v1")
	l.add("kind: DestinationRule")
	l.add("metadata: {name: %s}", name)
	l.add("spec:")
	l.add("  host: %s", name)
	l.add("  trafficPolicy:")
	if warm {
		l.add("    loadBalancer: {simple: LEAST_REQUEST, warmupDurationSecs: %s}", seconds(c.Balance.SlowStart))
	}
	if c.Limit != nil {
		l.add("    connectionPool:")
		l.add("      http: {http2MaxRequests: %d, http1MaxPendingRequests: %d}", c.Limit.Limit, max(10, c.Limit.Limit/2))
	}
	switch {
	case eject:
		e := c.Balance.Eject
		l.add("    outlierDetection:")
		l.add("      consecutive5xxErrors: %d", e.Consecutive)
		l.add("      baseEjectionTime: %s", seconds(e.For))
		l.add("      maxEjectionPercent: %.0f", hundredths(e.MaxEjected))
	case breaks:
		l.add("    outlierDetection:               # by failures in a row: Istio has no failure share")
		l.add("      consecutive5xxErrors: %d", max(1, c.Breaker.MinCalls/4))
		l.add("      interval: %s", seconds(c.Breaker.Window))
		l.add("      baseEjectionTime: %s", seconds(c.Breaker.OpenFor))
		l.add("      maxEjectionPercent: 100")
	}
}
