package advise

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
)

// tries is so many requests, each with a call that is tried so often and takes 5 ms a time, beside one that takes 200 ms.
func tries(t *testing.T, requests int, often func(i int) int) *corpus {
	t.Helper()
	lines := make([]*timeline, requests)
	for i := range lines {
		var b strings.Builder
		b.WriteString("buy 0ms 210ms service=shop kind=server\n  render 1ms 209ms\n")
		for k := range often(i) {
			mark := "failed"
			if k == often(i)-1 {
				mark = ""
			}
			fmt.Fprintf(&b, "  call %dms %dms kind=client %s\n    pay %dms %dms service=bank kind=server %s\n", 2+10*k, 7+10*k, mark, 3+10*k, 6+10*k, mark)
		}
		lines[i] = timelineOf(parse(t, b.String()))
	}
	return newCorpus(lines)
}

func TestFewerTriesAreWorthItForTheCalleeAlone(t *testing.T) {
	for name, c := range map[string]struct {
		often func(i int) int
		want  bool
	}{
		"every call is tried four times": {func(int) int { return 4 }, true},
		"one in fifty is tried thrice":   {func(i int) int { return 1 + 2*((i%50)/49) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := diagnose.Finding{Code: "LP112", Service: "shop", Operation: "buy", Detail: diagnose.Detail{Callees: []string{"bank"}}}
			out := tries(t, 200, c.often).advise(f, routeKey{"shop", "buy"}, nil)
			found := len(out.Actions) > 0 && out.Actions[0].Kind == KindRetries
			if found != c.want {
				t.Fatalf("actions %+v, %v", out.Actions, out.CounterEvidence)
			}
			if found && (out.Actions[0].Predicted != nil || !strings.Contains(out.Actions[0].Benefit, "fewer attempts")) {
				t.Errorf("it promises the route what it does not get: %+v", out.Actions[0])
			}
		})
	}
}

func TestALimitThatNoAttemptReachesCostsNothing(t *testing.T) {
	c := tries(t, 60, func(int) int { return 1 })
	p, lost := c.bounded(c.callsTo(target{"bank", "pay"}), time.Second, 3)
	if lost != 0 || p.extra != 0 || math.IsNaN(p.extra) {
		t.Errorf("lost %v, extra %v", lost, p.extra)
	}
}
