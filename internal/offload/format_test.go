package offload

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/setting"
)

func FuzzDecode(f *testing.F) {
	j := job(1)
	j.ID, j.Key, j.Print = newID("q"), "k", "p"
	whole, err := j.encode()
	if err != nil {
		f.Fatal(err)
	}
	j.Death = &Death{At: time.Unix(1, 0).UTC(), Reason: "permanent", Status: 400, Attempts: 3}
	j.Header = nil
	dead, err := j.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(dead)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"v":1,"id":"x","length":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decode(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if !validID(j.ID) || j.Key == "" || j.Target[0] != '/' || j.Header == nil {
			t.Fatalf("taken: %+v", j)
		}
		again, err := j.encode()
		if err != nil {
			return // JSON may grow beyond the bound of the head
		}
		k, err := decode(again)
		if err != nil || !sameJob(j, k) {
			t.Fatalf("%+v became %+v, %v", j, k, err)
		}
	})
}

// sameJob compares all but what time.Time makes of one instant.
func sameJob(a, b *Job) bool {
	x, y := *a, *b
	ok := x.At.Equal(y.At) && string(x.Body) == string(y.Body)
	x.At, y.At, x.Body, y.Body, x.Death, y.Death = time.Time{}, time.Time{}, nil, nil, nil, nil
	return ok && reflect.DeepEqual(x, y) && (a.Death == nil) == (b.Death == nil)
}

func FuzzDecodeRecord(f *testing.F) {
	r := record{Seq: 7, State: Failed, Attempts: 2, Failures: 1, Status: 503, Reason: "server", Accepted: time.Unix(5, 0).UTC(), Next: time.Unix(9, 0).UTC()}
	f.Add(r.encode())
	f.Add([]byte(`{"v":1,"state":"done","attempts":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := decodeRecord(r.encode())
		if err != nil || again.State != r.State || again.Attempts != r.Attempts || !again.Next.Equal(r.Next) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

func TestAStoredJobIsReadableText(t *testing.T) {
	j := job(1)
	j.ID, j.Key = strings.Repeat("a", idLength), "k"
	data, err := j.encode()
	if err != nil {
		t.Fatal(err)
	}
	line, body, _ := strings.Cut(string(data), "\n")
	if body != string(j.Body) || !strings.Contains(line, `"target":"/orders/1?x=1"`) {
		t.Error(line, body)
	}
	j.Header = http.Header{"X": {strings.Repeat("x", maxHead)}}
	if _, err := j.encode(); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestIDsTellKeysScopesAndQueuesApart(t *testing.T) {
	seen := map[string][3]string{}
	for _, parts := range [][3]string{{"q", "a", "k"}, {"q", "ak", ""}, {"q", "", "ak"}, {"q", "b", "k"}, {"p", "a", "k"}, {"q", "a", "l"}} {
		id := idOf(parts[0], parts[1], parts[2])
		if other, twice := seen[id]; twice || !validID(id) || id != idOf(parts[0], parts[1], parts[2]) {
			t.Errorf("%q and %q are %s", parts, other, id)
		}
		seen[id] = parts
	}
	if newID("q") == newID("q") || newID("q")[:idPrefix] != queueHash("q") {
		t.Error("IDs of the same queue:", newID("q"), newID("q"))
	}
}

func TestPausesDoubleUpToTheirCeiling(t *testing.T) {
	c := QueueConfig{BaseDelay: time.Second, MaxDelay: 10 * time.Second}.WithDefaults()
	for _, tt := range []struct {
		failures int
		after    time.Duration
		from, to time.Duration
	}{
		{1, 0, 500 * time.Millisecond, time.Second},
		{2, 0, time.Second, 2 * time.Second},
		{4, 0, 4 * time.Second, 8 * time.Second},
		{5, 0, 5 * time.Second, 10 * time.Second},
		{1000, 0, 5 * time.Second, 10 * time.Second},
		{0, 0, 500 * time.Millisecond, time.Second},
		{1, 7 * time.Second, 7 * time.Second, 7 * time.Second},
		{1, time.Hour, 10 * time.Second, 10 * time.Second},
	} {
		spread := map[time.Duration]bool{}
		for range 100 {
			d := c.pause(tt.failures, tt.after)
			if d < tt.from || d > tt.to {
				t.Errorf("pause %d with %v is %v, want %v..%v", tt.failures, tt.after, d, tt.from, tt.to)
			}
			spread[d] = true
		}
		if tt.after == 0 && len(spread) < 50 {
			t.Errorf("pause %d has no jitter", tt.failures)
		}
	}
}

func TestWhatBecomesOfAJobThatComesFromTheStore(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := QueueConfig{MaxAttempts: 3, MaxAge: time.Hour}.WithDefaults()
	for _, tt := range []struct {
		name   string
		age    time.Duration
		rec    record
		want   next
		reason string
	}{
		{"new", 0, record{State: Queued}, nextDeliver, ""},
		{"done, its acknowledgement lost", 0, record{State: Done}, nextFinish, ""},
		{"done, and old", 2 * time.Hour, record{State: Done}, nextFinish, ""},
		{"old", 2 * time.Hour, record{State: Queued}, nextBury, "expired"},
		{"within its pause", 0, record{State: Failed, Failures: 1, Attempts: 1, Next: now.Add(time.Second)}, nextWait, ""},
		{"after its pause", 0, record{State: Failed, Failures: 1, Attempts: 1, Next: now.Add(-time.Second)}, nextDeliver, ""},
		{"its last attempt cut short", 0, record{State: Running, Failures: 2, Attempts: 3}, nextDeliver, ""},
		{"its letter not stored", 0, record{State: Failed, Failures: 3, Attempts: 3}, nextBury, "exhausted"},
		{"it ends the process each time", 0, record{State: Running, Failures: 0, Attempts: interruptions + 3}, nextBury, "exhausted"},
		{"held back by a policy again and again", 0, record{State: Failed, Unsent: 100, Attempts: 100}, nextDeliver, ""},
	} {
		got, reason := c.decide(now, &Job{At: now.Add(-tt.age)}, &tt.rec)
		if got != tt.want || reason != tt.reason {
			t.Errorf("%s: %v %q, want %v %q", tt.name, got, reason, tt.want, tt.reason)
		}
	}
}

func TestKeysAreCountedOverAWindow(t *testing.T) {
	var k keyCount
	at := time.Unix(0, 0)
	if n := k.add(at, time.Minute); n != 1 {
		t.Error(n)
	}
	if n := k.add(at.Add(59*time.Second), time.Minute); n != 2 {
		t.Error(n)
	}
	if n := k.add(at.Add(61*time.Second), time.Minute); n != 3 {
		t.Error(n, "though the first is just over a minute old")
	}
	if n := k.add(at.Add(10*time.Minute), time.Minute); n != 1 {
		t.Error(n)
	}
}

func TestFaultySettingsAreNamed(t *testing.T) {
	for _, tt := range []struct {
		path string
		err  error
	}{
		{"dir", StoreConfig{URL: "nats://a:1", Dir: "x"}.Validate()},
		{"url", StoreConfig{URL: "http://a"}.Validate()},
		{"url", StoreConfig{URL: "nats://a:1, b"}.Validate()},
		{"sync_interval", StoreConfig{SyncInterval: -1}.Validate()},
		{"sync_interval", StoreConfig{URL: "nats://a", SyncInterval: 1}.Validate()},
		{"credentials", StoreConfig{Credentials: "x"}.Validate()},
		{"ca", StoreConfig{CA: "x"}.Validate()},
		{"replicas", StoreConfig{Replicas: 3}.Validate()},
		{"prefix", StoreConfig{Prefix: "a.b"}.Validate()},
		{"timeout", StoreConfig{Timeout: -1}.Validate()},
		{"concurrency", QueueConfig{Concurrency: 5000}.Validate()},
		{"max_attempts", QueueConfig{MaxAttempts: -1}.Validate()},
		{"base_delay", QueueConfig{BaseDelay: -1}.Validate()},
		{"max_delay", QueueConfig{BaseDelay: 2, MaxDelay: 1}.Validate()},
		{"max_age", QueueConfig{MaxAge: -1}.Validate()},
		{"body_bytes", QueueConfig{BodyBytes: 1 << 30}.Validate()},
		{"jobs", QueueConfig{Jobs: -1}.Validate()},
		{"bytes", QueueConfig{Bytes: 1}.Validate()},
		{"dedupe", QueueConfig{Dedupe: time.Hour * 25}.Validate()},
		{"strip_headers", QueueConfig{StripHeaders: []string{"a b"}}.Validate()},
		{"on_error", QueueConfig{OnError: "x"}.Validate()},
		{"dead_jobs", QueueConfig{DeadJobs: -1}.Validate()},
		{"dead_for", QueueConfig{DeadFor: 1}.Validate()},
	} {
		found := false
		for _, e := range setting.List(tt.err) {
			if fault, ok := errors.AsType[*setting.Error](e); ok && fault.Path == tt.path {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: %v", tt.path, tt.err)
		}
	}
	for _, err := range []error{
		StoreConfig{}.Validate(), StoreConfig{}.WithDefaults().Validate(), QueueConfig{}.Validate(), QueueConfig{}.WithDefaults().Validate(),
		StoreConfig{URL: "nats://a:1,tls://b:2", Credentials: "c", Replicas: 3}.WithDefaults().Validate(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}
