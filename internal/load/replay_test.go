package load_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/internal/recording"
	"github.com/longpole/longpole/setting"
)

// file is a recording in memory.
func file(entries ...recording.Entry) func() (io.ReadCloser, error) {
	var b bytes.Buffer
	b.WriteString(`{"format":"longpole-recording","version":1,"start":"2026-01-01T00:00:00Z"}` + "\n")
	for _, e := range entries {
		line, _ := json.Marshal(e)
		b.Write(append(line, '\n'))
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
}

// seen notes when which call came.
type seen struct {
	mu    sync.Mutex
	start time.Time
	list  []string
}

func (s *seen) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := ""
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		body = " " + string(b)
	}
	s.list = append(s.list, fmt.Sprintf("%s %s %s%s", time.Since(s.start), r.Method, r.URL, body))
	return answer(http.StatusOK), nil
}

func replayPlan(r load.Replay) load.Plan {
	if r.Base == "" {
		r.Base = "http://staging.test/"
	}
	return load.Plan{Targets: []load.Target{{Name: "a", Replay: &r}}}
}

func entry(at time.Duration, path string) recording.Entry {
	return recording.Entry{At: at, Method: "GET", Path: path}
}

func TestCallsAreReplayedWhenTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// In the order in which they ended, which is not that of their beginnings.
		open := file(
			entry(0, "/a"),
			recording.Entry{At: time.Second, Method: "GET", Path: "/c%2F", Query: "x=1&y"},
			entry(500*time.Millisecond, "/b"),
		)
		s := &seen{start: time.Now()}
		g := newGenerator(t, replayPlan(load.Replay{Open: open}), load.Options{Transport: s})
		if err := g.Run(t.Context()); err != nil { // ends by itself
			t.Fatal(err)
		}
		want := "0s GET http://staging.test/a, 500ms GET http://staging.test/b, 1s GET http://staging.test/c%2F?x=1&y"
		if got := strings.Join(s.list, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if r := g.Snapshot().Results[0]; r.Calls != 3 || r.Skipped != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestAReplayMayBeFasterAndBeginAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seen{start: time.Now()}
		g := newGenerator(t, replayPlan(load.Replay{Open: file(entry(0, "/a"), entry(2*time.Second, "/b")), Speed: 2, Loop: true}), load.Options{Transport: s})
		run(t, g, 4*time.Second)
		// A round lasts 2 s and a mean gap of 1 s, at half of that.
		want := "0s GET http://staging.test/a, 1s GET http://staging.test/b, 1.5s GET http://staging.test/a, 2.5s GET http://staging.test/b, 3s GET http://staging.test/a"
		if got := strings.Join(s.list, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestAReplayIsAnOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var entries []recording.Entry
		for i := range 100 {
			entries = append(entries, entry(time.Duration(i)*10*time.Millisecond, "/"))
		}
		start := time.Now()
		stalled := tripper(func(*http.Request) (*http.Response, error) {
			if age := time.Since(start); age < time.Second {
				time.Sleep(time.Second - age) // the whole system stands still
			}
			return answer(http.StatusOK), nil
		})
		g := newGenerator(t, replayPlan(load.Replay{Open: file(entries...)}), load.Options{Transport: stalled})
		if err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := g.Snapshot().Results[0]
		if got := r.Response.Quantile(0.5); !within(got, 500*time.Millisecond) || r.Calls != 100 {
			t.Errorf("the median is %s of %d calls; want 500ms of 100", got, r.Calls)
		}
	})
}

func TestWhatChangesSomethingIsReplayedOnlyWhenAsked(t *testing.T) {
	for unsafe, want := range map[bool]string{false: "GET:3", true: "POST,GET:1"} {
		synctest.Test(t, func(t *testing.T) {
			var methods []string
			var mu sync.Mutex
			note := tripper(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				methods = append(methods, r.Method)
				if r.Header.Get("X-Longpole-Replay") != "1" || r.Header.Get("Accept") != "a" || r.Header.Get("Connection") != "" || r.Host != "shop.test" {
					t.Errorf("%s: %v, host %s", r.Method, r.Header, r.Host)
				}
				if b, _ := io.ReadAll(r.Body); r.Method == "POST" && string(b) != "body" {
					t.Errorf("the body is %q", b)
				}
				return answer(http.StatusOK), nil
			})
			h := map[string][]string{"Accept": {"a"}, "Connection": {"close"}}
			open := file(
				recording.Entry{Method: "POST", Path: "/a", Host: "shop.test", Header: h, Body: []byte("body")},
				recording.Entry{At: 1, Method: "POST", Path: "/a", Host: "shop.test", Header: h, Clipped: true},
				recording.Entry{At: 2, Method: "GET", Path: "/a", Host: "shop.test", Header: h, Body: []byte("get")},
				recording.Entry{At: 3, Method: "", Path: "/broken"},
			)
			g := newGenerator(t, replayPlan(load.Replay{Open: open, Unsafe: unsafe, KeepHost: true}), load.Options{Transport: note})
			if err := g.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			wanted, skipped, _ := strings.Cut(want, ":")
			if unsafe {
				skipped = "2"
			}
			if r := g.Snapshot().Results[0]; len(methods) != len(strings.Split(wanted, ",")) || fmt.Sprint(r.Skipped) != skipped {
				t.Errorf("unsafe %t: %v, %d skipped; want %s", unsafe, methods, r.Skipped, want)
			}
		})
	}
}

func TestARecordingThatCannotBeReadEndsTheRun(t *testing.T) {
	broken := errors.New("broken")
	for name, r := range map[string]load.Replay{
		"cannot be opened": {Open: func() (io.ReadCloser, error) { return nil, broken }},
		"is none":          {Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }},
	} {
		err := newGenerator(t, replayPlan(r), load.Options{Transport: tripper(nil)}).Run(t.Context())
		if !errors.Is(err, broken) && !errors.Is(err, recording.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := newGenerator(t, replayPlan(load.Replay{Open: file(), Loop: true}), load.Options{Transport: tripper(nil)})
	if err := empty.Run(t.Context()); err != nil { // and not for ever
		t.Error(err)
	}
}

func TestFaultsOfAReplayAreReported(t *testing.T) {
	_, err := load.New(load.Plan{Targets: []load.Target{{Name: "a", Replay: &load.Replay{Base: "staging", Speed: -1}}}}, load.Options{})
	if n := len(setting.List(errors.Unwrap(err))); n != 3 {
		t.Errorf("%d faults; want 3: %v", n, err)
	}
}
