package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestAFaultIsStartedListedAndStopped(t *testing.T) {
	a := newBackend(t, named("a"))
	y := newSystem(t, config("{}", a))
	eventually(t, "an answer", func() bool { return get(y.url).ok() })
	cli := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := y.cli(append(args, "--admin", y.adminURL())...)
		if code != want {
			t.Errorf("longpole %v exits %d, want %d\n%s%s", args, code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	if _, stderr := cli(0, "fault", "list"); !strings.Contains(stderr, "`longpole fault start` starts one") {
		t.Errorf("without a fault: %s", stderr)
	}
	out, _ := cli(0, "fault", "start", "gone", "--route", "all", "--share", "100%", "--ttl", "10m", "--abort", "418", "--header", "X-Test=teapot", "--hypothesis", "nobody else notices")
	if !strings.HasPrefix(out, "FAULT") || !strings.Contains(out, "abort 418") || !strings.Contains(out, "nobody else notices") {
		t.Errorf("start: %s", out)
	}
	if !get(y.url).ok() {
		t.Error("a call without the header was hit")
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, y.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Test", "teapot")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("a call with the header got %d", resp.StatusCode)
	}
	if _, stderr := cli(exitError, "fault", "start", "gone", "--route", "all", "--share", "1%", "--ttl", "1m", "--blackhole"); !strings.Contains(stderr, "hint: `longpole fault list`") {
		t.Errorf("a second of the name: %s", stderr)
	}
	if _, stderr := cli(exitError, "fault", "start", "x", "--route", "al", "--share", "1%", "--ttl", "1m", "--blackhole"); !strings.Contains(stderr, `"al"`) {
		t.Errorf("an unknown route: %s", stderr)
	}
	if out, _ := cli(0, "fault", "stop", "gone", "--reason", "seen enough"); !strings.Contains(out, "ended") || !strings.Contains(out, "seen enough") {
		t.Errorf("stop: %s", out)
	}
	if _, stderr := cli(exitError, "fault", "stop", "gone"); !strings.Contains(stderr, "hint: `longpole fault list`") {
		t.Errorf("stopped twice: %s", stderr)
	}
	if out, _ := cli(0, "fault", "list", "-o", "json"); !strings.Contains(out, `"stopped": "seen enough"`) || !strings.Contains(out, `"abort": 418`) {
		t.Errorf("list: %s", out)
	}
}

func TestFaultFlagsHaveTheUnitsOfTheFile(t *testing.T) {
	q := faultFlags{
		route: "orders", share: "5%", ttl: "10m", delay: "lognormal,median=20ms,p99=900ms", traces: "10-20%", bandwidth: "10KiB",
		headers: []string{"X-Test=a=b", "X-Any"}, methods: []string{"GET", "POST"}, stopped: "2%", stopCalls: 5, seed: 7, most: 10, at: "attempt", endpoint: "h:1",
	}
	r, err := q.request("slow")
	if err != nil {
		t.Fatal(err)
	}
	if r.Route != "orders" || r.Name != "slow" || r.Share != 0.05 || r.TTL.String() != "10m0s" || r.BytesPerSecond != 10<<10 {
		t.Errorf("%+v", r)
	}
	if d := r.Delay; d == nil || d.Distribution != "lognormal" || d.Median.String() != "20ms" || d.P99.String() != "900ms" {
		t.Errorf("delay %+v", r.Delay)
	}
	if r.Traces == nil || r.Traces.From != 0.1 || r.Traces.To != 0.2 {
		t.Errorf("traces %+v", r.Traces)
	}
	if r.Headers["X-Test"] != "a=b" || r.Headers["X-Any"] != "*" || len(r.Method) != 2 || r.Stop == nil || r.Stop.ErrorRatio != 0.02 || r.Stop.MinCalls != 5 {
		t.Errorf("%+v", r)
	}
	pareto, err := (&faultFlags{route: "a", share: "1", ttl: "1s", delay: "pareto,min=20ms,shape=1.2", traces: "5%"}).request("p")
	if err != nil || pareto.Delay.Shape != 1.2 || pareto.Traces.To != 0.05 {
		t.Errorf("%+v %v", pareto, err)
	}
}
