package evidence

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// poolFamily is how one library names the figures of its connection pools; counters are told by their growth.
type poolFamily struct {
	label               []string          // that names the pool, the first that a sample has
	max, used, idle     string            // gauges; used and idle may be one metric that differs by state
	usedLabel           map[string]string // what a sample of used must have; nil = nothing
	idleLabel           map[string]string
	pending             string  // gauge
	timeouts            string  // counter
	waitSum, waitCount  string  // counters: time waited, and by how many
	waitBucket          string  // classic histogram of waits
	unit                float64 // seconds of one of waitSum and of the bounds of waitBucket
	everybody           bool    // waitCount counts those who did not wait too
	pendingByWaitsGrown bool    // there is no pending: growth of waitCount tells that somebody waited
}

// poolFamilies in the order in which they are looked for.
//
// Sources: OpenTelemetry semantic conventions for database clients, stable and 1.24; prometheus/client_golang
// NewDBStatsCollector; HikariCP by Micrometer; IBM/pgxpoolprometheus.
var poolFamilies = []poolFamily{
	{
		label: []string{"db_client_connection_pool_name", "pool_name"}, max: "db_client_connection_max", used: "db_client_connection_count", idle: "db_client_connection_count",
		usedLabel: map[string]string{"db_client_connection_state": "used"}, idleLabel: map[string]string{"db_client_connection_state": "idle"},
		pending: "db_client_connection_pending_requests", timeouts: "db_client_connection_timeouts_total", waitSum: "db_client_connection_wait_time_seconds_sum",
		waitCount: "db_client_connection_wait_time_seconds_count", waitBucket: "db_client_connection_wait_time_seconds_bucket", unit: 1, everybody: true,
	},
	{
		label: []string{"pool_name"}, max: "db_client_connections_max", used: "db_client_connections_usage", idle: "db_client_connections_usage",
		usedLabel: map[string]string{"state": "used"}, idleLabel: map[string]string{"state": "idle"},
		pending: "db_client_connections_pending_requests", timeouts: "db_client_connections_timeouts_total", waitSum: "db_client_connections_wait_time_milliseconds_sum",
		waitCount: "db_client_connections_wait_time_milliseconds_count", waitBucket: "db_client_connections_wait_time_milliseconds_bucket", unit: 1e-3, everybody: true,
	},
	{
		label: []string{"db_name"}, max: "go_sql_max_open_connections", used: "go_sql_in_use_connections", idle: "go_sql_idle_connections",
		waitSum: "go_sql_wait_duration_seconds_total", waitCount: "go_sql_wait_count_total", unit: 1, pendingByWaitsGrown: true,
	},
	{
		label: []string{"pool"}, max: "hikaricp_connections_max", used: "hikaricp_connections_active", idle: "hikaricp_connections_idle",
		pending: "hikaricp_connections_pending", timeouts: "hikaricp_connections_timeout_total",
		waitSum: "hikaricp_connections_acquire_seconds_sum", waitCount: "hikaricp_connections_acquire_seconds_count", waitBucket: "hikaricp_connections_acquire_seconds_bucket", unit: 1, everybody: true,
	},
	{
		label: []string{"db_name", "pool"}, max: "pgxpool_max_conns", used: "pgxpool_acquired_conns", idle: "pgxpool_idle_conns",
		timeouts: "pgxpool_canceled_acquire_count", waitSum: "pgxpool_acquire_duration_ns", waitCount: "pgxpool_empty_acquire", unit: 1e-9, pendingByWaitsGrown: true,
	},
}

// PoolsOver says what the connection pools of a process did over several looks at its metrics, in the order of their times:
// gauges at their worst, counters by their growth from the first look to the last. With one look the counters tell nothing.
// Pools are sorted by name, at most MaxPools.
func PoolsOver(looks []RuntimeLook) []PoolStats {
	var out []PoolStats
	for _, family := range poolFamilies {
		names := map[string]bool{}
		for _, l := range looks {
			for _, s := range l.Samples {
				if s.Name == family.used || s.Name == family.max {
					names[family.name(s)] = true
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out = append(out, family.over(name, looks))
		}
	}
	slices.SortStableFunc(out, func(a, b PoolStats) int { return cmp.Compare(a.Name, b.Name) })
	return out[:min(len(out), MaxPools)]
}

func (f poolFamily) name(s Sample) string {
	for _, l := range f.label {
		if n := s.Labels[l]; n != "" {
			return n
		}
	}
	return ""
}

// sum adds up the samples of one metric of one pool; ok is false where there is none.
func (f poolFamily) sum(look RuntimeLook, metric, pool string, want map[string]string) (sum float64, ok bool) {
	for _, s := range look.Samples {
		if metric == "" || s.Name != metric || f.name(s) != pool || math.IsNaN(s.Value) {
			continue
		}
		fits := true
		for k, v := range want {
			fits = fits && s.Labels[k] == v
		}
		if fits {
			sum, ok = sum+s.Value, true
		}
	}
	return sum, ok
}

func (f poolFamily) over(pool string, looks []RuntimeLook) PoolStats {
	p := PoolStats{Name: cmp.Or(pool, "connections"), Idle: math.Inf(1)}
	for _, l := range looks {
		used, _ := f.sum(l, f.used, pool, f.usedLabel)
		idle, told := f.sum(l, f.idle, pool, f.idleLabel)
		most, _ := f.sum(l, f.max, pool, nil)
		pending, _ := f.sum(l, f.pending, pool, nil)
		p.Used, p.Max, p.Pending = max(p.Used, used), max(p.Max, most), max(p.Pending, pending)
		if told {
			p.Idle = min(p.Idle, idle)
		}
	}
	if math.IsInf(p.Idle, 1) {
		p.Idle = 0
	}
	f.waits(&p, pool, looks)
	return p
}

// waits sets what the growth of the counters tells.
func (f poolFamily) waits(p *PoolStats, pool string, looks []RuntimeLook) {
	if len(looks) < 2 {
		return
	}
	first, last := looks[0], looks[len(looks)-1]
	grown := func(metric string) (float64, bool) {
		a, _ := f.sum(first, metric, pool, nil)
		b, ok := f.sum(last, metric, pool, nil)
		return b - a, ok && b >= a
	}
	p.Timeouts, _ = grown(f.timeouts)
	count, ok := grown(f.waitCount)
	sum, also := grown(f.waitSum)
	if !ok || !also {
		return
	}
	p.Known = true
	if count > 0 {
		p.WaitMean = atMost(sum * f.unit / count)
	}
	if q, ok := f.p99(pool, first, last); ok {
		p.WaitP99 = q
	} else {
		// Without a histogram only those who waited were counted: their mean is the best there is.
		p.WaitP99 = p.WaitMean
	}
	if f.pendingByWaitsGrown && count > 0 && p.Max > 0 && p.Used >= p.Max {
		p.Pending = max(p.Pending, 1)
	}
}

// p99 of the waits between two looks: an upper bound.
func (f poolFamily) p99(pool string, first, last RuntimeLook) (time.Duration, bool) {
	counts := bucketGrowth(first.Samples, last.Samples, func(s Sample) bool { return f.waitBucket != "" && s.Name == f.waitBucket && f.name(s) == pool })
	total := counts[math.Inf(1)]
	if total <= 0 {
		return 0, false
	}
	upper, _ := bucketQuantile(counts, 0.99, total)
	return atMost(upper * f.unit), true
}
