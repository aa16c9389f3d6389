package advise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

func TestChangesAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		"speedup orders/GET 2x":              "speedup orders/GET 2x",
		"SPEEDUP orders -20ms":               "speedup orders -20ms",
		`index "orders/SELECT * FROM t" 20x`: `index "orders/SELECT * FROM t" 20x`,
		"cache catalogue/list ttl=60s":       "cache catalogue/list ttl=1m0s",
		"cache catalogue hit=0.8":            "cache catalogue hit=80%",
		"parallel checkout":                  "parallel checkout",
		"async notify":                       "async notify",
		"async notify enqueue=2ms":           "async notify enqueue=2ms",
		"replicas orders 3->5":               "replicas orders 3->5",
		"replicas orders 3 -> 5":             "replicas orders 3->5",
		"hedge orders":                       "hedge orders",
		"hedge orders after=50ms":            "hedge orders after=50ms",
		"timeout orders 200ms":               "timeout orders 200ms tries=1",
		"timeout orders 200ms tries=2":       "timeout orders 200ms tries=2",
		"retries orders 2":                   "retries orders 2",
		"payload orders -50%":                "payload orders -50%",
		"shed orders 20%":                    "shed orders 20%",
		"drain orders endpoint=o2":           "drain orders endpoint=o2",
		" remove a/b ;\n\n speedup c 3x; ":   "remove a/b; speedup c 3x",
		`batch "shop/a;b"`:                   `batch "shop/a;b"`,
		"reuse shop/GET /v1/users":           "!",
		"":                                   "!",
		";":                                  "!",
		"faster orders 2x":                   "!",
		"speedup":                            "!",
		"speedup orders":                     "!",
		"speedup orders 0.5x":                "!",
		"speedup orders NaNx":                "!",
		"speedup /GET 2x":                    "!",
		"cache orders":                       "!",
		"cache orders ttl=-1s":               "!",
		"cache orders hit=110%":              "!",
		"replicas orders 3":                  "!",
		"replicas orders 0->3":               "!",
		"timeout orders":                     "!",
		"timeout orders 1s tries=99":         "!",
		"drain orders":                       "!",
		"remove orders now":                  "!",
		`remove "orders`:                     "!",
		strings.Repeat("remove a;", 9):       "!",
		strings.Repeat("x", maxExpression+1): "!",
	} {
		list, err := parseChanges(text)
		var got []string
		for _, c := range list {
			got = append(got, c.String())
		}
		if want == "!" {
			if !errors.Is(err, ErrExpression) {
				t.Errorf("%q: %v, %v", text, got, err)
			}
		} else if err != nil || strings.Join(got, "; ") != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestErrorsSayWhatWasExpected(t *testing.T) {
	traces := shop(1, 60)
	for text, want := range map[string]string{
		"quicken orders 2x":              "want one of async, batch, cache",
		"speedup orders fast":            `"fast" is no factor of 1x to 1000000x, want for example: speedup orders/GET 2x`,
		"speedup order 2x":               `no span of order; there are "frontend", "inventory", "longpole-gateway", "orders", "pricing"`,
		"speedup orders/POST 2x":         `no span of orders POST; there are "orders/GET /orders"`,
		"batch orders":                   "the traces show no loops of calls there",
		"payload orders 20%":             "do not tell the sizes",
		"drain orders endpoint=xyz":      "no such endpoint beside others; there are o0, o1, o2",
		"cache frontend/nothing hit=20%": "no span of frontend nothing",
	} {
		if _, err := WhatIf(traces, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestChangesAreMadeTogether(t *testing.T) {
	traces := shop(1, 800)
	p50 := func(text string) float64 {
		f, err := WhatIf(traces, text)
		if err != nil {
			t.Fatal(err)
		}
		return f.Effects[len(f.Effects)-1].Predicted.P50
	}
	both := p50("speedup orders 2x; remove pricing")
	if both >= p50("speedup orders 2x") || both >= p50("remove pricing") {
		t.Errorf("%.1f ms together", both)
	}
	if again := p50("remove pricing\nspeedup orders 2x"); again != both {
		t.Errorf("%.1f ms in one order and %.1f ms in the other", both, again)
	}
}

func FuzzWhatIf(f *testing.F) {
	for _, example := range Verbs() {
		for text := range strings.SplitSeq(example, "  or  ") {
			f.Add(text)
		}
	}
	f.Add(`speedup "orders/GET /orders" 2x; shed orders 20%`)
	traces := append(shop(1, 60), trace.Trace{ID: "empty"})
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseChanges(text)
		if err != nil {
			if !errors.Is(err, ErrExpression) {
				t.Fatal(err)
			}
			return
		}
		for _, c := range list {
			again, err := parseChanges(c.String())
			if err != nil || len(again) != 1 || again[0].String() != c.String() {
				t.Fatalf("%q became %q: %v", text, c, err)
			}
		}
		forecast, err := WhatIf(traces, text)
		if err != nil && !errors.Is(err, ErrNoForecast) {
			t.Fatal(err)
		}
		for _, e := range forecast.Effects {
			for _, v := range []float64{e.Predicted.P50, e.Predicted.P95, e.Predicted.P99, e.Interval.P50[0], e.Interval.P99[1]} {
				if !(v >= 0 && v < 1e12) {
					t.Fatalf("%q: %+v", text, e)
				}
			}
		}
	})
}

func TestThePageSaysWhatCanBeAsked(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "whatif.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range verbs() {
		if !strings.Contains(string(page), "| `"+name+"` | `"+name+" ") {
			t.Errorf("%s has no line of its own", name)
		}
	}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `") || len(cells) < 4 {
			continue
		}
		for example := range strings.SplitSeq(cells[2], "·") {
			if _, err := parseChanges(strings.Trim(example, " `")); err != nil {
				t.Error(err)
			}
		}
	}
}
