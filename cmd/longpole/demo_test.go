package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/lab"
)

// TestDemoInShort plays the demo at a pace that leaves the judge less evidence than usual. It must end by itself, and
// either show the whole loop or say why it stopped where it did.
func TestDemoInShort(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo for most of a minute")
	}
	var out, errs bytes.Buffer
	path := filepath.Join(t.TempDir(), "report.html")
	d := &demo{
		out: &out, progress: newProgress(&errs), reportPath: path, seed: 1, admin: "127.0.0.1:0",
		pace: demoPace{
			settle: time.Second, measure: 6 * time.Second, slice: 250 * time.Millisecond, warmup: 2 * time.Second,
			canary: 14 * time.Second, steps: []float64{0.5},
			rates: lab.Rates{CheckoutPerSecond: 20, BrowsePerSecond: 40}, rows: 1000, // SQLite is slow under the race detector
		},
	}
	err := d.run(t.Context())
	text := out.String()
	t.Log(text)
	for _, want := range []string{"1. Diagnosis of 6s of traffic", "SEGMENT", "P99 BAND"} {
		if !strings.Contains(text, want) {
			t.Errorf("the demo does not print %q", want)
		}
	}
	if fail, ok := errors.AsType[*failure](err); ok {
		if fail.code != exitInconclusive && fail.code != exitThreshold || len(fail.Error()) < 20 {
			t.Errorf("the demo ends with %d: %v", fail.code, fail)
		}
		if strings.Contains(fail.Error(), "nothing to roll out") {
			t.Skipf("the machine was too busy to diagnose anything: %v", fail)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"rollout r1", "Before, predicted, after", "  ROUTE", "p99", "errors", "Report: " + path} {
		if !strings.Contains(text, want) {
			t.Errorf("the demo does not print %q", want)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(page, []byte("<html")) || !bytes.Contains(page, []byte("</html>")) {
		t.Errorf("the report is %.100q (%v)", page, err)
	}
}
