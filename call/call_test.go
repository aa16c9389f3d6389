package call

import (
	"testing"
	"time"
)

func TestClassesHaveNames(t *testing.T) {
	want := []string{"ok", "client", "server", "refused", "timeout", "canceled", "shed", "unknown"}
	for c, name := range want {
		if got := Class(c).String(); got != name {
			t.Errorf("class %d: %q, want %q", c, got, name)
		}
	}
	for s, name := range []string{"uncached", "miss", "hit", "stale", "coalesced", "revalidated", "unknown"} {
		if got := CacheState(s).String(); got != name {
			t.Errorf("state %d: %q, want %q", s, got, name)
		}
	}
}

func TestOnlyTheDependencyCanFail(t *testing.T) {
	for c, want := range map[Class]bool{OK: false, Client: false, Server: true, Refused: true, Timeout: true, Canceled: false, Shed: false} {
		if c.Failed() != want {
			t.Errorf("%v: %v, want %v", c, c.Failed(), want)
		}
	}
}

func TestARecordKeepsTheFirstAttemptsAndCountsTheRest(t *testing.T) {
	var r Record
	if len(r.Kept()) != 0 {
		t.Error("an empty record has attempts")
	}
	for i := range MaxAttempts + 3 {
		want := i
		if i >= MaxAttempts {
			want = -1
		}
		if got := r.Add(Attempt{Latency: time.Duration(i)}); got != want {
			t.Errorf("attempt %d has index %d, want %d", i, got, want)
		}
	}
	if r.Count != MaxAttempts+3 || len(r.Kept()) != MaxAttempts || r.Kept()[MaxAttempts-1].Latency != MaxAttempts-1 {
		t.Errorf("%d counted, %v kept", r.Count, r.Kept())
	}
}
