package load_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/load"
)

func TestThresholdsAreRead(t *testing.T) {
	for _, c := range []struct {
		text, target, metric, op string
		value                    float64
	}{
		{"p99<250ms", "", "p99", "<", 250e6},
		{" p99.9 <= 1s ", "", "p99.9", "<=", 1e9},
		{"service.p50<1ms", "", "service.p50", "<", 1e6},
		{"lag.max<5ms", "", "lag.max", "<", 5e6},
		{"errors<1%", "", "errors", "<", 0.01},
		{"dropped<=0", "", "dropped", "<=", 0},
		{"rate>950.5", "", "rate", ">", 950.5},
		{"orders: mean < 80ms", "orders", "mean", "<", 80e6},
		{"GET http://a:80/x: p95<1s", "GET http://a:80/x", "p95", "<", 1e9},
	} {
		got, err := load.ParseThreshold(c.text)
		if err != nil || got.Target != c.target || got.Metric != c.metric || got.Op != c.op || got.Value != c.value {
			t.Errorf("%q is read as %+v, %v", c.text, got, err)
		}
	}
	for _, text := range []string{
		"", "p99", "p99=1s", "p0<1s", "p100<1s", "px<1s", "p99<", "p99<1", "p99<-1s", "errors<200%", "errors<x", "latency<1s", ":p99<1s",
		"service.errors<1%", "rate>NaN", "rate>Inf", "service.rate>1", "p99<<1s", strings.Repeat("x", 600) + "<1s",
	} {
		if got, err := load.ParseThreshold(text); !errors.Is(err, load.ErrThreshold) {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
}

func FuzzParseThreshold(f *testing.F) {
	for _, seed := range []string{"p99<250ms", "a:errors<=1%", "rate>1e9", "p99.9.9<1s", "service.mean<1h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := load.ParseThreshold(text)
		if err != nil {
			return
		}
		again, err := load.ParseThreshold(got.Text)
		if err != nil || again != got {
			t.Errorf("%q is read as %+v, and its text as %+v, %v", text, got, again, err)
		}
		if got.Value < 0 || got.Value != got.Value {
			t.Errorf("%q has the value %g", text, got.Value)
		}
	})
}

func TestTemplatesAreFilled(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for text, want := range map[string]string{
		"":                                `^$`,
		"plain } text {":                  `^plain } text {$`,
		"{{seq}}/{{seq 10}}/{{seq 1 -2}}": `^7/17/-13$`,
		"{{random 5 5}}":                  `^5$`,
		"a{{ random -3 3 }}b":             `^a-?[0-3]b$`,
		"{{hex 8}}":                       `^[0-9a-f]{8}$`,
		"{{uuid}}":                        `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		"{{pick x y}}":                    `^[xy]$`,
	} {
		tpl, err := load.ParseTemplate(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := tpl.Text(r, 7); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%q gives %q; want %s", text, got, want)
		}
	}
	for _, text := range []string{"{{", "{{}}", "{{nope}}", "{{random 1}}", "{{random 2 1}}", "{{random -9223372036854775808 9223372036854775807}}", "{{hex 0}}", "{{hex 5000}}", "{{uuid 4}}", "{{pick}}", "{{seq x}}", strings.Repeat("{{seq}}", 1025)} {
		if _, err := load.ParseTemplate(text); !errors.Is(err, load.ErrTemplate) {
			t.Errorf("%.40q: error is %v", text, err)
		}
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{"{{seq 1 2}}", "x{{random -5 5}}y{{uuid}}", "{{hex 16}}{{pick a b}}", "{{{{}}}}", "}}{{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tpl, err := load.ParseTemplate(text)
		if err != nil {
			return
		}
		a, b := tpl.Text(rand.New(rand.NewPCG(1, 2)), 3), tpl.Text(rand.New(rand.NewPCG(1, 2)), 3)
		if a != b {
			t.Errorf("%q gives %q and %q of equal seeds", text, a, b)
		}
		if tpl.Fixed() && a != text {
			t.Errorf("%q has no placeholder and gives %q", text, a)
		}
	})
}

const fullScenario = `
arrivals: bursty
burst: {on: 2s, off: 8s, idle: 10%}
rate: 50
stages:
  - {rate: 500, over: 2m}
  - {rate: 500, over: 5m}
warmup: 10s
seed: 7
protocol: http1
connections: 20
keep_alive: true
timeout: 5s
headers: {Authorization: "Bearer {{hex 8}}"}
thresholds: ["p99<250ms", "order: errors<1%"]
max_lag: 2ms
max_cpu: 90%
tls: {ca_file: ca.pem}
targets:
  - {name: list, url: "http://shop.test/orders?page={{random 1 50}}", weight: 9}
  - {name: order, method: PUT, url: "http://shop.test/orders/{{seq}}", body_template: order.json}
`

func TestScenarioIsRead(t *testing.T) {
	s, err := load.ReadScenario(filepath.Join("some", "where.yaml"), []byte(fullScenario))
	if err != nil {
		t.Fatal(err)
	}
	s = s.WithDefaults()
	if s.Duration != 7*time.Minute || s.Burst.Idle != 0.1 || s.Peak() != 500 || s.MaxInFlight != 1024 || s.MaxCPU != 0.9 {
		t.Errorf("duration %s, idle %g, peak %g, in flight %d, CPU %g", s.Duration, s.Burst.Idle, s.Peak(), s.MaxInFlight, s.MaxCPU)
	}
	if at := filepath.Join("some", "order.json"); s.Targets[1].BodyTemplate != at || s.TLS.CAFile != filepath.Join("some", "ca.pem") {
		t.Errorf("files are %s and %s; want them beside the scenario", s.Targets[1].BodyTemplate, s.TLS.CAFile)
	}
	if s.Targets[0].Method != "GET" || s.Targets[0].Weight != 9 || s.Targets[1].Weight != 1 {
		t.Errorf("targets are %+v", s.Targets)
	}
}

func TestFaultsOfAScenarioAreAllFoundWithTheirLines(t *testing.T) {
	_, err := load.ReadScenario("s.yaml", []byte(`rate: -1
arrivals: sometimes
protocol: http3
thresholds: ["p99", "nobody: p99<1s"]
stages: [{rate: 1e9, over: 1s}]
headers: {"a b": "x"}
targets:
  - {name: a, url: "ftp://x", method: "G T", weight: -1}
  - {name: a, url: "http://x/{{nope}}", body: x, body_file: y}
  - {name: g, url: "grpc://x:1", method: GET}
`))
	for _, want := range []string{
		"s.yaml:1:", "s.yaml:2:", "s.yaml:3:", "thresholds[0]", "thresholds[1]", "stages[0].rate", "headers", "targets[0].url", "targets[0].method",
		"targets[0].weight", "targets[1].name", "targets[1].url", "targets[1].body", "targets[2].method",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the faults do not name %s:\n%v", want, err)
		}
	}
	for _, text := range []string{"{}", "targets: []", "targets: [{url: http://a/}]\nreplay: {file: x, to: http://b}", "replay: {file: x, to: http://b}\nrate: 5", "targets: [{url: grpc://a:1}]\nprotocol: http1", "targets: [{url: http://a/}]\nprotocol: http2", "targets: [{url: http://a/}]\nstages: [{rate: 5, over: 1m}]\nduration: 1s"} {
		if _, err := load.ReadScenario("s.yaml", []byte(text)); err == nil {
			t.Errorf("%q is a scenario", text)
		}
	}
}

func FuzzReadScenario(f *testing.F) {
	f.Add([]byte(fullScenario))
	f.Add([]byte("targets: [{url: grpc://a:1}]\nkeep_alive: false"))
	f.Add([]byte("replay: {file: x, to: http://b, speed: 2}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := load.ReadScenario("s.yaml", data)
		if err != nil {
			return
		}
		if err := s.WithDefaults().Validate(); err != nil {
			t.Errorf("a scenario that was accepted has faults: %v", err)
		}
	})
}

func FuzzParseReport(f *testing.F) {
	f.Add([]byte(`{"format":"longpole-load","version":1,"slice_seconds":1,"took_seconds":2,"valid":true,"slices":[{"calls":3,"response":{"zero":1,"first":-400,"counts":[1,0,1]}},{"calls":0,"response":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := load.ParseReport(data)
		if err != nil {
			return
		}
		load.Compare([]load.Report{r}, []load.Report{r}, load.CompareOptions{Force: true})
	})
}

func TestBodyFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "body")
	if err := os.WriteFile(name, []byte("{{seq}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := scenario(1, time.Second)
	s.Targets[0].BodyFile = filepath.Join(dir, "nowhere")
	if _, err := load.Run(t.Context(), s, load.RunOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v; want that the file is not there", err)
	}
}

func TestScenarioOfTheDocumentationIsOne(t *testing.T) {
	doc, err := os.ReadFile("../../docs/load.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "## Scenario\n")
	text, _, _ = strings.Cut(text, "## Thresholds")
	var lines []string
	for line := range strings.Lines(text) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			lines = append(lines, code)
		}
	}
	s, err := load.ReadScenario("docs/load.md", []byte(strings.Join(lines, "")))
	if err != nil || len(s.Targets) != 2 || len(s.Stages) != 2 {
		t.Errorf("%d targets, %d stages: %v", len(s.Targets), len(s.Stages), err)
	}
}
