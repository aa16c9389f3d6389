package diagnose_test

import (
	"fmt"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

func TestSlackIsThatOfTheConformanceCases(t *testing.T) {
	var want struct {
		Slack map[string]int64 `json:"slack_us"`
	}
	readCorpus(t, &want, "critical-path", "adversarial", "parallel-fanout-straggler", "expected.json")
	tree := diagnose.Build(readTrace(t, "critical-path", "adversarial", "parallel-fanout-straggler"), diagnose.ClockOptions{})
	got := map[string]int64{}
	for i, f := range tree.Floats(tree.Roots[0]) {
		if _, ok := want.Slack[tree.Spans[i].ID]; ok {
			got[tree.Spans[i].ID] = f.Slack / 1000
		}
	}
	same(t, "slack", got, want.Slack)
}

func TestSlackAndDrag(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string // of each span in the order of names: slack/drag in ms
	}{
		"calls in a row have all their time as drag, and no slack": {`
			r 0ms 100ms
			  a 10ms 40ms
			  b 50ms 90ms`, "r 0/100 a 0/30 b 0/40 "},
		"a rival bounds the drag": {`
			r 0ms 100ms
			  a 0ms 100ms
			  b 0ms 70ms`, "r 0/100 a 0/30 b 30/0 "},
		"so it does of all below": {`
			r 0ms 100ms
			  a 0ms 100ms
			    x 10ms 95ms
			  b 0ms 70ms kind=client`, "r 0/100 a 0/30 b 30/0 x 0/30 "},
		"a rival that ends with it leaves none": {`
			r 0ms 100ms
			  a 0ms 120ms
			  b 0ms 110ms`, "r 0/100 a 0/0 b 0/0 "},
		"a wait that is recorded twice is no rival": {`
			r 0ms 100ms service=s
			  a 1ms 99ms kind=client
			    x 2ms 98ms service=t kind=server
			  b 0ms 98ms`, "r 0/100 a 0/98 b 1/0 x 0/96 "},
		"slack adds up on the way down": {`
			r 0ms 100ms
			  a 0ms 100ms
			  b 0ms 70ms
			    y 0ms 60ms
			    z 0ms 50ms`, "r 0/100 a 0/30 b 30/0 y 30/0 z 40/0 "},
		"what ends beside a call has slack until that call's end": {`
			r 0ms 100ms
			  a 0ms 40ms
			  b 0ms 30ms
			  c 50ms 90ms`, "r 0/100 a 0/10 b 10/0 c 0/40 "},
		"nobody waits for what follows": {`
			r 0ms 100ms
			  f 10ms 40ms follows`, "r 0/100 f -1/0 "},
	} {
		t.Run(name, func(t *testing.T) {
			spans, err := trace.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			tree := diagnose.Build(spans, diagnose.ClockOptions{})
			floats := map[string]diagnose.Float{}
			for i, f := range tree.Floats(tree.Roots[0]) {
				floats[tree.Spans[i].Name] = f
			}
			got := ""
			for _, n := range "rabcfxyz" {
				if f, ok := floats[string(n)]; ok {
					slack := f.Slack
					if slack > 0 {
						slack /= 1e6
					}
					got += fmt.Sprintf("%c %d/%d ", n, slack, f.Drag/1e6)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
