package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longpole/longpole/internal/slo"
)

var (
	targetDesc    = prometheus.NewDesc("longpole_slo_target_ratio", "Share of the calls that an objective promises to be good.", []string{"slo", "route"}, nil)
	goodDesc      = prometheus.NewDesc("longpole_slo_good_ratio", "Share of the calls of the period that were good; missing without calls.", []string{"slo", "route"}, nil)
	remainingDesc = prometheus.NewDesc("longpole_slo_error_budget_remaining_ratio", "Share of the error budget that is left; below 0 when more was used than there was.", []string{"slo", "route"}, nil)
	exhaustedDesc = prometheus.NewDesc("longpole_slo_exhausted_timestamp_seconds", "When the error budget is used up if all goes on as in the last hour, in seconds since 1970; missing when it lasts.", []string{"slo", "route"}, nil)
	burnDesc      = prometheus.NewDesc("longpole_slo_burn_rate", "How fast the error budget is used; 1 uses it up in just one period.", []string{"slo", "route", "window"}, nil)
	alertDesc     = prometheus.NewDesc("longpole_slo_alert_firing", "1 while an objective's alert fires.", []string{"slo", "route", "severity"}, nil)

	desiredDesc  = prometheus.NewDesc("longpole_scale_desired_replicas", "Replicas that a workload should have.", []string{"workload"}, nil)
	currentDesc  = prometheus.NewDesc("longpole_scale_current_replicas", "Replicas that a workload has: ready, or starting.", []string{"workload", "state"}, nil)
	expectedDesc = prometheus.NewDesc("longpole_scale_expected_calls_per_second", "Calls that are expected when a replica ordered now has started.", []string{"workload"}, nil)
	dryDesc      = prometheus.NewDesc("longpole_scale_dry_run", "1 when nobody acts upon the recommendation.", []string{"workload"}, nil)

	alertsDesc = prometheus.NewDesc("longpole_notifications_total", "Alerts for the webhook: sent, failed after all attempts, dropped for want of room.", []string{"result"}, nil)
)

// Collector shows objectives, recommendations and sent alerts as metrics. Any part may be nil, but Now: what time it is.
type Collector struct {
	Book     *slo.Book
	Board    *Board
	Notifier func() *Notifier // the one at present; it may return nil
	Now      func() time.Time
}

// Describe sends nothing: which series exist depends on the configuration.
func (c Collector) Describe(chan<- *prometheus.Desc) {}

// Collect is part of prometheus.Collector.
func (c Collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if c.Book != nil {
		for _, s := range c.Book.Status(c.Now()) {
			objective(gauge, s)
		}
	}
	if c.Board != nil {
		for _, r := range c.Board.All() {
			gauge(desiredDesc, float64(r.Desired), r.Name)
			gauge(currentDesc, float64(r.Ready), r.Name, "ready")
			gauge(currentDesc, float64(r.Current-r.Ready), r.Name, "starting")
			gauge(expectedDesc, r.PerSecond, r.Name)
			gauge(dryDesc, flag(r.DryRun), r.Name)
		}
	}
	if c.Notifier == nil {
		return
	}
	if notifier := c.Notifier(); notifier != nil {
		n := notifier.Counts()
		for result, v := range map[string]uint64{"sent": n.Sent, "failed": n.Failed, "dropped": n.Dropped} {
			out <- prometheus.MustNewConstMetric(alertsDesc, prometheus.CounterValue, float64(v), result)
		}
	}
}

func objective(gauge func(*prometheus.Desc, float64, ...string), s slo.Status) {
	gauge(targetDesc, s.Target, s.Name, s.Route)
	gauge(remainingDesc, s.Remaining, s.Name, s.Route)
	if s.Calls > 0 {
		gauge(goodDesc, s.Good, s.Name, s.Route)
	}
	if s.Exhausted != nil {
		gauge(exhaustedDesc, float64(s.Exhausted.Unix()), s.Name, s.Route)
	}
	told := map[string]bool{} // windows may share one
	for _, b := range s.Burns {
		for text, v := range map[string]float64{b.LongText: b.LongBurn, b.ShortText: b.ShortBurn} {
			if !told[text] {
				told[text] = true
				gauge(burnDesc, v, s.Name, s.Route, text)
			}
		}
	}
	for _, a := range s.Alerts {
		gauge(alertDesc, flag(a.State == slo.Firing), s.Name, s.Route, string(a.Severity))
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
