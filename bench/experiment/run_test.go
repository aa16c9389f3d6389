package main

import (
	"testing"
	"time"

	"github.com/longpole/longpole/internal/rollout"
)

// TestErrorsAreRolledBackAndNothingIsNot runs a loaded gateway: one rollout fails 5 % of the calls, the other one changes nothing.
// The fast tier sees the former in some 15 s; on a slow machine it may take longer, but nothing else may end it.
func TestErrorsAreRolledBackAndNothingIsNot(t *testing.T) {
	want := map[string]rollout.Phase{"errors 0.1 % to 5 %": rollout.RolledBack, "nothing: another version that is the same": rollout.InconclusiveEnd}
	var all []job
	for _, c := range cases() {
		if _, ok := want[c.name]; !ok {
			continue
		}
		c.apart, c.most = true, 5*time.Minute
		if c.kind == nothing {
			c.most = 20 * time.Second
		}
		all = append(all, job{c, len(all)})
	}
	b := &bench{o: options{rate: 2 * perRoute, warmup: 3 * time.Second}}
	if err := b.run(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if len(b.results) != len(want) {
		t.Fatalf("%d rollouts ended, want %d", len(b.results), len(want))
	}
	for _, r := range b.results {
		if r.status.Phase != want[r.name] {
			t.Errorf("%s: %s, want %s: %s", r.name, r.status.Phase, want[r.name], r.status.Outcome)
		}
	}
}
