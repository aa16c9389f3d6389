package discover

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAListIsYAMLOrJSON(t *testing.T) {
	want := []Endpoint{{URL: "http://a:1"}, {URL: "https://b:2/base", Weight: 2.5, Zone: "eu-1"}}
	for _, text := range []string{
		"- http://a:1\n- {url: https://b:2/base, weight: 2.5, zone: eu-1}\n",
		`["http://a:1", {"url": "https://b:2/base", "weight": 2.5, "zone": "eu-1"}]`,
	} {
		got, err := decodeFile("f", []byte(text))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Error(d, err)
		}
	}
	for _, text := range []string{"", "[]"} {
		if got, err := decodeFile("f", []byte(text)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestAListWithAFaultIsRefusedWhole(t *testing.T) {
	for text, want := range map[string]string{
		"- http://a:1\n- ftp://b":                                      "f:2:3: [1].url: \"ftp://b\" is not allowed; want the scheme http or https",
		"- http://a:1\n- HTTP://A:1/":                                  "not listed before",
		"- {url: 'http://a:1', weight: -1}":                            "weight",
		"- {url: 'http://a:1', wieght: 1}":                             `did you mean "weight"`,
		"- {weight: 1}":                                                "url",
		"endpoints: [http://a:1]":                                      "endpoints",
		"- http://a:1\n- [":                                            "f:",
		"- {url: 'http://a:1', zone: " + strings.Repeat("z", 64) + "}": "zone",
		strings.Repeat("- http://a:1\n", 1+MaxEndpoints):               "at most 4096",
	} {
		got, err := decodeFile("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("- http://a:1\n- {url: https://b:2/base, weight: 2.5, zone: eu-1}\n"))
	f.Add([]byte(`["http://a:1"]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decodeFile("f", data)
		if err != nil {
			return
		}
		for _, e := range list {
			if err := e.Validate(); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
		}
	})
}

// sets runs a source until the test ends and keeps what it sends.
type sets struct {
	mu  sync.Mutex
	all [][]Endpoint
}

// n is how many were sent.
func (s *sets) n() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func observe(t *testing.T, s Source, have []Endpoint) *sets {
	t.Helper()
	got := &sets{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, have, func(set []Endpoint) {
			got.mu.Lock()
			defer got.mu.Unlock()
			got.all = append(got.all, set)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return got
}

// urls is the last set, in short; "none" = none was sent yet.
func (s *sets) urls() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return "none"
	}
	var list []string
	for _, e := range s.all[len(s.all)-1] {
		list = append(list, strings.TrimPrefix(e.URL, "http://"))
	}
	return strings.Join(list, " ")
}

func TestAFileIsWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(text string) {
		t.Helper()
		// Replaced by renaming, as those who care do; the time of the file is ours, as two writes may come within its grain.
		other := path + ".new"
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(other, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		got := observe(t, New(Config{File: &File{Path: path}, KeepEmpty: 10 * time.Second}, nil), nil)
		expect := func(want string, n int) {
			t.Helper()
			if s := got.urls(); s != want || got.n() != n {
				t.Errorf("%s after %d sets; want %s after %d", s, got.n(), want, n)
			}
		}
		expect("none", 0) // the file is not there
		write("- http://b:1\n- http://a:1\n")
		time.Sleep(1200 * time.Millisecond)
		expect("a:1 b:1", 1)
		write("- http://a:1\n- http://b:1\n")
		time.Sleep(1200 * time.Millisecond)
		expect("a:1 b:1", 1) // the same set
		write("- nonsense\n")
		time.Sleep(time.Hour)
		expect("a:1 b:1", 1) // the last good one
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		expect("a:1 b:1", 1)
		write("")
		time.Sleep(5 * time.Second)
		expect("a:1 b:1", 1) // not believed yet
		write("- http://c:1\n")
		time.Sleep(time.Hour)
		expect("c:1", 2)
		write("[]")
		time.Sleep(12 * time.Second)
		expect("", 3)
	})
}

func TestARunGoesOnFromWhatIsInForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	if err := os.WriteFile(path, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		got := observe(t, New(Config{File: &File{Path: path}}, nil), set("http://a:1"))
		time.Sleep(59 * time.Second)
		if s := got.urls(); s != "none" {
			t.Errorf("an empty set was believed at once: %s", s)
		}
		time.Sleep(2 * time.Second)
		if s := got.urls(); s != "" {
			t.Errorf("an empty set was never believed: %s", s)
		}
	})
}
