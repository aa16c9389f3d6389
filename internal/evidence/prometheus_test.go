package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
)

// series reads "name{label=value,...} v0 v1 ..." lines as series of values 30 s apart.
func series(t testing.TB, text string) (list []Series) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(text)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "{")
		inner, values, ok := strings.Cut(rest, "} ")
		if !ok {
			t.Fatal(line)
		}
		s := Series{Labels: map[string]string{}}
		if name != "" {
			s.Labels["__name__"] = name
		}
		for pair := range strings.SplitSeq(inner, ",") {
			if k, v, ok := strings.Cut(pair, "="); ok {
				s.Labels[k] = v
			}
		}
		for i, text := range strings.Fields(values) {
			var v float64
			if text == "-" {
				continue // no sample then
			}
			if _, err := fmt.Sscan(text, &v); err != nil {
				t.Fatal(line, err)
			}
			s.Points = append(s.Points, SeriesPoint{At: time.Unix(int64(30*i), 0).UTC(), Value: v})
		}
		list = append(list, s)
	}
	return list
}

// told writes what is told of processes: "service/instance figure=value ...".
func told(list []ServiceFacts) string {
	var out []string
	for _, s := range list {
		text := s.Service + "/" + s.Instance
		r := s.Runtime
		for _, f := range []struct {
			name string
			v    *float64
		}{{"cpu", r.CPU}, {"procs", r.Procs}, {"pause", r.GCPause}, {"runs", r.GCRuns}, {"threads", r.Goroutines}, {"throttled", r.Throttled}, {"memory", r.Memory}} {
			if f.v != nil {
				text += fmt.Sprintf(" %s=%.4g", f.name, *f.v)
			}
		}
		if r.Restarted {
			text += " restarted"
		}
		for _, p := range s.Pools {
			text += fmt.Sprintf(" pool %s %g/%g", p.Name, p.Used, p.Max)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func TestProcessesAreReadFromSeries(t *testing.T) {
	for _, c := range []struct{ name, series, want string }{
		{"Go, by the labels of a scrape", `
			process_cpu_seconds_total{job=cart,instance=a:1} 10 40 70
			go_gc_duration_seconds_sum{job=cart,instance=a:1} 1 1.3 1.6
			go_goroutines{job=cart,instance=a:1} 7 8 9
			go_sched_gomaxprocs_threads{job=cart,instance=a:1} 4 4 4`, "cart/a:1 cpu=1 procs=4 pause=0.01 threads=9"},
		{"a JVM by OpenTelemetry, whose job has a namespace", `
			jvm_cpu_time_seconds_total{job=shop/cart,instance=x} 0 60 120
			jvm_cpu_count{job=shop/cart,instance=x} 8 8 8
			jvm_gc_duration_seconds_sum{job=shop/cart,instance=x,jvm_gc_name=young} 0 3 6
			jvm_gc_duration_seconds_sum{job=shop/cart,instance=x,jvm_gc_name=old} 0 0 6
			jvm_gc_duration_seconds_count{job=shop/cart,instance=x,jvm_gc_name=young} 0 3 6
			jvm_thread_count{job=shop/cart,instance=x} 5 5 6`, "cart/x cpu=2 procs=8 pause=0.2 runs=0.1 threads=6"},
		{"a JVM by Micrometer, and its pool at its worst", `
			process_cpu_usage{job=cart,instance=x} 0.5 0.5 0.25
			system_cpu_count{job=cart,instance=x} 4 4 4
			jvm_gc_pause_seconds_sum{job=cart,instance=x} 0 0 30
			hikaricp_connections_active{job=cart,instance=x,pool=main} 3 10 2
			hikaricp_connections_max{job=cart,instance=x,pool=main} 10 10 10`, "cart/x cpu=1 procs=4 pause=0.5 pool main 10/10"},
		{"a container is that of the process of its pod", `
			process_cpu_seconds_total{service_name=cart,pod=p1} 0 30 60
			container_cpu_cfs_throttled_periods_total{pod=p1,container=app,job=kubelet} 0 10 50
			container_cpu_cfs_periods_total{pod=p1,container=app,job=kubelet} 0 50 100
			container_cpu_cfs_periods_total{pod=p1,container=POD,job=kubelet} 0 50 100
			container_cpu_cfs_periods_total{pod=p1,job=kubelet} 0 50 100
			container_spec_cpu_quota{pod=p1,container=app} 200000
			container_spec_cpu_period{pod=p1,container=app} 100000
			container_spec_cpu_quota{pod=p1,container=app} - - 200000
			container_spec_cpu_period{pod=p1,container=app} - - 100000`, "cart/p1 cpu=1 procs=2 throttled=0.5"},
		{"or of the service that it is called as", `
			container_cpu_usage_seconds_total{pod=p1,container=cart} 0 15 30
			container_memory_working_set_bytes{pod=p1,container=cart} 1 2 3
			container_spec_memory_limit_bytes{pod=p1,container=cart} 4 4 4`, "cart/p1 cpu=0.5 memory=0.75"},
		{"rates are of the last run of a process", `
			process_start_time_seconds{job=cart,instance=x} 100 200 200
			process_cpu_seconds_total{job=cart,instance=x} 1000 1 16`, "cart/x cpu=0.5 restarted"},
		{"a process that was not seen at the end was not begun anew", `
			process_start_time_seconds{service_name=cart,pod=p1} 100 100 -
			process_cpu_seconds_total{service_name=cart,pod=p1} 0 30 -
			container_cpu_cfs_throttled_periods_total{pod=p1,container=app} 0 25 50
			container_cpu_cfs_periods_total{pod=p1,container=app} 0 50 100`, "cart/p1 cpu=1 throttled=0.5"},
		{"nor was one that was seen later than its container", `
			process_start_time_seconds{service_name=cart,pod=p1} - 100 100
			process_cpu_seconds_total{service_name=cart,pod=p1} - 30 60
			container_cpu_cfs_throttled_periods_total{pod=p1,container=app} 0 25 50
			container_cpu_cfs_periods_total{pod=p1,container=app} 0 50 100`, "cart/p1 cpu=1 throttled=0.5"},
		{"what has no name is nobody's", `process_cpu_seconds_total{instance=x} 1 2 3`, ""},
		{"one look tells no rate", `process_cpu_seconds_total{job=cart,instance=x} 5
			go_goroutines{job=cart,instance=x} 3`, "cart/x threads=3"},
	} {
		if got := told(Processes(series(t, c.series), SeriesNaming{})); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestNamesOfServicesMayDiffer(t *testing.T) {
	n := SeriesNaming{Service: []string{"team"}, Instance: []string{"host"}, Rename: map[string]string{"svc-7": "cart"}}
	got := Processes(series(t, `go_goroutines{team=svc-7,host=h,job=x,instance=y} 1
		go_goroutines{team=other,host=h} 1`), n)
	if told(got) != "cart/h threads=1; other/h threads=1" || got[0].Source != `{team="svc-7",host="h"}` {
		t.Errorf("%s, from %s", told(got), got[0].Source)
	}
}

func TestCallsAreReadFromBuckets(t *testing.T) {
	family := func(name string) ServedFamily {
		for _, f := range ServedFamilies() {
			if f.Name == name {
				return f
			}
		}
		t.Fatal(name)
		return ServedFamily{}
	}
	for _, c := range []struct{ name, family, series, want string }{
		{"HTTP, of which a tenth fails", "http_server_request_duration_seconds", `
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=200,le=0.1} 80
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=200,le=1} 90
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=200,le=+Inf} 90
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=503,le=0.1} 0
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=503,le=1} 10
			{job=cart,http_request_method=GET,http_route=/cart,http_response_status_code=503,le=+Inf} 10`, "cart GET /cart 10.0/s 0.10 100ms 1s 1s"},
		{"milliseconds", "http_server_duration_milliseconds", `
			{service_name=cart,http_method=PUT,http_route=/x,http_status_code=200,le=5} 10
			{service_name=cart,http_method=PUT,http_route=/x,http_status_code=200,le=+Inf} 10`, "cart PUT /x 1.0/s 0.00 5ms 5ms 5ms"},
		{"gRPC by OpenTelemetry", "rpc_server_duration_milliseconds", `
			{job=cart,rpc_service=shop.Cart,rpc_method=Add,rpc_grpc_status_code=0,le=10} 5
			{job=cart,rpc_service=shop.Cart,rpc_method=Add,rpc_grpc_status_code=0,le=+Inf} 5
			{job=cart,rpc_service=shop.Cart,rpc_method=Add,rpc_grpc_status_code=14,le=10} 0
			{job=cart,rpc_service=shop.Cart,rpc_method=Add,rpc_grpc_status_code=14,le=+Inf} 5`, "cart shop.Cart/Add 1.0/s 0.50 10ms 10ms 10ms or more"},
		{"slower than the last bound", "http_request_duration_seconds", `
			{job=cart,handler=/x,le=1} 95
			{job=cart,handler=/x,le=+Inf} 100`, "cart /x 10.0/s 0.00 1s 1s 1s or more"},
		{"what fell is no growth", "http_request_duration_seconds", `
			{job=cart,handler=/x,code=200,le=1} 10
			{job=cart,handler=/x,code=200,le=+Inf} 10
			{job=cart,handler=/x,code=500,le=1} -5
			{job=cart,handler=/x,code=500,le=+Inf} -5`, "cart /x 1.0/s 0.00 1s 1s 1s"},
		{"no calls, no route", "http_request_duration_seconds", `{job=cart,handler=/x,le=+Inf} 0`, ""},
		{"a summary has no buckets", "http_request_duration_seconds", `{job=cart,handler=/x,quantile=0.99} 3`, ""},
	} {
		var got []string
		for _, r := range Served(series(t, c.series), family(c.family), SeriesNaming{}, 10*time.Second, "q") {
			more := ""
			if r.Beyond {
				more = " or more"
			}
			got = append(got, fmt.Sprintf("%s %s %.1f/s %.2f %s %s %s%s", r.Service, r.Route, r.Calls, r.Failed, r.P50, r.P95, r.P99, more))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
}

func TestRoutesAreFoundByTheNamesOfSpans(t *testing.T) {
	f := Facts{Routes: []RouteStats{{Service: "cart", Route: "GET /cart/{id}"}, {Service: "cart", Route: "/health"}, {Service: "cart", Route: "shop.Cart/Add"}, {Service: "cart"}}}
	for operation, want := range map[string]string{
		"GET /cart/{id}": "GET /cart/{id}", "/cart/{id}": "GET /cart/{id}", "GET /health": "/health", "shop.Cart/Add": "shop.Cart/Add", "GET": "", "": "", "/other": "",
	} {
		got := ""
		if r := f.Route("cart", operation); r != nil {
			got = r.Route
		}
		if got != want {
			t.Errorf("%q is %q, want %q", operation, got, want)
		}
	}
	if f.Route("shop", "/health") != nil {
		t.Error("a route of another service is found")
	}
}

func TestBacklogsAreReadFromSeries(t *testing.T) {
	for _, c := range []struct{ name, series, want string }{
		{"Kafka, partitions together, more than is worked off", `
			kafka_consumergroup_lag{topic=orders,consumergroup=mail,partition=0} 10 50 90
			kafka_consumergroup_lag{topic=orders,consumergroup=mail,partition=1} 5 5 10
			kafka_consumergroup_current_offset{topic=orders,consumergroup=mail,partition=0} 0 20 60
			kafka_topic_partition_current_offset{topic=orders,partition=0} 0 60 140`, "orders mail pending=100 in=2.3 out=1.0 busy=2.33 known=true wait=1m40s idle=false"},
		{"Kafka, whose topic began anew: what arrived is not known", `
			kafka_consumergroup_lag{topic=orders,consumergroup=mail} 10 20 30
			kafka_consumergroup_current_offset{topic=orders,consumergroup=mail} 0 30 60
			kafka_topic_partition_current_offset{topic=orders} 900 0 90`, "orders mail pending=30 in=0.0 out=1.0 busy=0.00 known=false wait=30s idle=false"},
		{"RabbitMQ without a consumer", `
			rabbitmq_queue_messages_ready{queue=mails} 10 20 30
			rabbitmq_queue_messages_unacked{queue=mails} 0 0 0
			rabbitmq_queue_consumers{queue=mails} 0 0 0`, "mails  pending=30 in=0.0 out=0.0 busy=0.00 known=false wait=0s idle=true"},
		{"JetStream, where one server leads the consumer and another its stream", `
			jetstream_consumer_num_pending{stream_name=S,consumer_name=C,is_consumer_leader=true,is_stream_leader=false} 4 4 4
			jetstream_consumer_num_pending{stream_name=S,consumer_name=C,is_consumer_leader=false,is_stream_leader=true} 4 4 4
			jetstream_consumer_ack_floor_stream_seq{stream_name=S,consumer_name=C,is_consumer_leader=true,is_stream_leader=false} 0 60 120
			jetstream_stream_last_seq{stream_name=S,is_stream_leader=true} 0 60 120`, "S C pending=4 in=2.0 out=2.0 busy=1.00 known=true wait=2s idle=false"},
		{"JetStream, where each server of a cluster tells the same", `
			jetstream_consumer_num_pending{stream_name=S,consumer_name=C,is_consumer_leader=true} 4 4 4
			jetstream_consumer_num_pending{stream_name=S,consumer_name=C,is_consumer_leader=false} 4 4 4
			jetstream_consumer_ack_floor_stream_seq{stream_name=S,consumer_name=C,is_consumer_leader=true} 0 60 120
			jetstream_stream_last_seq{stream_name=S,is_stream_leader=true} 0 60 120`, "S C pending=4 in=2.0 out=2.0 busy=1.00 known=true wait=2s idle=false"},
	} {
		var got []string
		for _, q := range Backlogs(series(t, c.series), time.Minute) {
			got = append(got, fmt.Sprintf("%s %s pending=%d in=%.1f out=%.1f busy=%.2f known=%v wait=%s idle=%v", q.Stream, q.Consumer, q.Pending, q.Arrival, q.Service, q.Utilisation, q.Known, q.Wait.Round(time.Second), q.NoWorkers))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
}

const (
	vectorJSON = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"cart"},"value":[1700000000.5,"1"]},{"metric":{},"value":[1,"NaN"]}]},"warnings":["w"]}`
	matrixJSON = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"cart","le":"+Inf"},"values":[[1,"2"],[2,"+Inf"],[3,"NaN"]]}]}}`
	nativeJSON = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"cart"},"histogram":[1,{"count":"3","sum":"6","buckets":[[0,"1","2","1"],[0,"2","4","2"]]}]}]}}`
)

func TestAnswersOfPrometheusAreRead(t *testing.T) {
	a, err := ParseSeries([]byte(vectorJSON), 10)
	if err != nil || len(a.Series) != 1 || a.Series[0].Name() != "up" || a.Series[0].Points[0].At.UnixMilli() != 1_700_000_000_500 || a.Series[0].Points[0].Value != 1 || a.Warnings[0] != "w" {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = ParseSeries([]byte(matrixJSON), 10)
	if err != nil || len(a.Series) != 1 || len(a.Series[0].Points) != 1 || a.Series[0].Points[0].Value != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = ParseSeries([]byte(nativeJSON), 10)
	if err != nil || len(a.Series) != 1 || a.Series[0].Points[0].Value != 3 || len(a.Series[0].Points[0].Buckets) != 2 || a.Series[0].Points[0].Buckets[1] != (SeriesBucket{4, 2}) {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = ParseSeries([]byte(vectorJSON), 0); err != nil || a.Cut != 1 || len(a.Series) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for text, says := range map[string]string{
		``: "unexpected end", `{}`: "want success", `{"status":"error","errorType":"timeout","error":"too slow"}`: "timeout: too slow",
		`{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`:                                                     "want vector or matrix",
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}`:                                         `no number: "x"`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}`:                                             "a time in seconds",
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1e300,"1"]}]}}`:                                     "a time in seconds",
		`{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{"count":"3","buckets":[[0,"1"]]}]}]}}`:       "a bucket that is none",
		`{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{"count":"3","buckets":[[0,1,2,"NaN"]]}]}]}}`: "a bucket that is none",
	} {
		if _, err := ParseSeries([]byte(text), 10); !errors.Is(err, ErrSeries) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

// A series without points takes a hundred times its three bytes, and so would a server that sends nothing else.
func TestAnAnswerOfNothingTakesLittleMemory(t *testing.T) {
	const n = 300_000
	answer := []byte(`{"status":"success","data":{"resultType":"vector","result":[{}` + strings.Repeat(",{}", n) + `]}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a, err := ParseSeries(answer, 10)
	runtime.ReadMemStats(&after)
	if each := float64(after.TotalAlloc-before.TotalAlloc) / n; err != nil || len(a.Series) != 0 || each > 400 {
		t.Errorf("%.0f bytes a series, %v", each, err)
	}
	long := `{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"2"]` + strings.Repeat(`,[1,"2"]`, maxOfSeries) + `]}]}}`
	if _, err := ParseSeries([]byte(long), 10); !errors.Is(err, ErrSeries) || !strings.Contains(err.Error(), "a series of more than 11000 points") {
		t.Errorf("%v", err)
	}
}

// Whatever a server answers, the facts that follow from it are within their bounds.
func FuzzParseSeries(f *testing.F) {
	for _, seed := range []string{
		vectorJSON, matrixJSON, nativeJSON,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"process_cpu_seconds_total","job":"a/b","pod":"p"},"values":[[1,"2"],[31,"9"]]},
		{"metric":{"__name__":"container_cpu_cfs_periods_total","container":"c","pod":"p"},"values":[[1,"2"],[31,"9"]]},
		{"metric":{"__name__":"kafka_consumergroup_lag","topic":"t","consumergroup":"g"},"values":[[1,"2"],[31,"1e300"]]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"a","http_route":"/x","le":"0.5"},"value":[1,"-2"]},{"metric":{"job":"a","http_route":"/x","le":"+Inf"},"value":[1,"1e308"]}]}}`,
		`{"status":"error","errorType":"bad_data","error":"no"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseSeries(data, 50)
		if err != nil {
			if !errors.Is(err, ErrSeries) {
				t.Fatal(err)
			}
			return
		}
		if len(a.Series) > 50 {
			t.Fatalf("%d series", len(a.Series))
		}
		for _, s := range a.Series {
			for _, p := range s.Points {
				if !(math.Abs(p.Value) <= mostValue) || len(s.Points) == 0 || len(p.Buckets) > maxSeriesBuckets {
					t.Fatalf("%+v", s)
				}
			}
		}
		processes := Processes(a.Series, SeriesNaming{})
		if _, err := json.Marshal(processes); err != nil { // which takes no infinite number
			t.Fatal(err)
		}
		for _, p := range processes {
			if p.Service == "" || len(p.Pools) > MaxPools {
				t.Fatalf("%+v", p)
			}
		}
		for _, family := range ServedFamilies() {
			for _, r := range Served(a.Series, family, SeriesNaming{}, time.Minute, "") {
				if min(r.P50, r.P95, r.P99) < 0 || r.P99 < r.P50 || !(r.Calls > 0) || math.IsInf(r.Calls, 0) || r.Service == "" {
					t.Fatalf("%+v", r)
				}
			}
		}
		for _, q := range Backlogs(a.Series, time.Minute) {
			if q.Stream == "" || q.Wait < 0 || q.Drain < 0 || math.IsInf(q.Utilisation+q.Arrival+q.Service, 0) || q.AckPending < 0 {
				t.Fatalf("%+v", q)
			}
		}
	})
}
