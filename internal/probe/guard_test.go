package probe

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/longpole/longpole/setting"
	"pgregory.net/rapid"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestALookComesNotTooSoonAgain(t *testing.T) {
	g := newGuard(Budget{MinInterval: 10 * time.Second})
	for _, c := range []struct {
		at   time.Duration
		key  string
		want error
	}{
		{0, "a", nil}, {time.Second, "a", ErrTooSoon}, {time.Second, "b", nil}, {9999 * time.Millisecond, "a", ErrTooSoon}, {10 * time.Second, "a", nil}, {10 * time.Second, "b", ErrTooSoon},
	} {
		if err := g.begin(noon.Add(c.at), c.key); !errors.Is(err, c.want) {
			t.Errorf("%s after %v: %v, want %v", c.key, c.at, err, c.want)
		}
	}
	if s := g.report(noon); s.Looks != 3 || s.Refused != 3 {
		t.Errorf("%+v", s)
	}
}

func TestAnHourHasABudget(t *testing.T) {
	g := newGuard(Budget{MinInterval: time.Second, PerHour: 10 * time.Second})
	at := noon
	for i := range 5 {
		if err := g.begin(at, "x"); err != nil {
			t.Fatalf("look %d: %v", i, err)
		}
		g.end(at, 2*time.Second, nil)
		at = at.Add(10 * time.Minute)
	}
	if err := g.begin(at, "x"); !errors.Is(err, ErrSpent) {
		t.Errorf("with 10 s spent: %v", err)
	}
	if err := g.begin(noon.Add(61*time.Minute), "x"); err != nil {
		t.Errorf("when the first look is an hour old: %v", err)
	}
	if s := g.report(noon.Add(5 * time.Hour)); s.LastHour != 0 {
		t.Errorf("five hours later %v are still counted", s.LastHour)
	}
}

func TestAnOverloadedServerIsGivenRest(t *testing.T) {
	g := newGuard(Budget{MinInterval: time.Second, PerHour: time.Hour, Rest: time.Minute})
	at := noon
	fail := func(want error) {
		t.Helper()
		at = at.Add(time.Second)
		if err := g.begin(at, "x"); !errors.Is(err, want) {
			t.Fatalf("at %v: %v, want %v", at.Sub(noon), err, want)
		}
		if want == nil {
			g.end(at, time.Second, fmt.Errorf("look: %w", context.DeadlineExceeded))
		}
	}
	fail(nil)
	fail(nil)
	fail(nil)
	fail(ErrResting)
	at = at.Add(58 * time.Second)
	fail(nil) // one look, to see
	fail(ErrResting)
	at = at.Add(100 * time.Second)
	fail(ErrResting) // twice as long
	at = at.Add(20 * time.Second)
	if err := g.begin(at, "x"); err != nil {
		t.Fatal(err)
	}
	if err := g.begin(at, "y"); !errors.Is(err, ErrResting) {
		t.Errorf("a second look before the first has shown that it is well: %v", err)
	}
	g.end(at, time.Second, nil)
	if err := g.begin(at, "y"); err != nil {
		t.Errorf("when the server is well: %v", err)
	}
	if s := g.report(at); s.Overloads != 4 || s.LastFailure == "" {
		t.Errorf("%+v", s)
	}
}

func TestACallerWhoLeavesIsNoSignOfOverload(t *testing.T) {
	g := newGuard(Budget{MinInterval: time.Second})
	for i := range 10 {
		if err := g.begin(noon.Add(time.Duration(i)*time.Minute), "x"); err != nil {
			t.Fatal(err)
		}
		g.end(noon.Add(time.Duration(i)*time.Minute), time.Millisecond, context.Canceled)
	}
}

// TestAGuardIsBounded: whatever comes, the keys are few, and an hour costs no more than its budget and the look that overdrew it.
func TestAGuardIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGuard(Budget{MinInterval: time.Second, PerHour: time.Minute})
		at := noon
		for i := range rapid.IntRange(1, 300).Draw(t, "looks") {
			at = at.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "pause")) * time.Millisecond)
			if g.begin(at, fmt.Sprint(i%7)) == nil {
				g.end(at, time.Duration(rapid.IntRange(0, 5000).Draw(t, "took"))*time.Millisecond, nil)
			}
			if s := g.report(at); s.LastHour > time.Minute+5*time.Second {
				t.Fatalf("%v in an hour", s.LastHour)
			}
		}
	})
	g := newGuard(Budget{MinInterval: time.Hour, PerHour: time.Hour})
	for i := range 3 * maxKeys {
		if err := g.begin(noon, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		g.end(noon, 0, nil)
	}
	if len(g.last) > maxKeys {
		t.Errorf("%d keys", len(g.last))
	}
}

// TestDefaultsAreValid: a configuration filled with its defaults is right, and a wrong one says each fault.
func TestDefaultsAreValid(t *testing.T) {
	for name, err := range map[string]error{
		"postgres": PostgresConfig{}.WithDefaults().Validate(), "redis": RedisConfig{}.WithDefaults().Validate(), "queue": QueueConfig{}.WithDefaults().Validate(),
		"profiles": ProfilesConfig{URL: "http://x/debug/pprof"}.WithDefaults().Validate(), "metrics": MetricsConfig{URLs: []string{"http://x/metrics"}}.WithDefaults().Validate(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := Budget{MinInterval: -1, PerHour: 2 * time.Hour, Rest: time.Millisecond}
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"postgres": {PostgresConfig{DSN: "http://x:port", Timeout: -1, StatementTime: -1, LockTime: -1, Statements: -1, Sessions: -1, MaxActive: -1, Budget: bad}.Validate(), 10},
		"redis":    {RedisConfig{Timeout: -1, Slow: -1, Budget: bad}.Validate(), 5},
		"queue":    {QueueConfig{Timeout: -1, Streams: -1, Consumers: -1, Budget: bad}.Validate(), 6},
		"profiles": {ProfilesConfig{URL: "ftp://x", Seconds: 61, Timeout: -1, MaxSize: 1, Budget: bad}.Validate(), 7},
		"metrics":  {MetricsConfig{URLs: []string{"x"}, Timeout: -1, MaxSize: 1, Budget: bad}.Validate(), 6},
	} {
		if got := len(setting.List(c.err)); got != c.want {
			t.Errorf("%s: %d faults, want %d: %v", name, got, c.want, c.err)
		}
	}
}
