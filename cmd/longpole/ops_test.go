package main

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRoutesAndTopShowWhatRuns(t *testing.T) {
	a := newBackend(t, named("a"))
	y := newSystem(t, config("{}", a))
	eventually(t, "an answer", func() bool { return get(y.url).ok() })

	code, out, errs := y.cli("routes", "--admin", y.adminURL())
	if code != 0 || !strings.HasPrefix(out, "ROUTE") || !strings.Contains(out, "all") || !strings.Contains(out, "1/1") {
		t.Errorf("routes: %d\n%s%s", code, out, errs)
	}
	if code, out, _ := y.cli("routes", "--admin", y.adminURL(), "-o", "wide", "all"); code != 0 || !strings.Contains(out, a.address) || !strings.Contains(out, "BREAKER") {
		t.Errorf("routes -o wide: %d\n%s", code, out)
	}
	if code, out, _ := y.cli("routes", "--admin", y.adminURL(), "-o", "json"); code != 0 || !strings.Contains(out, `"routes"`) {
		t.Errorf("routes -o json: %d\n%s", code, out)
	}
	if code, _, errs := y.cli("routes", "--admin", y.adminURL(), "nothing"); code != exitError || !strings.Contains(errs, `no route "nothing"`) || !strings.Contains(errs, "hint") {
		t.Errorf("an unknown route: %d %s", code, errs)
	}
	if code, out, errs := y.cli("top", "--once", "--admin", y.adminURL()); code != 0 || !strings.HasPrefix(out, "ROUTE") {
		t.Errorf("top --once: %d\n%s%s", code, out, errs)
	}
	if code, _, _ := y.cli("top", "--interval", "1ms"); code != exitUsage {
		t.Errorf("top with a silly interval: %d", code)
	}
}

// TestReloadsUnderLoadFailNoCall changes policy, endpoints and routes a hundred times while clients call without pause.
func TestReloadsUnderLoadFailNoCall(t *testing.T) {
	a, b := newBackend(t, named("a")), newBackend(t, named("b"))
	files := []string{
		config("{}", a),
		config("{timeout: 5s, retry: {max_attempts: 2}}", a, b),
		config("{limit: {algorithm: fixed, limit: 1000}}", b),
		strings.Replace(config("{}", b, a), "- name: all", "- name: other\n    match: {path: /other}\n    upstream: orders\n  - name: all", 1),
	}
	y := newSystem(t, files[0])
	eventually(t, "an answer", func() bool { return get(y.url).ok() })
	var failed, calls atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := client.Get(y.url)
				if err != nil {
					t.Error(err)
					failed.Add(1)
					continue
				}
				_ = res.Body.Close()
				if calls.Add(1); res.StatusCode != http.StatusOK {
					t.Errorf("%d %s", res.StatusCode, res.Header.Get("X-Longpole-Error"))
					failed.Add(1)
				}
			}
		})
	}
	for i := range 100 {
		y.write(files[(i+1)%len(files)])
		if err := y.reread(y.path); err != nil {
			t.Fatal(err)
		}
		done := calls.Load()
		eventually(t, "a call after the reload", func() bool { return calls.Load() > done || failed.Load() > 0 })
	}
	close(stop)
	clients.Wait()
	if failed.Load() > 0 || calls.Load() < 100 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
}
