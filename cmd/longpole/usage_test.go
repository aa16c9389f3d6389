package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

func TestUsageIsTheMeanOverReplicasOfWhatTheyToldLately(t *testing.T) {
	u, now := newUsage(), time.Unix(1_800_000_000, 0)
	point := func(host, name, mode string, v float64) ingest.Point {
		return ingest.Point{Service: "orders", Host: host, Name: name, Value: v, Attributes: []trace.Attribute{{Key: "cpu.mode", Value: mode}}}
	}
	u.Receive(now.Add(-time.Hour), []ingest.Point{point("gone", "process.cpu.utilization", "user", 1)})
	rejected := u.Receive(now, []ingest.Point{
		point("a", "process.cpu.utilization", "user", 0.5), point("a", "process.cpu.utilization", "system", 0.1),
		point("b", "process.cpu.utilization", "user", 0.9), point("b", "k8s.pod.cpu_limit_utilization", "", 0.4),
		point("b", "k8s.pod.memory_limit_utilization", "", 0.7), point("b", "http.server.request.duration", "", 9),
		{Service: "other", Host: "c", Name: "process.cpu.utilization", Value: 1},
	})
	if cpu, memory := u.Of(now, "orders"); fmt.Sprintf("%.3f %.3f", cpu, memory) != "0.500 0.700" || rejected != 0 {
		t.Errorf("cpu %v, memory %v, %d rejected; want the mean of 0.6 and 0.4, and 0.7", cpu, memory, rejected)
	}
	if cpu, memory := u.Of(now.Add(time.Hour), "orders"); cpu != 0 || memory != 0 {
		t.Errorf("an hour later cpu %v, memory %v", cpu, memory)
	}
}

func TestUsageIsBounded(t *testing.T) {
	u, now := newUsage(), time.Unix(1_800_000_000, 0)
	fill := func(now time.Time) (rejected int) {
		for i := range mostReplicas + 5 {
			rejected += u.Receive(now, []ingest.Point{{Service: "s", Host: fmt.Sprint(now.Unix(), i), Name: cpuMetrics[0], Value: 1}})
		}
		return rejected
	}
	if n := fill(now); n != 5 || len(u.replicas) != mostReplicas {
		t.Errorf("%d points rejected, %d replicas", n, len(u.replicas))
	}
	if n := fill(now.Add(usageFor + time.Second)); n != 5 {
		t.Errorf("%d points rejected when all before are old", n)
	}
}

func TestMetricsOfReplicasReachTheScaler(t *testing.T) {
	y := newSystem(t, config("{}", newBackend(t, named("a"))))
	body := fmt.Sprintf(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}},{"key":"host.name","value":{"stringValue":"h"}}]},
		"scopeMetrics":[{"metrics":[{"name":"process.cpu.utilization","gauge":{"dataPoints":[{"timeUnixNano":"%d","asDouble":0.75}]}}]}]}]}`, time.Now().UnixNano())
	resp, err := client.Post("http://"+y.otlpHTTP.Addr().String()+"/v1/metrics", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if cpu, _ := y.usage.Of(time.Now(), "orders"); resp.StatusCode != http.StatusOK || cpu != 0.75 {
		t.Errorf("%s %s, and cpu %v; want 0.75", resp.Status, text, cpu)
	}
}
