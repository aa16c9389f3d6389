package main

import (
	"bytes"
	"slices"
	"testing"

	"github.com/longpole/longpole/internal/diagnose"
)

func TestTheGeneratorRepeatsItselfAndItsTracesAreWhole(t *testing.T) {
	in := generate(8_000)
	if !bytes.Equal(in.stream, generate(8_000).stream) {
		t.Fatal("two runs differ")
	}
	read, err := in.read(2)
	if err != nil {
		t.Fatal(err)
	}
	if read.Stats.Spans != in.spans || read.Stats.InvalidSpans != 0 {
		t.Errorf("%d spans were made, %+v were read", in.spans, read.Stats)
	}
	var own []int
	for _, tr := range read.Traces {
		if tree := diagnose.Build(tr, diagnose.ClockOptions{}); tree.Incomplete || len(tree.Roots) != 1 {
			t.Fatalf("trace %s has %d roots", tr.ID, len(tree.Roots))
		}
		for _, s := range tr.Spans {
			own = append(own, s.Len()-8) // the resource has 8
		}
	}
	if least, most := slices.Min(own), slices.Max(own); least < 8 || most > 12 {
		t.Errorf("%d to %d attributes", least, most)
	}
}

func TestTheStepsTakeEverySpan(t *testing.T) {
	in := generate(2000)
	if a, b, c := in.decode(), in.group(2), in.verdict(2); a != in.spans || b != in.spans || c != in.spans {
		t.Errorf("%d, %d and %d of %d spans", a, b, c, in.spans)
	}
}
