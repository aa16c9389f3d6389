package evidence

import (
	"testing"
	"time"
)

func lookAt(t *testing.T, page string) RuntimeLook {
	t.Helper()
	samples, err := ParseMetrics(page)
	if err != nil {
		t.Fatal(err)
	}
	return RuntimeLook{Samples: samples}
}

// TestPoolsAreReadFromEveryLibrary: the same empty pool, as each library tells it.
func TestPoolsAreReadFromEveryLibrary(t *testing.T) {
	for name, pages := range map[string][3]string{
		"OpenTelemetry": {
			`db_client_connection_max{db_client_connection_pool_name="shop"} 4
db_client_connection_count{db_client_connection_pool_name="shop",db_client_connection_state="used"} 1
db_client_connection_count{db_client_connection_pool_name="shop",db_client_connection_state="idle"} 3
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="0.01"} 100
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="0.25"} 100
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="+Inf"} 100
db_client_connection_wait_time_seconds_sum{db_client_connection_pool_name="shop"} 0.1
db_client_connection_wait_time_seconds_count{db_client_connection_pool_name="shop"} 100`,
			`db_client_connection_max{db_client_connection_pool_name="shop"} 4
db_client_connection_count{db_client_connection_pool_name="shop",db_client_connection_state="used"} 4
db_client_connection_count{db_client_connection_pool_name="shop",db_client_connection_state="idle"} 0
db_client_connection_pending_requests{db_client_connection_pool_name="shop"} 7`,
			`db_client_connection_max{db_client_connection_pool_name="shop"} 4
db_client_connection_count{db_client_connection_pool_name="shop",db_client_connection_state="used"} 2
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="0.01"} 110
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="0.25"} 200
db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name="shop",le="+Inf"} 200
db_client_connection_wait_time_seconds_sum{db_client_connection_pool_name="shop"} 20.1
db_client_connection_wait_time_seconds_count{db_client_connection_pool_name="shop"} 200`,
		},
		"database/sql": {
			"go_sql_max_open_connections{db_name=\"shop\"} 4\ngo_sql_in_use_connections{db_name=\"shop\"} 0\ngo_sql_wait_count_total{db_name=\"shop\"} 5\ngo_sql_wait_duration_seconds_total{db_name=\"shop\"} 1",
			"go_sql_max_open_connections{db_name=\"shop\"} 4\ngo_sql_in_use_connections{db_name=\"shop\"} 4\ngo_sql_idle_connections{db_name=\"shop\"} 0",
			"go_sql_max_open_connections{db_name=\"shop\"} 4\ngo_sql_in_use_connections{db_name=\"shop\"} 3\ngo_sql_wait_count_total{db_name=\"shop\"} 105\ngo_sql_wait_duration_seconds_total{db_name=\"shop\"} 21",
		},
		"HikariCP": {
			"hikaricp_connections_max{pool=\"shop\"} 4\nhikaricp_connections_active{pool=\"shop\"} 1\nhikaricp_connections_timeout_total{pool=\"shop\"} 1\nhikaricp_connections_acquire_seconds_sum{pool=\"shop\"} 0\nhikaricp_connections_acquire_seconds_count{pool=\"shop\"} 0",
			"hikaricp_connections_max{pool=\"shop\"} 4\nhikaricp_connections_active{pool=\"shop\"} 4\nhikaricp_connections_pending{pool=\"shop\"} 3",
			"hikaricp_connections_max{pool=\"shop\"} 4\nhikaricp_connections_active{pool=\"shop\"} 2\nhikaricp_connections_timeout_total{pool=\"shop\"} 2\nhikaricp_connections_acquire_seconds_sum{pool=\"shop\"} 20\nhikaricp_connections_acquire_seconds_count{pool=\"shop\"} 100",
		},
	} {
		var looks []RuntimeLook
		for _, p := range pages {
			looks = append(looks, lookAt(t, p))
		}
		pools := PoolsOver(looks)
		if len(pools) != 1 {
			t.Errorf("%s: %+v", name, pools)
			continue
		}
		p := pools[0]
		if p.Name != "shop" || p.Max != 4 || p.Used != 4 || p.Idle != 0 || p.Pending == 0 || !p.Exhausted() || p.Free() || !p.Known || p.WaitMean != 200*time.Millisecond {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestAPoolWithRoomIsFree: what refutes that somebody waited for it.
func TestAPoolWithRoomIsFree(t *testing.T) {
	page := "go_sql_max_open_connections{db_name=\"shop\"} 10\ngo_sql_in_use_connections{db_name=\"shop\"} 2\ngo_sql_wait_count_total{db_name=\"shop\"} 5\ngo_sql_wait_duration_seconds_total{db_name=\"shop\"} 1"
	pools := PoolsOver([]RuntimeLook{lookAt(t, page), lookAt(t, page)})
	if len(pools) != 1 || pools[0].Exhausted() || !pools[0].Free() {
		t.Errorf("%+v", pools)
	}
	if pools := PoolsOver([]RuntimeLook{lookAt(t, "up 1")}); len(pools) != 0 {
		t.Errorf("a page without pools: %+v", pools)
	}
}
