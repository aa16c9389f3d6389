package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
	"github.com/longpole/longpole/internal/trace"
)

func TestAFullReceiverSaysComeAgain(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	address := y.otlpHTTP.Addr().String()
	occupy := func() { // one of the 32 that are taken at a time: a head whose body does not come
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	}
	for range 32 {
		occupy()
	}
	eventually(t, "429 with Retry-After", func() bool {
		occupy() // in place of a head that was refused while a call of this loop had its place
		resp, err := client.Post("http://"+address+"/v1/traces", "application/json", strings.NewReader(`{"resourceSpans":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != ""
	})
	conn, err := grpc.NewClient(y.otlpGRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = collectorpb.NewTraceServiceClient(conn).Export(t.Context(), export("late", 9))
	s := status.Convert(err)
	retry := false
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.RetryInfo)
		retry = retry || ok && info.GetRetryDelay().AsDuration() > 0
	}
	if s.Code() != codes.ResourceExhausted || !retry {
		t.Errorf("gRPC says %v with %v; want RESOURCE_EXHAUSTED with RetryInfo", s, s.Details())
	}
	if got := get(y.adminURL() + "/metrics").body; !strings.Contains(got, `longpole_received_refused_total{protocol="otlp_traces",reason="full"}`) ||
		strings.Contains(got, `longpole_received_refused_total{protocol="otlp_traces",reason="full"} 0`) {
		t.Error("the metrics do not count what was refused")
	}
}

func TestAGatewayAtItsBoundsTakesNoTelemetry(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a")))+"overload: {goroutines: 1000}\n")
	if y.short() {
		t.Fatal("a gateway without load is short of something")
	}
	stop, idle := make(chan struct{}), sync.WaitGroup{}
	defer func() { close(stop); idle.Wait() }()
	for range 1100 {
		idle.Go(func() { <-stop })
	}
	body := `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"x","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}`
	eventually(t, "429 while the gateway is short of goroutines", func() bool {
		resp, err := client.Post("http://"+y.otlpHTTP.Addr().String()+"/v1/traces", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusTooManyRequests
	})
}

func TestZipkinJaegerAndLogsHaveTheirAddresses(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a")))+"zipkin: 127.0.0.1:0\njaeger: 127.0.0.1:0\nkeda: 127.0.0.1:0\n")
	now := time.Now().UnixMicro()
	resp, err := client.Post("http://"+y.zipkin.Addr().String()+"/api/v2/spans", "application/json", bytes.NewReader(fmt.Appendf(nil,
		`[{"traceId":"%032x","id":"%016x","name":"get","kind":"SERVER","timestamp":%d,"duration":5000,"localEndpoint":{"serviceName":"by-zipkin"}}]`, 7, 7, now-5000)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("Zipkin gets %s", resp.Status)
	}
	logs := `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1","severityNumber":17,"traceId":"00000000000000000000000000000007","body":{"stringValue":"no stock"}}]}]}]}`
	if resp, err = client.Post("http://"+y.otlpHTTP.Addr().String()+"/v1/logs", "application/json", strings.NewReader(logs)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("logs get %s", resp.Status)
	}
	conn, err := grpc.NewClient(y.jaeger.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Invoke(t.Context(), "/jaeger.api_v2.CollectorService/PostSpans", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Errorf("Jaeger's collector: %v", err)
	}
	scaler, err := grpc.NewClient(y.keda.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer scaler.Close()
	if err := scaler.Invoke(t.Context(), "/externalscaler.ExternalScaler/IsActive", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) == codes.Unimplemented || status.Code(err) == codes.OK {
		t.Errorf("KEDA, without a recommendation: %v", err)
	}
	eventually(t, "the trace with what was logged", func() bool {
		for _, one := range y.analysis.Window(time.Now(), time.Minute) {
			if one.Spans[0].Service == "by-zipkin" && len(one.Logs) == 1 && one.Logs[0].Body == "no stock" {
				return true
			}
		}
		return false
	})
	got := get(y.adminURL() + "/api/v1/received").body
	for _, want := range []string{`"protocol":"zipkin","requests":1,"accepted":1`, `"protocol":"jaeger","requests":1`, `"protocol":"otlp_logs","requests":1,"accepted":1`} {
		if !strings.Contains(got, want) {
			t.Errorf("received does not say %s: %s", want, got)
		}
	}
}

// counted is a route whose calls fail now and then.
type counted struct {
	mu      sync.Mutex
	ok, bad uint64
}

func (c *counted) routes() []gateway.RouteStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ok += 90
	c.bad += 10
	return []gateway.RouteStatus{{Name: "orders", Classes: map[string]uint64{"ok": c.ok, "timeout": c.bad}, Tally: stats.Tally{Calls: c.ok + c.bad, Latency: stats.Of(time.Second)}}}
}

func TestObjectivesAreCountedHoldRolloutsAndSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orders := &counted{}
		report := func() advise.Report {
			return advise.Report{Routes: []advise.Route{{Route: diagnose.Route{Service: ownService, Operation: "orders", Segments: []diagnose.Segment{
				{Segment: trace.SegDatabase, Service: "stock", Share: diagnose.Bands{P99: 0.7}},
			}}}}}
		}
		cfg := gateway.Config{
			SLOs:  []slo.Objective{{Name: "there", Route: "orders", Target: 0.999}, {Name: "fast", Route: "orders", Target: 0.99, Threshold: 100 * time.Millisecond}},
			State: &store.Config{Dir: t.TempDir()},
		}
		start := func(cfg gateway.Config) (*signals, func()) {
			s, err := newSignals(cfg, orders.routes, report, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			return s, func() {
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		s, stop := start(cfg)
		if why := s.hold("orders"); why != "" {
			t.Errorf("held before anything was counted: %s", why)
		}
		time.Sleep(10 * time.Minute)
		if why := s.hold("orders"); !strings.Contains(why, "there burns") || s.hold("other") != "" {
			t.Errorf("a route with 10 %% of its calls bad is held for %q, another for %q", why, s.hold("other"))
		}
		worst := byBudget(s.book.Status(time.Now()))[0]
		if worst.Name != "there" || worst.Calls < 5000 || len(worst.BurnedBy) == 0 || worst.BurnedBy[0].Segment != "timeout" {
			t.Errorf("the worst is %+v", worst)
		}
		more := cfg
		more.SLOs = append(more.SLOs[:2:2], slo.Objective{Name: "later", Route: "orders", Target: 0.99})
		s.Reconfigure(more)
		time.Sleep(time.Minute)
		if all := s.book.Status(time.Now()); len(all) != 3 || all[0].Calls <= worst.Calls || all[2].Calls == 0 {
			t.Errorf("after a reload the objectives say %+v", all)
		}
		stop()
		before := s.book.Status(time.Now())[0].Calls
		s, stop = start(more)
		time.Sleep(time.Second)
		if after := s.book.Status(time.Now())[0].Calls; after != before {
			t.Errorf("%d calls before the restart, %d after it", before, after)
		}
		stop()
	})
}

func TestAnAlertReachesTheWebhook(t *testing.T) {
	got := make(chan string, 10)
	hook := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Authorization") + " " + string(body)
	})
	y := newSystem(t, config("{}", newBackend(t, named("a")))+fmt.Sprintf(`slos: [{name: there, route: all, target: 99.9%%}]
alerts: {webhook: {url: "http://%s/T0KEN", headers: {Authorization: Bearer s3cret}}, page: "http://page.test/"}
`, hook.address))
	y.signals.book.Add(time.Now(), "there", slo.Counts{Total: 1000, Bad: 900})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case body := <-got:
		for _, want := range []string{"Bearer s3cret ", `"status":"firing"`, `"slo":"there"`, `"severity":"page"`, "http://page.test/"} {
			if !strings.Contains(body, want) {
				t.Errorf("the webhook gets no %s: %s", want, body)
			}
		}
	case <-ctx.Done():
		t.Fatal("no alert came")
	}
	if shown := get(y.adminURL() + "/api/v1/config").body; strings.Contains(shown, "T0KEN") || strings.Contains(shown, "s3cret") {
		t.Errorf("the configuration shows secrets: %s", shown)
	}
	if code, _, stderr := y.cli("rollout", "start", "--admin", y.adminURL(), "--route", "all", "--to", policyFile(t, "timeout: 3s")); code == 0 || !strings.Contains(stderr, "burns its error budget fast") {
		t.Errorf("a rollout beside a page exits %d: %s", code, stderr)
	}
}

func TestSLOShowsWhatIsLeftAndExitsByIt(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a")))+"slos: [{name: there, route: all, target: 99.9%}, {name: fast, route: all, target: 99%, threshold: 250ms}]\n")
	now := time.Now()
	y.signals.book.Add(now, "there", slo.Counts{Total: 1_000_000, Bad: 500})
	y.signals.book.Add(now, "fast", slo.Counts{Total: 1_000_000, Bad: 1000})
	code, stdout, stderr := y.cli("slo", "--admin", y.adminURL())
	lines := strings.Split(stdout, "\n")
	if code != 0 || len(lines) < 3 || !strings.HasPrefix(lines[1], "there") || !strings.HasPrefix(lines[2], "fast") {
		t.Fatalf("exits %d: %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"99.9% / 30d", "99.95%", "50.0%", "99% < 250ms / 30d", "90.0%"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it does not say %s:\n%s", want, stdout)
		}
	}
	y.signals.book.Add(now, "there", slo.Counts{Total: 1000, Bad: 1000})
	if code, _, stderr = y.cli("slo", "--admin", y.adminURL(), "-o", "json", "there"); code != exitThreshold || !strings.Contains(stderr, "used up: there") {
		t.Errorf("with no budget left it exits %d: %s", code, stderr)
	}
	if code, _, stderr = y.cli("slo", "--admin", y.adminURL(), "none"); code != exitError || !strings.Contains(stderr, `no objective "none"`) {
		t.Errorf("an unknown name exits %d: %s", code, stderr)
	}
	code, stdout, stderr = y.cli("slo", "rules", "--config", y.path)
	if code != 0 || !strings.Contains(stdout, "LongpoleErrorBudgetBurn") {
		t.Errorf("rules exits %d: %s", code, stderr)
	}
	folder := t.TempDir()
	if code, stdout, stderr = y.cli("slo", "dashboards", "--config", y.path, "--folder", folder); code != 0 || strings.Count(stdout, ".json\n") != 2 {
		t.Errorf("dashboards exits %d: %s%s", code, stdout, stderr)
	}
	if got := get(y.adminURL() + "/metrics").body; !strings.Contains(got, `longpole_slo_error_budget_remaining_ratio{route="all",slo="fast"} 0.9`) {
		t.Error("the metrics do not hold the error budget")
	}
}
