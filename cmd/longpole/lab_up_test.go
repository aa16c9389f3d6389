package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/web"
)

const oneService = `
name: one
about: a service that fails all calls when told to
services: [{name: a, operations: [{name: x, steps: [{cpu: {fixed: 1ms}}]}]}]
gateway: [{service: a, policy: "{retry: {off: true}, breaker: {off: true}}"}]
load: {routes: [{to: a.x, rate: 40}]}
faults: [{name: broken, kind: error, service: a}]
truth: {class: grey_failure, service: a}
`

// TestLabUpSwitchesFaultsOverItsAPI flips the one fault, and sees calls fail that did not before.
func TestLabUpSwitchesFaultsOverItsAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole system on real sockets")
	}
	file := filepath.Join(t.TempDir(), "one.yaml")
	if err := os.WriteFile(file, []byte(oneService), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"lab", "up", file, "--admin", "127.0.0.1:0"}, strings.NewReader(""), io.Discard, write)
		_ = write.Close()
	}()
	defer func() {
		cancel()
		<-ended
	}()
	pages := make(chan string, 1)
	go func() {
		text, find := []byte{}, regexp.MustCompile(`the page is at (http://[0-9.:]+)`)
		buffer := make([]byte, 4096)
		for {
			n, err := read.Read(buffer)
			if text = append(text, buffer[:n]...); err != nil {
				return
			}
			if m := find.FindSubmatch(text); m != nil {
				select {
				case pages <- string(m[1]):
				default:
				}
			}
		}
	}()
	page := ""
	select {
	case page = <-pages:
	case code := <-ended:
		ended <- code
		t.Fatalf("it ended with %d", code)
	}
	get := func(path string, into any) {
		t.Helper()
		ask(t, http.MethodGet, page+path, "", into)
	}
	var lab web.LabStatus
	get("/api/v1/lab", &lab)
	if lab.Scenario != "one" || len(lab.Faults) != 1 || lab.Faults[0] != (web.LabFault{Name: "broken", What: "error of a", On: false}) {
		t.Fatalf("the lab is %+v", lab)
	}
	failing := func() float64 {
		var routes struct {
			Routes []struct {
				ErrorRatio float64 `json:"error_ratio"`
			} `json:"routes"`
		}
		get("/api/v1/routes", &routes)
		return routes.Routes[0].ErrorRatio
	}
	if r := failing(); r > 0 {
		t.Fatalf("%v of the calls fail before anything is on", r)
	}
	ask(t, http.MethodPost, page+"/api/v1/lab/faults/broken", `{"on": true}`, &lab)
	if !lab.Faults[0].On {
		t.Fatalf("the lab is %+v", lab)
	}
	for failing() == 0 {
		select {
		case code := <-ended:
			ended <- code
			t.Fatalf("it ended with %d", code)
		case <-t.Context().Done():
			t.Fatal("no call fails")
		case <-time.After(50 * time.Millisecond):
		}
	}
	ask(t, http.MethodPost, page+"/api/v1/lab/faults/broken", `{"on": false}`, &lab)
	if lab.Faults[0].On {
		t.Errorf("the lab is %+v", lab)
	}
}

func TestLabUpThatCannotListenLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	code, _, text := lablong(t, "up", "poison-messages", "--admin", taken.Addr().String())
	if code != exitError || !strings.Contains(text, "address already in use") {
		t.Errorf("it ends with %d: %s", code, text)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v stays (%v)", left, err)
	}
}

// ask makes one request of the admin side and decodes its answer.
func ask(t *testing.T, method, url, body string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s answers %d, %v", method, url, answer.StatusCode, err)
	}
}
